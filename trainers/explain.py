"""What a trained method looks like from inside: `train.py --explain`, for `dassl report`.

Nothing here depends on the method. Attention patterns are recorded while the towers run, so the picture is that of the
code; the gradient shows what is learned, and what an answer depends on.

- `explain.json`: the scenes of both towers (`observe`), and the words nearest to learned text vectors.
- `explain.npz`: features of test images before and after (`image_features`); arrays only, nothing is pickled.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Subset, default_collate

from basics import UserError, write_atomic, write_json
from clip import CLIP, KVCache, Segment, load_clip
from clip.tokenizer import decode
from dassl.engine.checkpoints import prompts_sha256
from trainers.base import PromptTrainer
from trainers.prompted import PromptedCLIP

WORD_VECTORS = ("ctx", "text_prompt")  # the released checkpoints' names of vectors among the words
NEAREST, MAX_VECTORS = 5, 32  # words listed for a vector; vectors listed
FEATURE_CLASSES, FEATURES_A_CLASS = 10, 40  # test images whose features are kept
IMAGES, CLASSES = 2, 5  # of the recorded forward pass; the pattern does not depend on their number

EXPLAIN_FORMAT = 2  # 2: attends_to and prefilled instead of reads and remembered

Scene = list[dict]


def explain(trainer: PromptTrainer) -> None:
    """Write explain.json and explain.npz into the output folder of a trainer whose trained model is loaded.

    Raises:
        UserError: the trainer's model is not made of CLIP's towers here, so there is nothing to watch.
    """
    if not isinstance(getattr(trainer, "model", None), PromptedCLIP):
        raise UserError(f"--explain: {trainer.cfg.TRAINER.NAME} is not built on trainers/base.py; leave --explain out")
    trainer.set_model_mode("eval")
    folder = Path(trainer.output_dir)
    arrays = io.BytesIO()
    with torch.autocast(trainer.device.type, enabled=trainer.precision == "amp"):
        np.savez_compressed(arrays, allow_pickle=False, **image_features(trainer))
        scenes = observe(trainer)
    write_atomic(folder / "explain.npz", arrays.getvalue())
    found = {
        "format": EXPLAIN_FORMAT,
        "prompts_sha256": prompts_sha256(trainer._models),  # of the model that is explained
        "towers": scenes,
        "words": nearest_words(trainer.model),
    }
    write_json(found, folder / "explain.json")


# ---- attention patterns


def observe(trainer: PromptTrainer) -> dict[str, dict]:
    """The attention pattern of the method, from building it and classifying a few images.

    Returns:
        {"text" and "image": {"layers": int, "scenes": [...]}}. A scene is a set of segments that go through a tower
        together, each {name, tokens, attends_to, causal, learned, replaced, rewritten, prefilled}: `learned` says
        of each token whether it depends on what is trained, `replaced` before how many layers learned tokens take
        their place, `rewritten` lists the layers before which the method computes them, and `prefilled` marks a
        segment that runs once, before training, into a KV cache.
    """
    frozen = trainer.model.clip
    classnames = [name.replace("_", " ") for name in trainer.dm.dataset.classnames[:CLASSES]]
    images = next(iter(trainer.dm.test_loader))["img"][:IMAGES].to(trainer.device)  # never features that are kept
    with watched(frozen) as built:
        model = trainer.build_method(frozen, classnames).to(trainer.device).eval()
    fixed = getattr(model, "features", None)  # texts that were encoded while it was built
    if fixed is not None:
        fixed.requires_grad_()
    parameters = [p for p in model.parameters() if p.requires_grad]
    prefilled = built["text"].prefilled | built["image"].prefilled
    with watched(frozen, parameters, prefilled) as answered:
        logits = model(images)
    scenes = {side: recorder.scenes for side, recorder in answered.items()}
    if fixed is not None and torch.autograd.grad(logits.sum(), fixed, allow_unused=True)[0] is not None:
        scenes["text"] = built["text"].scenes + scenes["text"]
    towers = {"text": frozen.transformer, "image": getattr(frozen.visual, "transformer", None)}
    return {
        side: {"layers": len(tower.resblocks), "scenes": without_repetition(scenes[side])}
        for side, tower in towers.items()
        if tower is not None  # a ResNet has no layers of segments
    }


@contextmanager
def watched(
    clip_model: CLIP, parameters: Sequence[Tensor] = (), prefilled: dict[int, Scene] | None = None
) -> Iterator[dict[str, SceneRecorder]]:
    """Record what passes through the towers inside this context.

    Args:
        parameters: what is trained.
        prefilled: scenes recorded before, by `cache_id` of the caches that are attended to now.

    Returns:
        {"text" and "image": recorder}, filled while inside.
    """
    towers = {"text": clip_model.transformer, "image": getattr(clip_model.visual, "transformer", None)}
    recorders = {side: SceneRecorder(tower, parameters, dict(prefilled or {})) for side, tower in towers.items()}
    present = [recorder for recorder in recorders.values() if recorder.tower is not None]  # a ResNet has no segments
    for recorder in present:
        recorder.tower.trace = recorder
    try:
        yield recorders
    finally:
        for recorder in present:
            recorder.tower.trace = None


class SceneRecorder:
    """Records the segments that pass through one tower (a `clip.towers.Trace`).

    Attributes:
        scenes: one per forward pass.
        prefilled: the scenes of prefilled caches, by `cache_id`.
    """

    def __init__(self, tower, parameters: Sequence[Tensor], prefilled: dict[int, Scene]):
        self.tower, self.parameters, self.prefilled = tower, parameters, prefilled
        self.scenes: list[Scene] = []

    def on_forward(self, segments, cache, before_layer):
        scene = [describe(name, s, self.tower.causal, self.parameters) for name, s in segments.items()]
        self.scenes.append([*self.prefilled.get(cache_id(cache), []), *scene])
        if before_layer is None:
            return None

        def recording(depth: int, current: dict[str, Segment]) -> None:
            before = {name: s.tokens for name, s in current.items()}
            before_layer(depth, current)
            for described in scene:
                name = described["name"]
                if current[name].tokens is not before[name] and depth not in described["rewritten"]:
                    described["rewritten"].append(depth)

        return recording

    def on_prefill(self, segments, cache):
        scene = [describe(name, s, self.tower.causal, self.parameters) for name, s in segments.items()]
        self.prefilled[cache_id(cache)] = [described | {"prefilled": True} for described in scene]


def cache_id(cache: KVCache | None) -> int:
    """The same number for a cache and for a slice of it: where the keys of its first layer are stored."""
    return next(iter(cache.layers[0].values())).keys.untyped_storage().data_ptr() if cache else 0


def describe(name: str, segment: Segment, causal: bool, parameters: Sequence[Tensor]) -> dict:
    """A segment as it enters the first layer; see `observe`."""
    return {
        "name": name,
        "tokens": segment.tokens.shape[-2],
        "attends_to": list(segment.attends_to),
        "causal": causal and name in segment.attends_to,
        "learned": learned_tokens(segment.tokens, parameters),
        "replaced": len(segment.deep),
        "rewritten": [],
        "prefilled": False,
    }


def learned_tokens(tokens: Tensor, parameters: Sequence[Tensor]) -> list[bool]:
    """For each of the tokens (*batch, n, width) whether it depends on one of the parameters."""
    if not parameters or not tokens.requires_grad:
        return [False] * tokens.shape[-2]
    # Unequal weights: the plain sum of a layer norm's outputs depends on nothing.
    weights = torch.linspace(1, 2, tokens.shape[-1], device=tokens.device)
    learned = []
    for token in tokens.float().unbind(-2):
        gradients = torch.autograd.grad((token * weights).sum(), parameters, retain_graph=True, allow_unused=True)
        learned.append(any(g is not None and bool(g.any()) for g in gradients))
    return learned


def without_repetition(scenes: list[Scene]) -> list[Scene]:
    """The scenes, without those whose segments all occur, with the same pattern, in another one."""

    def content(scene: Scene) -> set:
        return {(s["name"], *s["attends_to"]) for s in scene}

    kept: list[Scene] = []
    for scene in sorted(scenes, key=len, reverse=True):
        if not any(content(scene) <= content(other) for other in kept):
            kept.append(scene)
    return kept[::-1]


# ---- words and features


def nearest_words(model: PromptedCLIP) -> list[dict]:
    """The words nearest to each learned text vector, by Euclidean distance to their embeddings (CoOp, section 4.2).

    Returns:
        [{"vector": name, "norm": float, "words": [[word, distance], ...]}], nearest first.
    """
    embedding = model.clip.token_embedding.weight.float()
    found = []
    for name in WORD_VECTORS:
        vectors = getattr(getattr(model, "prompt_learner", None), name, None)
        if vectors is None:
            continue
        places = list(np.ndindex(*vectors.shape[:-1]))[:MAX_VECTORS]  # (m,), or (class, m)
        vectors = vectors.detach().float().flatten(0, -2)[:MAX_VECTORS]
        distances, numbers = torch.cdist(vectors, embedding).topk(NEAREST, largest=False)
        for place, vector, near, number in zip(places, vectors, distances, numbers, strict=True):
            words = [[shown(n), round(d, 4)] for n, d in zip(number.tolist(), near.tolist(), strict=True)]
            label = " ".join([name, *(str(i + 1) for i in place)])
            found.append({"vector": label, "norm": round(float(vector.norm()), 4), "words": words})
    return found


def shown(number: int) -> str:
    """A token of the vocabulary as text; many are a part of a character alone."""
    text = decode([number])
    return f"bytes of token {number}" if "\N{REPLACEMENT CHARACTER}" in text else text


@torch.no_grad()
def image_features(trainer: PromptTrainer) -> dict[str, np.ndarray]:
    """Unit-length features of a few classes' test images.

    Returns:
        before (N, D): frozen CLIP's. after (N, D'): the method's; those of several prompts concatenated.
        label (N,), classname (N,).
    """
    test = trainer.dm.dataset.test or []
    labels = sorted({item.label for item in test})
    chosen = {labels[i] for i in np.linspace(0, len(labels) - 1, min(FEATURE_CLASSES, len(labels))).astype(int)}
    taken: Counter = Counter()
    numbers = []
    for number, item in enumerate(test):
        if item.label in chosen and taken[item.label] < FEATURES_A_CLASS:
            taken[item.label] += 1
            numbers.append(number)
    loader = trainer.dm.test_loader
    batches = DataLoader(Subset(loader.dataset, numbers), loader.batch_size, collate_fn=default_collate)
    frozen = load_clip(trainer.cfg.MODEL.BACKBONE.NAME, trainer.model.clip.dtype).to(trainer.device)  # never tuned
    before, after = [], []
    for batch in batches:
        images = batch["img"].to(trainer.device)
        before.append(F.normalize(frozen.encode_image(images).float(), dim=-1))
        after.append(trainer.model.image_features(images).flatten(1))
    return {
        "before": torch.cat(before).cpu().numpy().astype(np.float16),
        "after": torch.cat(after).float().cpu().numpy().astype(np.float16),
        "label": np.array([test[number].label for number in numbers]),
        "classname": np.array([test[number].classname for number in numbers]),
    }
