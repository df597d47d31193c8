"""A training step on cached image features, next to one that runs the image tower: `python benchmarks/features.py`.

LP, CoOp, and CoCoOp use frozen features from the loader (DATALOADER.FEATURES_GIB); RPO uses the keys and values of a
fixed pool of views (INPUT.VIEWS). Both steps are ours; the plain path (`run.py`) runs next to them, except for LP. All
take turns on the same images. Reading and decoding images, which cached features save as well, is not timed
(`loading.py` times it). Sizes are those of ViT-B/16, weights are random, and precision is float32. A row whose losses
differ is marked WRONG, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as train.py

import torch
import torch.nn.functional as F
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import methods  # noqa: E402
from benchmarks.measure import TOLERANCE, counted, line, median_seconds, step, use_run_settings  # noqa: E402
from benchmarks.methods import Case, Loss, classnames, cross_entropy, frozen_clip, options, reference_images  # noqa: E402
from clip import CLIP  # noqa: E402
from promptlearn.cli.common import integer_from  # noqa: E402
from trainers import clip_adapter, lp, taskres, tip_adapter  # noqa: E402
from trainers.prompted import PromptedCLIP  # noqa: E402

# Method, prompts or context vectors, and batch, as in the released configs (LP: as CoOp); and CoCoOp with CoOp's batch.
ROWS = (("CoOp", 16, 32), ("CoCoOp", 4, 32), ("CoCoOp", 4, 1), ("RPO", 4, 4), ("RPO", 24, 4), ("LP", 0, 32))
ROWS += (("CLIPAdapter", 0, 32), ("TaskRes", 0, 32), ("TipAdapterF", 0, 32))
NOT_NORMALIZED = ("CLIPAdapter",)  # cached features
KEYS = 16  # of each class in TipAdapterF's cache
# Two smaller batches for a plain path that does not fit; its time is extrapolated linearly.
PLAIN_AT = {("CoCoOp", 32): (1, 2)}


def build_tip_adapter(clip_model: CLIP, texts: list[str]) -> PromptedCLIP:
    """Build a Tip-Adapter whose keys are random directions."""
    model = tip_adapter.TipAdapterCLIP(clip_model, texts, KEYS * len(texts), options(tip_adapter), is_trained=True)
    torch.nn.init.normal_(model.prompt_learner.keys)
    model.prompt_learner.keys.data = F.normalize(model.prompt_learner.keys.data, dim=-1)
    model.prompt_learner.labels.copy_(torch.arange(len(texts)).repeat_interleave(KEYS))
    return model


# Methods on frozen features of images and texts. As released, their step runs the image tower, as in column "tower s".
FEATURE_METHODS: dict[str, Callable[[CLIP, list[str]], PromptedCLIP]] = {
    "LP": lp.LPCLIP,
    "CLIPAdapter": lambda clip_model, texts: clip_adapter.AdapterCLIP(clip_model, texts, options(clip_adapter)),
    "TaskRes": lambda clip_model, texts: taskres.TaskResCLIP(clip_model, texts, options(taskres)),
    "TipAdapterF": build_tip_adapter,
}


def build(method: str, prompts: int, batch: int, args: argparse.Namespace) -> tuple[PromptedCLIP, Loss | None]:
    """Build a method on a random CLIP, and the plain path's loss if there is one."""
    if method in FEATURE_METHODS:
        texts = [f"a photo of a {name}." for name in classnames(args.classes)]
        return FEATURE_METHODS[method](frozen_clip(args.layers, "cpu", torch.float32), texts), None
    paths = methods.build(Case(method, prompts, args.classes, batch, args.layers))
    return paths.model, paths.losses["plain"]


def measure(method: str, prompts: int, batch: int, args: argparse.Namespace) -> dict:
    """Measure one row: all steps take turns, from the same prompts."""
    use_run_settings(Case(method, prompts, args.classes, batch, args.layers), args.threads)
    model, plain_loss = build(method, prompts, batch, args)
    images, labels = reference_images(batch), torch.arange(batch) % args.classes
    with torch.no_grad():
        cached = model.image_memory(images) if method == "RPO" else model.tower_features(images)
        if method not in NOT_NORMALIZED and method != "RPO":
            cached = F.normalize(cached, dim=-1)
    loss, learner, losses = cross_entropy(model), model.prompt_learner, {}
    start = {k: v.clone() for k, v in learner.state_dict().items()}

    def one_step(key: object, compute: Callable[[], torch.Tensor]) -> None:
        learner.load_state_dict(start)
        losses[key] = step(compute, learner).item()

    computed = {"tower": partial(loss, images, labels), "cached": partial(loss, cached, labels)}
    batches = PLAIN_AT.get((method, batch), (batch,)) if plain_loss else ()
    computed |= {n: partial(plain_loss, images[:n], labels[:n]) for n in batches}
    calls = {key: partial(one_step, key, compute) for key, compute in computed.items()}
    times = median_seconds("cpu", calls, args.rounds)
    row = {"method": method, "prompts": prompts, "classes": args.classes, "batch": batch}
    differences = [abs(losses["tower"] - losses["cached"]) / abs(losses["tower"])]
    if batches:
        row["plain s"] = times[batch] if batch in times else line(batches, [times[n] for n in batches], batch)
        largest = batches[-1]
        learner.load_state_dict(start)
        ours = loss(cached[:largest], labels[:largest]).item()
        differences.append(abs(losses[largest] - ours) / abs(losses[largest]))
    row |= {"tower s": times["tower"], "cached s": times["cached"]}
    row["time ratio"] = times["tower"] / times["cached"]
    if batches:
        row["of the plain path"] = row["plain s"] / times["cached"]
    return {
        **row,
        "work ratio": counted(computed["tower"]) / counted(computed["cached"]),
        "KiB per image": cached.nbytes / batch / 2**10,
        "loss difference": max(differences),
        "numbers": "equal" if max(differences) <= TOLERANCE else "WRONG",
    }


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--classes", type=integer_from(1), default=50)
    p.add_argument("--layers", type=integer_from(1), default=12, help="layers of each tower (ViT-B/16 has 12)")
    p.add_argument("--rounds", type=integer_from(1), default=5, help="timed steps, of which the median counts")
    p.add_argument("--threads", type=integer_from(1), default=2)
    p.add_argument("--json", action="store_true", help="print the rows as JSON")
    args = p.parse_args()
    rows = [measure(*row, args) for row in ROWS]
    print(json.dumps(rows) if args.json else tabulate(rows, headers="keys", tablefmt="github", floatfmt=".3g"))
    return 0 if all(row["numbers"] == "equal" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
