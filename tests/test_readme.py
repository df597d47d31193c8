"""The README's commands do what it says.

Each command in a ```bash block is run in a copy of the checkout, in the README's order. A block that cannot run
everywhere is marked by a comment right before it, and its commands are checked as far as they can be:
`<!-- needs: data -->` and `<!-- needs: gpu -->` in a dry run, with the names, files and flags that they use;
`<!-- needs: network -->` is for getting the code and installing. What is checked in no way is an error.
Commands that train, and those that read the results, take minutes: they run among the slow tests, and are otherwise
checked as if they needed data.
"""

import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEEDS = ("data", "gpu", "network")
BLOCK = re.compile(r"(?:<!-- needs: (?P<needs>\w+) -->\n+)?^```bash\n(?P<body>.*?)^```", re.DOTALL | re.MULTILINE)
LEFT_OUT = shutil.ignore_patterns(".git", ".venv*", "output", "__pycache__", ".*_cache", "*.egg-info", "build")
TIME_LIMIT = 300  # seconds for a command


def commands(text: str) -> list[tuple[str, str | None]]:
    """List the commands of the ```bash blocks with what each block needs. Comments and line ends are not commands."""
    found = []
    for block in BLOCK.finditer(text):
        body = block["body"].replace("\\\n", " ")
        lines = [re.sub(r"(^|\s)#\s.*", "", line).strip() for line in body.splitlines()]
        found += [(re.sub(r"\s+", " ", line), block["needs"]) for line in lines if line]
    return found


def split(command: str) -> tuple[dict[str, str], list[str]]:
    """Split `A=1 b c` into ({"A": "1"}, ["b", "c"])."""
    words = shlex.split(command)
    settings = {}
    while words and re.match(r"[A-Z_]+=", words[0]):
        name, settings[name] = words.pop(0).split("=", 1)
    return settings, words


README = commands((ROOT / "README.md").read_text(encoding="utf-8")) if (ROOT / "README.md").exists() else []


def test_the_readme_shows_the_two_commands_first():
    assert [command for command, needs in README if needs != "network"][:2] == ["make demo", "make test"]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT, folder / "checkout", ignore=LEFT_OUT)
    (folder / "data").mkdir()
    (folder / "tools").mkdir()
    for name, call in [("python", ""), ("python3", ""), ("dassl", "-m promptlearn.cli ")]:
        tool = folder / "tools" / name
        tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" {call}"$@"\n')
        tool.chmod(0o755)
    return folder


def run(command: str, folder: Path) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name not in ("DATA", "OUTPUT")}
    environment |= {
        "PATH": f"{folder / 'tools'}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "checkout"),
        "VIRTUAL_ENV": str(folder),  # so that the scripts take the tools above
        "DASSL_CACHE": str(folder / "cache"),
        "SEEDS": "1",  # the scripts' other two seeds go the same way
    }
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder / "checkout",
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
    )


def check(command: str, needs: str | None, folder: Path) -> None:
    """Run a command, or check it as far as possible. Raises AssertionError if it would not work."""
    settings, words = split(command)
    assert needs is None or needs in NEEDS, f"unknown need {needs!r}; there are {NEEDS}"
    if words[:2] == ["dassl", "data"] and needs:
        check_data(words[2], words[3:], folder)
        return
    if words[0] == "make":
        command = shlex.join(["make", "-n", *words[1:]])
    elif needs == "network":
        check_getting(words, folder / "checkout")
        return
    elif needs:
        if "train.py" in words:
            check_training(words[words.index("train.py") + 1 :], folder)
            return
        command = dry_run(settings, words, folder)
    done = run(command, folder)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def check_getting(words: list[str], checkout: Path) -> None:
    """Check that what is installed from the checkout is there; git clone and cd are accepted."""
    if words[:2] == ["git", "clone"] or words[0] == "cd":
        return
    assert words[:2] == ["pip", "install"], f"{shlex.join(words)}: getting the code and installing it need the network"
    for target in [word for word in words[2:] if word.startswith(".")]:
        folder, _, extras = target.rstrip("]").partition("[")
        setup = (checkout / folder / "setup.py").read_text()
        for extra in filter(None, extras.split(",")):
            assert f'"{extra}": [' in setup, f"setup.py has no extra {extra!r}"


def check_data(verb: str, arguments: list[str], folder: Path) -> None:
    """Check a call of `dassl data`: its verb has these flags, its datasets are known."""
    shown = run(f"dassl data {verb} --help", folder)
    assert shown.returncode == 0, f"there is no dassl data {verb}"
    for word in arguments:
        if word.startswith("--"):
            assert re.search(rf"{word}\b(?!-)", shown.stdout), f"dassl data {verb} has no flag {word}"
        elif not word.startswith("/"):
            assert (folder / "checkout" / "configs" / "datasets" / f"{word}.yaml").is_file(), f"no dataset {word}"


