"""`python -m promptlearn.cli`: the `dassl` command where it is not installed."""

import sys

from promptlearn.cli.main import main

sys.exit(main())
