"""`dassl SCRIPT.py ...`."""

import runpy
import sys
from pathlib import Path

from basics import UserError


def run_script(script: str, arguments: list[str]) -> int:
    """Run a script with the sys.argv and sys.path that `python SCRIPT ...` gives it. Its exit passes through."""
    path = Path(script)
    if not path.is_file():
        here = ", ".join(sorted(other.name for other in path.parent.glob("*.py"))) if path.parent.is_dir() else ""
        raise UserError(f"{script}: expected a script in {path.parent.resolve()} ({here or 'none'}), got nothing.")
    sys.argv = [script, *arguments]
    sys.path[0] = str(path.resolve().parent)
    runpy.run_path(script, run_name="__main__")
    return 0
