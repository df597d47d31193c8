"""Explanations of a trained model for `dassl report`, written by `train.py --explain`.

Nothing here depends on the method. Attention patterns are recorded while the towers run, so they are those of the code;
gradients show which tokens are learned.

- `explain.json`: the attention patterns of both towers (`observe`), and the words nearest to learned text vectors.
- `explain.npz`: features of test images before and after training (`image_features`), and where the tokens of the image
  tower look (`trainers.attention_maps`); plain arrays, no pickle.
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
from trainers.attention_maps import attention_maps
from trainers.base import PromptTrainer
from trainers.prompted import PromptedCLIP

WORD_VECTORS = ("ctx", "text_prompt")  # names of text vectors in released checkpoints
NEAREST, MAX_VECTORS = 5, 32  # words per vector, and vectors, that are listed
FEATURE_CLASSES, FEATURES_PER_CLASS = 10, 40  # test images whose features are written
IMAGES, CLASSES = 2, 5  # of the recorded forward pass; the pattern does not depend on their number

EXPLAIN_FORMAT = 2  # of explain.json; format 1 had other keys for attends_to and prefilled

Scene = list[dict]


def explain(trainer: PromptTrainer) -> None:
    """Write explain.json and explain.npz into the output folder of a trainer whose trained model is loaded.

    Raises:
        UserError: the trainer is not built on trainers/base.py, so its towers cannot be observed.
    """
    if not isinstance(getattr(trainer, "model", None), PromptedCLIP):
        raise UserError(
            f"--explain: expected a method built on trainers/base.py, got {trainer.cfg.TRAINER.NAME}. Omit --explain."
        )
    if trainer.dm.test_loader is None:
        raise UserError(f"--explain: expected test images in {trainer.cfg.DATASET.NAME}, got none. Omit --explain.")
    trainer.set_model_mode("eval")
    folder = Path(trainer.output_dir)
    arrays = io.BytesIO()
    with torch.autocast(trainer.device.type, enabled=trainer.precision == "amp"):
        np.savez_compressed(arrays, allow_pickle=False, **image_features(trainer), **attention_maps(trainer))
        scenes = observe(trainer)
    write_atomic(folder / "explain.npz", arrays.getvalue())
    explanation = {
        "format": EXPLAIN_FORMAT,
        "prompts_sha256": prompts_sha256(trainer._models),  # of the model that is explained
        "towers": scenes,
        "words": nearest_words(trainer.model),
    }
    write_json(explanation, folder / "explain.json")


# ---- attention patterns


def observe(trainer: PromptTrainer) -> dict[str, dict]:
    """Record the attention pattern of the method while it is built and classifies a few images.

    Returns:
        {"text" and "image": {"layers": int, "scenes": [...]}}. A scene is a list of segments that pass through a tower
        together, each {name, tokens, attends_to, causal, learned, first_layer, replaced, rewritten, prefilled}.
        `learned` holds for each token whether it depends on trained parameters, `first_layer` the layer before which
        the segment joins, `replaced` the number of layers before which learned tokens replace it, `rewritten` the
        layers before which the method computes it, and `prefilled` whether it runs once, before training, into a KV
        cache.
    """
    frozen = trainer.model.clip
    classnames = [name.replace("_", " ") for name in trainer.dm.dataset.classnames[:CLASSES]]
    images = next(iter(trainer.dm.test_loader))["img"][:IMAGES].to(trainer.device)  # images, not cached features
    with recording(frozen) as built:
        model = trainer.build_method(frozen, classnames).to(trainer.device).eval()
    fixed = getattr(model, "features", None)  # of texts that were encoded while the model was built
    if fixed is not None:
        fixed.requires_grad_()
    parameters = [p for p in model.parameters() if p.requires_grad]
    prefilled = built["text"].prefilled | built["image"].prefilled
    with recording(frozen, parameters, prefilled) as classified:
        logits = model(images)
    scenes = {side: recorder.scenes for side, recorder in classified.items()}
    if fixed is not None and torch.autograd.grad(logits.sum(), fixed, allow_unused=True)[0] is not None:
        scenes["text"] = built["text"].scenes + scenes["text"]
    towers = {"text": frozen.transformer, "image": getattr(frozen.visual, "transformer", None)}
    return {
        side: {"layers": len(tower.resblocks), "scenes": without_repetition(scenes[side])}
        for side, tower in towers.items()
        if tower is not None  # a ResNet has no layers of segments
    }


@contextmanager
def recording(
    clip_model: CLIP, parameters: Sequence[Tensor] = (), prefilled: dict[int, Scene] | None = None
) -> Iterator[dict[str, SceneRecorder]]:
    """Record the segments that pass through the towers inside this context.

    Args:
        parameters: the trained parameters.
        prefilled: scenes of KV caches that were prefilled earlier, by `cache_id`.

    Returns:
        {"text" and "image": recorder}.
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
        scenes: one scene per forward pass.
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

        def observed(depth: int, current: dict[str, Segment]) -> None:
            before = {name: s.tokens for name, s in current.items()}
            before_layer(depth, current)
            for described in scene:
                name = described["name"]
                if name in current and current[name].tokens is not before[name] and depth not in described["rewritten"]:
                    described["rewritten"].append(depth)

        return observed

    def on_prefill(self, segments, cache):
        scene = [describe(name, s, self.tower.causal, self.parameters) for name, s in segments.items()]
        self.prefilled[cache_id(cache)] = [described | {"prefilled": True} for described in scene]


