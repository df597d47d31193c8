"""A trained model as one file that runs without this package: ONNX, or a program of torch.export.

The class features are constants in it, unless the method computes them from the image (CoCoOp). The batch size is free.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from basics import UserError, write_atomic
from clip import linear
from promptlearn.classifier import PromptedClassifier
from promptlearn.model_files import Description

LARGEST_DIFFERENCE = 5e-3  # of logits, which are cosines times about 100
CHECKED_BATCHES = (1, 3)
TIMED_CALLS = 5
INPUT, OUTPUT, METADATA = "images", "logits", "config.json"


@dataclass
class Exported:
    """What an export measured.

    Attributes:
        path: the file.
        megabytes: its size.
        difference: the largest difference between its logits and the model's.
        milliseconds: (the model in torch, the exported file), each for one image, fastest of a few calls.
    """

    path: Path
    megabytes: float
    difference: float
    milliseconds: tuple[float, float]


class Inference(nn.Module):
    """The model of a classifier, with fixed class features: images (B, 3, H, W) -> logits (B, C)."""

    text: Tensor | None

    def __init__(self, classifier: PromptedClassifier):
        super().__init__()
        self.model = classifier.model
        self.register_buffer("text", None if self.model.text_depends_on_image else self.model.text_features().clone())

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images, self.text).float()


@torch.no_grad()
def export(classifier: PromptedClassifier, path: Path) -> Exported:
    """Write a classifier to a file, and check that file against it.

    Args:
        classifier: on the CPU, in float32.
        path: ends with .onnx, or with .pt2 for torch.export.

    Raises:
        UserError: another ending, or the file's logits differ from the model's by more than LARGEST_DIFFERENCE.
    """
    if path.suffix not in EXPORTERS:
        raise UserError(
            f"{path}: expected a file name with {' or '.join(EXPORTERS)}, got {path.suffix or 'no ending'}."
        )
    linear.use("torch")  # public operators only
    model = Inference(classifier).eval()
    size = classifier.image_size
    images = torch.randn(max(CHECKED_BATCHES), 3, *size, generator=torch.Generator().manual_seed(0))
    with text_tower_removed(classifier) if not classifier.model.text_depends_on_image else nullcontext():
        program = torch.export.export(model, (images,), dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}})
    path.parent.mkdir(parents=True, exist_ok=True)
    run = EXPORTERS[path.suffix](program, path, metadata(classifier))
    difference = max(float((model(images[:n]) - torch.as_tensor(run(images[:n]))).abs().max()) for n in CHECKED_BATCHES)
    if difference > LARGEST_DIFFERENCE:
        path.unlink()
        raise UserError(
            f"{path}: expected logits within {LARGEST_DIFFERENCE} of the model's, got {difference:.2g}. Nothing was "
            "exported."
        )
    milliseconds = fastest(lambda: model(images[:1])), fastest(lambda: run(images[:1]))
    return Exported(path, path.stat().st_size / 1e6, difference, milliseconds)


@contextmanager
def text_tower_removed(classifier: PromptedClassifier) -> Iterator[None]:
    """Leave out the text tower, which a model with constant class features does not need in its file."""
    clip_model = classifier.model.clip
    removed = {name: clip_model.get_submodule(name) for name in ("transformer", "token_embedding")}
    for name in removed:
        setattr(clip_model, name, nn.Identity())
    try:
        yield
    finally:
        for name, module in removed.items():
            setattr(clip_model, name, module)


def metadata(classifier: PromptedClassifier) -> dict[str, str]:
    """Return what a program needs to use the file, as strings: class names, and how a picture becomes an input."""
    described: Description = classifier.description
    settings: dict[str, Any] = described.settings
    normalized = "normalize" in settings["INPUT.TRANSFORMS"]
    preprocessing = {
        "resize_shorter_side": max(classifier.image_size),
        "center_crop": list(classifier.image_size),
        "interpolation": settings["INPUT.INTERPOLATION"],
        "mean": settings["INPUT.PIXEL_MEAN"] if normalized else [0, 0, 0],
        "std": settings["INPUT.PIXEL_STD"] if normalized else [1, 1, 1],
    }
    return {
        "method": described.method,
        "classnames": json.dumps(classifier.classnames, ensure_ascii=False),
        "preprocessing": json.dumps(preprocessing),
        "temperature": str(classifier.temperature),
    }


def to_onnx(program: torch.export.ExportedProgram, path: Path, meta: dict[str, str]) -> Callable[[Tensor], np.ndarray]:
    """Write an ONNX file, and return what runs it in onnxruntime."""
    import onnx  # extra "export"
    import onnxruntime

    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # a line per layer about what it does not simplify
    onnx_program = torch.onnx.export(
        program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False, external_data=False
    )
    assert onnx_program is not None
    model = onnx_program.model_proto
    onnx.helper.set_model_props(model, meta)
    write_atomic(path, model.SerializeToString())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: session.run([OUTPUT], {INPUT: images.numpy()})[0]


def to_program(program: torch.export.ExportedProgram, path: Path, meta: dict[str, str]) -> Callable[[Tensor], Tensor]:
    """Write a program of torch.export, and return what runs it."""
    torch.export.save(program, str(path), extra_files={METADATA: json.dumps(meta)})
    loaded = torch.export.load(str(path)).module()
    return lambda images: loaded(images)


EXPORTERS = {".onnx": to_onnx, ".pt2": to_program}


def fastest(call: Callable[[], object]) -> float:
    """Return the least time of a few calls, in milliseconds."""
    times = []
    for _ in range(TIMED_CALLS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)
