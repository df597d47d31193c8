"""`dassl doctor`: checks that everything a run needs is available."""

import argparse
import os
import re
import shutil
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from basics import UserError, cache_dir, sha256, write_atomic
from dassl import __version__
from promptlearn.experiments import Checkout

PACKAGE = "promptlearn-clip"
DESCRIPTION = """\
Check what the built-in demo needs (packages, processors, memory, disks), then what real data need besides (GPU, weights
of CLIP, datasets), and suggest how to get what is missing. Nothing is downloaded. Exit status: 0 if there is no problem
(what is missing for real data does not count), 1 if there is one.
"""
GIB = 2**30
# With less than this, a run is likely to fail.
LEAST_MEMORY = 4 * GIB  # ViT-B/16 in float32, its activations, and the data workers
LEAST_SHARED = GIB // 2  # batches on their way from the data workers
LEAST_DISK = 2 * GIB  # one backbone's weights and the outputs of some runs


@dataclass(frozen=True)
class Finding:
    """What was found; `level`: ok, note, missing (for real data), or problem; `do`: what to do about it."""

    level: str
    what: str
    do: str = ""

    def __str__(self) -> str:
        lines = [f"{self.level:8} {self.what}"]
        if self.do:
            lines.append(textwrap.fill(self.do, 110, initial_indent=" " * 9 + "-> ", subsequent_indent=" " * 12))
        return "\n".join(lines)


def run(arguments: list[str]) -> int:
    args = parser().parse_args(arguments)
    checkout = Checkout(args.checkout)
    output = Path(args.output).expanduser() if args.output else checkout.folder / "output"
    data = Path(args.data).expanduser() if args.data else None
    sections: dict[str, list[Callable[[], Iterator[Finding]]]] = {
        "the demo": [packages, processors, memory, tiny, lambda: built_in(checkout), lambda: disks(output)],
        "real data": [gpu, weights, lambda: datasets(checkout, data)],
    }
    summary, problems = [], 0
    for section, checks in sections.items():
        print(f"for {section}:")
        counted: Counter[str] = Counter()
        for check in checks:
            for finding in check():
                print(finding)
                counted[finding.level] += 1
        print()
        problems += counted["problem"]
        faults = [
            f"{counted[level]} {what}"
            for level, what in (("problem", "problems"), ("missing", "missing"))
            if counted[level]
        ]
        summary.append(f"{section}: {', '.join(faults) or 'everything is in order'}")
    print("\n".join(summary))
    return 1 if problems else 0


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="dassl doctor", description=DESCRIPTION, allow_abbrev=False)
    p.add_argument(
        "--data", metavar="FOLDER", help="the folder that holds the datasets (default: built-in datasets only)"
    )
    p.add_argument("--output", metavar="FOLDER", help="where runs will write (default: output)")
    p.add_argument("--checkout", metavar="FOLDER", help="where train.py and configs/ are, if not here or installed")
    return p


def packages() -> Iterator[Finding]:
    """Check the installed versions against the requirements in setup.py."""
    import torch

    yield Finding("ok", f"dassl {__version__}, torch {torch.__version__}")
    try:
        required = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        yield Finding("note", f"{PACKAGE} is not installed, only on the path", "pip install -e . in the checkout")
        return
    for requirement in required:
        name = re.match(r"[\w.-]+", requirement)[0]
        if "extra ==" in requirement:
            continue
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding("problem", f"the package {name} is missing", f"pip install '{requirement}'")


def gpu() -> Iterator[Finding]:
    """Test each GPU with a small product."""
    import torch

    if not torch.cuda.is_available():
        if shutil.which("nvidia-smi") is None:
            yield Finding("note", "no GPU: runs use the CPU, which is enough for the built-in demo")
        elif torch.version.cuda is None:
            yield Finding(
                "problem",
                "there is a GPU driver, but this torch is built without CUDA",
                "install one with CUDA: https://pytorch.org/get-started/locally",
            )
        else:
            yield Finding(
                "problem",
                f"there is a GPU driver, but torch (CUDA {torch.version.cuda}) finds no GPU with it",
                "look at nvidia-smi and CUDA_VISIBLE_DEVICES; the driver may be older than that CUDA",
            )
        return
    for index in range(torch.cuda.device_count()):
        name = f"GPU {index}: {torch.cuda.get_device_name(index)}"
        try:
            ones = torch.ones(2, 2, device=f"cuda:{index}")
            free, total = torch.cuda.mem_get_info(index)
            works = bool((ones @ ones == 2).all())
        except RuntimeError as error:
            yield Finding("problem", f"{name} does not compute: {error}", "another process may hold it: nvidia-smi")
            continue
        if works:
            yield Finding("ok", f"{name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free")
        else:
            yield Finding("problem", f"{name} computes wrongly", "do not use it")


