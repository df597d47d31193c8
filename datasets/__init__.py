"""The datasets, one short file each. Importing this package registers each dataset whose file lies in this folder.

So does a file in the folder datasets/ of the current folder; see basics/additions.py.
"""

from basics.additions import import_all

import_all(__name__, __path__)
