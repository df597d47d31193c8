"""What people use on top of the engine: comparisons and their results, reports, datasets, the `dassl` command."""
