"""Downloads, checks, unpacks and verifies datasets, in the folders that the loaders expect."""
