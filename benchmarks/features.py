"""A training step on kept image features against one that runs the image tower: `python benchmarks/features.py`.

LP, CoOp and CoCoOp read frozen features (the loader delivers them, DATALOADER.FEATURES_GIB); RPO reads what a fixed
pool of views writes (INPUT.VIEWS). Both steps are ours, take turns on the same images and differ in nothing else; time
to read and decode images, which kept features save as well, is not counted (`loading.py` measures it). Sizes are those
of ViT-B/16, weights are random, precision is float32. A row whose losses differ is marked WRONG and fails.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as train.py

import torch
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measure import TOLERANCE, counted, step  # noqa: E402
from benchmarks.methods import classnames, cross_entropy, options, reference_clip, reference_images  # noqa: E402
from trainers import cocoop, coop, lp, rpo  # noqa: E402
from trainers.prompted import PromptedCLIP  # noqa: E402

# Method, prompts or context vectors, and batch: those of the released configurations (LP: as CoOp).
ROWS = (("LP", 0, 32), ("CoOp", 16, 32), ("CoCoOp", 4, 1), ("RPO", 4, 4), ("RPO", 24, 4))


def build(method: str, prompts: int, classes: int, layers: int) -> tuple[PromptedCLIP, Callable]:
    """A method on a random CLIP, and what is kept of images (B, 3, H, W)."""
    torch.manual_seed(0)
    model, names = reference_clip(layers), classnames(classes)
    texts = [f"a photo of a {name}." for name in names]
    if method == "RPO":
        fast = rpo.RPOCLIP(model, texts, options(rpo, K=prompts))
        return fast, fast.image_memory
    if method == "LP":
        fast = lp.LPCLIP(model, texts)
    elif method == "CoOp":
        fast = coop.CoOpCLIP(model, names, options(coop, N_CTX=prompts))
    else:
        fast = cocoop.CoCoOpCLIP(model, names, options(cocoop, N_CTX=prompts))
    return fast, lambda images: PromptedCLIP.image_features(fast, images)


def measure(method: str, prompts: int, batch: int, args: argparse.Namespace) -> dict:
    """One row: both steps in turn, from the same prompts."""
    fast, keep = build(method, prompts, args.classes, args.layers)
    images, labels = reference_images(batch), torch.arange(batch) % args.classes
    with torch.no_grad():
        given = {"tower": images, "kept": keep(images)}
    start = {k: v.clone() for k, v in fast.prompt_learner.state_dict().items()}
    loss = cross_entropy(fast)
    losses, seconds = {}, {"tower": [], "kept": []}
    for _ in range(args.rounds + 1):  # the first round warms up
        for path, inputs in given.items():
            fast.prompt_learner.load_state_dict(start)
            began = time.perf_counter()
            losses[path] = step(partial(loss, inputs, labels), fast.prompt_learner).item()
            seconds[path].append(time.perf_counter() - began)
    work = {path: counted(partial(loss, inputs, labels)) for path, inputs in given.items()}
    times = {path: statistics.median(s[1:]) for path, s in seconds.items()}
    difference = abs(losses["tower"] - losses["kept"]) / abs(losses["tower"])
    return {
        "method": method,
        "prompts": prompts,
        "classes": args.classes,
        "batch": batch,
        "tower s": times["tower"],
        "kept s": times["kept"],
        "time ratio": times["tower"] / times["kept"],
        "work ratio": work["tower"] / work["kept"],
        "kept KiB an image": given["kept"].nbytes / batch / 2**10,
        "loss difference": difference,
        "numbers": "equal" if difference <= TOLERANCE else "WRONG",
    }


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--classes", type=int, default=50)
    p.add_argument("--layers", type=int, default=12, help="layers of each tower (ViT-B/16 has 12)")
    p.add_argument("--rounds", type=int, default=5, help="steps timed each way; the median counts")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--json", action="store_true", help="print the rows as JSON")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    rows = [measure(*row, args) for row in ROWS]
    print(json.dumps(rows) if args.json else tabulate(rows, headers="keys", tablefmt="github", floatfmt=".3g"))
    return 0 if all(row["numbers"] == "equal" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