def cache_id(cache: KVCache | None) -> int:
    """Identify a cache and its slices by the memory address of the keys of its first layer."""
    return next(iter(cache.layers[0].values())).keys.untyped_storage().data_ptr() if cache else 0


def describe(name: str, segment: Segment, causal: bool, parameters: Sequence[Tensor]) -> dict:
    """Describe a segment as it enters the first layer; see `observe`."""
    return {
        "name": name,
        "tokens": segment.tokens.shape[-2],
        "attends_to": list(segment.attends_to),
        "causal": causal and name in segment.attends_to,
        "learned": learned_tokens(segment.tokens, parameters),
        "first_layer": segment.first_layer,
        "replaced": len(segment.deep),
        "rewritten": [],
        "prefilled": False,
    }


def learned_tokens(tokens: Tensor, parameters: Sequence[Tensor]) -> list[bool]:
    """Determine for each token of (*batch, n, width) whether it depends on one of the parameters."""
    if not parameters or not tokens.requires_grad:
        return [False] * tokens.shape[-2]
    # Unequal weights, because the plain sum of a layer norm's outputs is constant.
    weights = torch.linspace(1, 2, tokens.shape[-1], device=tokens.device)
    learned = []
    for token in tokens.float().unbind(-2):
        gradients = torch.autograd.grad((token * weights).sum(), parameters, retain_graph=True, allow_unused=True)
        learned.append(any(g is not None and bool(g.any()) for g in gradients))
    return learned


def without_repetition(scenes: list[Scene]) -> list[Scene]:
    """Drop each scene whose segments all occur, with the same pattern, in another one."""

    def content(scene: Scene) -> set:
        return {(s["name"], *s["attends_to"]) for s in scene}

    kept: list[Scene] = []
    for scene in sorted(scenes, key=len, reverse=True):
        if not any(content(scene) <= content(other) for other in kept):
            kept.append(scene)
    return kept[::-1]


# ---- words and features


def nearest_words(model: PromptedCLIP) -> list[dict]:
    """List the words nearest to each learned text vector, by Euclidean distance of embeddings (CoOp, section 4.2).

    Returns:
        [{"vector": name, "norm": float, "words": [[word, distance], ...]}], nearest first.
    """
    embedding = model.clip.token_embedding.weight.float()
    nearest = []
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
            nearest.append({"vector": label, "norm": round(float(vector.norm()), 4), "words": words})
    return nearest


def shown(number: int) -> str:
    """Return a token of the vocabulary as text; some tokens are only part of a character."""
    text = decode([number])
    return f"bytes of token {number}" if "\N{REPLACEMENT CHARACTER}" in text else text


@torch.no_grad()
def image_features(trainer: PromptTrainer) -> dict[str, np.ndarray]:
    """Compute unit-length features of test images of a few classes.

    Returns:
        before (N, D): of frozen CLIP. after (N, D'): of the method; those of several prompts are concatenated.
        label (N,), classname (N,).
    """
    test = trainer.dm.dataset.test or []
    labels = sorted({item.label for item in test})
    chosen = {labels[i] for i in np.linspace(0, len(labels) - 1, min(FEATURE_CLASSES, len(labels))).astype(int)}
    counts: Counter = Counter()
    numbers = []
    for number, item in enumerate(test):
        if item.label in chosen and counts[item.label] < FEATURES_PER_CLASS:
            counts[item.label] += 1
            numbers.append(number)
    loader = trainer.dm.test_loader
    batches = DataLoader(Subset(loader.dataset, numbers), loader.batch_size, collate_fn=default_collate)
    # A fresh backbone, because VPT can fine-tune that of the model.
    frozen = load_clip(trainer.cfg.MODEL.BACKBONE.NAME, trainer.model.clip.dtype).to(trainer.device)
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
