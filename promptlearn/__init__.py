"""What people use on top of the engine: comparisons and their results, reports, data sets, the `dassl` command."""
