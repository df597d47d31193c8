"""Data sets as they come: fetched, checked, unpacked into the folders that the loaders expect, and verified."""