def processors() -> Iterator[Finding]:
    """Report the cores that this process may use, and torch's threads on them."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    if threads > cores:
        yield Finding(
            "note", f"{cores} cores, but {threads} threads", f"OMP_NUM_THREADS={cores} makes small steps faster"
        )
    else:
        yield Finding("ok", f"{cores} cores, {threads} threads")


def memory() -> Iterator[Finding]:
    """Report the machine's memory, and the shared memory through which data workers pass batches."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    small = total < LEAST_MEMORY
    advice = "use a small batch and DATALOADER.NUM_WORKERS 0" if small else ""
    yield Finding("note" if small else "ok", f"{total / GIB:.1f} GiB of memory", advice)
    if os.path.isdir("/dev/shm"):
        shared = shutil.disk_usage("/dev/shm").free
        if shared < LEAST_SHARED:
            yield Finding(
                "note",
                f"{shared / GIB:.2f} GiB of shared memory (/dev/shm)",
                "data workers may die: enlarge it (docker run --shm-size 2g), or DATALOADER.NUM_WORKERS 0",
            )


def tiny() -> Iterator[Finding]:
    """Check the built-in weights by their SHA-256."""
    from clip.sources import TINY, TINY_SHA256  # imports torch

    if TINY.is_file() and sha256(TINY) == TINY_SHA256:
        yield Finding("ok", "weights of tiny, the built-in backbone")
    else:
        yield Finding("problem", f"weights {TINY} are missing or damaged", f"install {PACKAGE} again")


def weights() -> Iterator[Finding]:
    """Check OpenAI's weights in the cache by their SHA-256."""
    from clip.open_clip_weights import published_hashes  # imports torch

    folder, published = Path.home() / ".cache" / "clip", published_hashes()
    cached = sorted(folder.glob("*.pt"))
    for path in cached:
        if sha256(path) in published:
            yield Finding("ok", f"weights {path}, as OpenAI published them")
        else:
            yield Finding("problem", f"weights {path} are damaged, or not OpenAI's", "delete it to download it again")
    if not cached:
        yield Finding(
            "missing",
            f"no weights of OpenAI in {folder}: downloaded when first used",
            "without a network, put the file there, or give its path as --backbone",
        )


def kinds(checkout: Checkout, built_in: bool) -> dict[str, type]:
    """Return the classes of the datasets by name: those that render themselves, or those that are downloaded."""
    from dassl.data.datasets import DATASET_REGISTRY, FewShotDataset

    checkout.load("datasets")
    found = {name: DATASET_REGISTRY.get(checkout.registered_name(name)) for name in checkout.datasets()}
    return {name: kind for name, kind in found.items() if (kind.find_root is not FewShotDataset.find_root) == built_in}


def built_in(checkout: Checkout) -> Iterator[Finding]:
    """List the datasets that are built in."""
    yield Finding("ok", f"datasets that need no download: {', '.join(kinds(checkout, built_in=True))}")


def datasets(checkout: Checkout, data: Path | None) -> Iterator[Finding]:
    """Report which datasets are in the DATA folder."""
    if data is None:
        yield Finding("missing", "no data folder given", "use --data FOLDER to check the datasets in it")
    elif not data.is_dir():
        yield Finding("problem", f"the data folder {data} does not exist", "correct --data")
    else:
        there = {name: (data / kind.dataset_dir).is_dir() for name, kind in kinds(checkout, built_in=False).items()}
        found, missing = ([name for name in there if there[name] == wanted] for wanted in (True, False))
        yield Finding("ok" if found else "missing", f"datasets in {data}: {', '.join(found) or 'none'}")
        if missing:
            yield Finding("note", f"not there: {', '.join(missing)}", "dassl data prepare NAME --root FOLDER")


def disks(output: Path) -> Iterator[Finding]:
    """Check that the folders that runs write to are writable, and report their free space."""
    for purpose, folder, how in (("runs", output, "--output-dir"), ("cache", cache_dir(), "DASSL_CACHE")):
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
        probe = there / f".doctor-{os.getpid()}"
        try:
            write_atomic(probe, b"")
            probe.unlink()
        except UserError as error:
            yield Finding("problem", f"{purpose}: {error}", f"fix that, or choose another folder: {how}")
            continue
        free = shutil.disk_usage(there).free
        if free < LEAST_DISK:
            yield Finding("problem", f"{purpose}: {free / GIB:.1f} GiB free in {folder}", "free some disk space")
        else:
            yield Finding("ok", f"{purpose}: {free / GIB:.1f} GiB free in {folder}")