def dry_run(settings: dict[str, str], words: list[str], folder: Path) -> str:
    """Run the command with an empty folder for its data and --dry-run."""
    assert words[0] in ("bash", "dassl"), f"{shlex.join(words)}: only scripts and `dassl` have a dry run"
    settings = settings | ({"DATA": str(folder / "data")} if "DATA" in settings else {})
    words = list(words)
    if "--data" in words:
        words[words.index("--data") + 1] = str(folder / "data")
    given = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings.items())
    return f"{given} {shlex.join([*words, '--dry-run'])}".strip()


@functools.cache
def help_of_train(folder: Path) -> str:
    return run("python train.py --help", folder).stdout


def check_training(arguments: list[str], folder: Path) -> None:
    """Check a call of train.py: its flags are train.py's, its configs exist, its trainer has a folder."""
    known = help_of_train(folder)
    for position, word in enumerate(arguments):
        if word.startswith("--"):
            assert re.search(rf"{word}\b(?!-)", known), f"train.py has no flag {word}"
        if word in ("--config-file", "--dataset-config-file"):
            assert (folder / "checkout" / arguments[position + 1]).is_file(), f"no file {arguments[position + 1]}"
        if word == "--trainer":
            assert (folder / "checkout" / "configs" / "trainers" / arguments[position + 1]).is_dir()


def takes_long(command: str, needs: str | None) -> bool:
    _, words = split(command)
    return needs is None and words[0] != "make" and words[:2] != ["dassl", "data"]


def has_dry_run(command: str) -> bool:
    _, words = split(command)
    return words[0] == "bash" or "train.py" in words or "--trainers" in words


@pytest.mark.parametrize(
    "command, needs",
    [pytest.param(*row, id=row[0], marks=[pytest.mark.slow] if takes_long(*row) else []) for row in README],
)
def test_the_command_works(command, needs, copy):
    check(command, needs, copy)


@pytest.mark.parametrize("command", [row[0] for row in README if takes_long(*row) and has_dry_run(row[0])])
def test_a_slow_command_is_well_formed(command, copy):
    check(command, "data", copy)


EXAMPLE = """
```bash
make demo   # a comment
A=1 dassl base2new \\
    --seeds 1
```
<!-- needs: data -->
```bash
# only a comment
DATA=/path bash scripts/rpo/base2new.sh oxford_pets
```
```python
import dassl
```
"""


def test_commands_are_found_with_what_they_need():
    assert commands(EXAMPLE) == [
        ("make demo", None),
        ("A=1 dassl base2new --seeds 1", None),
        ("DATA=/path bash scripts/rpo/base2new.sh oxford_pets", "data"),
    ]


@pytest.mark.parametrize(
    "command, needs",
    [
        ("make demo", None),
        ("git clone https://example.org/it.git", "network"),
        ("pip install -e .[test]", "network"),
        ("DATA=/path bash scripts/rpo/base2new.sh oxford_pets", "data"),
        ("dassl base2new --trainers RPO CoOp --datasets oxford_pets --data /path", "gpu"),
        ("dassl data prepare oxford_pets dtd --root /path", "network"),
        ("dassl --help", None),
    ],
)
def test_a_correct_command_passes(copy, command, needs):
    check(command, needs, copy)


@pytest.mark.parametrize(
    "command, needs",
    [
        ("make demmo", None),
        ("bash scripts/rpo/base3new.sh", None),
        ("dassl base2nwe", None),
        ("dassl base2new", "magic"),
        ("pip install -e .[tests]", "network"),
        ("curl https://example.org", "network"),
        ("curl https://example.org", "data"),
        ("DATA=/path bash scripts/rpo/base2new.sh oxford_pet", "data"),
        ("dassl base2new --trainers PRO --datasets oxford_pets --data /path", "data"),
        ("dassl data prepare oxford_pet --root /path", "network"),
        ("dassl data fetch oxford_pets --root /path", "network"),
        ("dassl data verify oxford_pets --picture --root /path", "data"),
        ("dassl base2new --dataset oxford_pets --data /path", "gpu"),
        ("python train.py --trainer RPO --config-file configs/trainers/RPO/none.yaml", "gpu"),
        ("python train.py --trainer PRO", "gpu"),
        ("python train.py --train RPO", "gpu"),
    ],
)
def test_a_wrong_command_is_detected(copy, command, needs):
    with pytest.raises(AssertionError):
        check(command, needs, copy)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "benchmarks/README.md", "clip/tiny/MODEL_CARD.md"])
def test_links_lead_to_existing_files(page):
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    broken = [link for link in links if "://" not in link and not (ROOT / page).parent.joinpath(link).exists()]
    assert not broken
