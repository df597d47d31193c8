"""Average the test results of several seeds, as CoOp's script of this name does.

    python parse_test_res.py DIR                DIR holds seed1/, seed2/, ..., each with a log.txt
    python parse_test_res.py DIR --test-log     their logs are those of tests (--eval-only)
    python parse_test_res.py DIR --multi-exp    DIR holds several such folders
    python parse_test_res.py DIR --ci95         95% confidence interval instead of the standard deviation

It reads the logs, so it also works on those of the original repositories. `dassl results` prints full tables.
"""

import argparse
import re
import statistics
import sys
from pathlib import Path
from typing import NoReturn

METRICS = {name: re.compile(rf"\* {name}: ([\d.eE+-]+)%") for name in ("accuracy", "error")}


def read_log(path: Path, start: str) -> dict[str, float]:
    """Return the last value of each metric, in percent, after the line `start`."""
    found, reading = {}, False
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        reading = reading or line.strip() == start
        for name, pattern in METRICS.items():
            if reading and (match := pattern.search(line)):
                found[name] = float(match[1])
    return found


def summarize(folder: Path, start: str, ci95: bool) -> dict[str, float]:
    """Print the results of each seed and their mean, and return the means.

    The deviation is the population's, as in CoOp's script.
    """
    print(f"Parsing files in {folder}")
    values: dict[str, list[float]] = {}
    for path in sorted(folder.glob("*/log.txt")):
        found = read_log(path, start)
        if found:
            print(f"file: {path}. " + " ".join(f"{name}: {value:.2f}%." for name, value in found.items()))
        for name, value in found.items():
            values.setdefault(name, []).append(value)
    if not values:
        fail(f'{folder}: expected */log.txt with results after "{start}", got none. Try --test-log.')
    print(f"===\nSummary of directory: {folder}")
    for name, each in values.items():
        spread = statistics.pstdev(each) * (1.96 / len(each) ** 0.5 if ci95 else 1)
        print(f"* {name}: {statistics.mean(each):.2f}% +- {spread:.2f}%")
    print("===")
    return {name: statistics.mean(each) for name, each in values.items()}


def fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--test-log", action="store_true", help="read logs of tests")
    parser.add_argument("--multi-exp", action="store_true", help="average over several experiments")
    parser.add_argument("--ci95", action="store_true", help="95%% confidence interval instead of standard deviation")
    args = parser.parse_args()
    start = "=> result" if args.test_log else "Finished training"
    if not args.directory.is_dir():
        fail(f"{args.directory}: expected a folder of runs, got no folder.")
    if not args.multi_exp:
        summarize(args.directory, start, args.ci95)
        return
    folders = sorted(path for path in args.directory.iterdir() if path.is_dir())
    means = [summarize(folder, start, args.ci95) for folder in folders]
    print("Average performance")
    for name in METRICS:
        print(f"* {name}: {statistics.mean(each[name] for each in means if name in each):.2f}%")


if __name__ == "__main__":
    main()
