"""Print a variable of a MATLAB file as a JSON list of its elements, or null if there is no such variable.

It is a separate program because scipy's compiled reader trusts the sizes in a file, so that a damaged one can crash the
process (seen with scipy 1.17). It imports nothing of this project, so that it starts quickly.

    python mat_to_json.py FILE VARIABLE
"""

import json
import sys

import numpy as np
from scipy.io import loadmat


def plain(value):
    """Convert numbers and strings to Python's, arrays to flat lists, and records to dicts by field."""
    if isinstance(value, np.void) and value.dtype.names:
        return {field: plain(value[field]) for field in value.dtype.names}
    if isinstance(value, np.ndarray):
        return [plain(element) for element in value.ravel()]
    return value.item() if isinstance(value, np.generic) else value


if __name__ == "__main__":
    path, name = sys.argv[1:]
    content = loadmat(path, squeeze_me=True, variable_names=[name])
    print(json.dumps(plain(np.atleast_1d(content[name])) if name in content else None))
