"""The scripts of all methods and protocols come from one list."""

import runpy
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "scripts"


def test_the_scripts_are_those_that_generate_py_writes():
    expected = runpy.run_path(str(SCRIPTS / "generate.py"))["scripts"]()
    found = {path.relative_to(SCRIPTS).as_posix(): path.read_text() for path in SCRIPTS.glob("*/*.sh")}
    assert found == expected
