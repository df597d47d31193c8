"""The datasets, one short file each. Importing this package registers each dataset whose file lies in this folder."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
