"""A trained model as a classifier of pictures: predict, change the classes, save, load.

clf = PromptedClassifier.from_pretrained("output/first")
clf.predict("photos/", top_k=5)
clf.classnames = ["red fox", "gray wolf"]
clf.save_pretrained("model")
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from basics import NotApplicable, UserError, write_atomic
from clip import CLIP, tokenize
from clip.weights import copy_backbone
from dassl.config import get_cfg_default
from dassl.data.transforms import build_transform
from dassl.engine.checkpoints import (
    class_dependent,
    find_checkpoint,
    load_model_file,
    load_trained,
    locate_model,
    prompts_sha256,
    trained_tensors,
)
from dassl.metrics.rejection import RULES
from dassl.utils import in_threads, read_image
from promptlearn import hub, model_files
from promptlearn.experiments.checkout import Checkout
from promptlearn.model_files import Calibration, Description
from promptlearn.pictures import Picture, Source, array_image, expand

if TYPE_CHECKING:
    from trainers.attention_maps import TokenMaps


@dataclass(frozen=True)
class Predictions:
    """A model's predictions for N pictures.

    Attributes:
        classnames: the k most probable classes of each picture, most probable first.
        probabilities: theirs, (N, k), on the CPU.
        logits: of all C classes, (N, C), on the CPU, before the temperature.
        paths: of the pictures, where they are files; else "".
        scores: (N,), higher for pictures of a known class; None if the model has no rejection threshold.
        rejected: (N,) bool, whether the score is below the threshold: the picture shows none of the classes.
    """

    classnames: list[list[str]]
    probabilities: Tensor
    logits: Tensor
    paths: list[str]
    scores: Tensor | None = None
    rejected: Tensor | None = None

    def __len__(self) -> int:
        return len(self.classnames)

    @property
    def top(self) -> list[str]:
        """The most probable class of each picture."""
        return [names[0] for names in self.classnames]


class PromptedClassifier:
    """A trained method on its frozen backbone. Create it with `from_pretrained`.

    Attributes:
        model: the method (`trainers.prompted.PromptedCLIP`).
        transform: PIL image -> tensor (3, H, W), as in the evaluation of the training.
        device: where it computes.
    """

    def __init__(
        self,
        description: Description,
        load: Callable[[nn.Module], object],
        device: str | torch.device | None = None,
        backbone: str | Path | None = None,
    ):
        Checkout().load("trainers")  # registers the methods
        from trainers import extend_cfg, inference

        self.description, self._inference = description, inference
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        overrides: dict[str, Any] = {"MODEL.BACKBONE.NAME": str(backbone)} if backbone else {}
        precision = next((key for key in description.settings if key.endswith(".PREC")), None)
        if precision and self.device.type == "cpu" and description.settings[precision] in ("fp16", "amp"):
            overrides[precision] = "fp32"  # on a CPU, half precision is slow and less exact
        cfg = get_cfg_default()
        extend_cfg(cfg)
        self._trainer = inference.build_trainer_for_inference(cfg, msgspec.to_builtins(description), overrides)
        clip_model = inference.load_described_backbone(self._trainer, description.weights_sha256, self.device)
        self.transform: Callable[[Image.Image], Tensor] = build_transform(self._trainer.cfg, is_train=False)
        self._build(clip_model, description.classnames, load)

    def _build(self, clip_model: CLIP, classnames: list[str], load: Callable[[nn.Module], object]) -> None:
        """Build the method for these classes; `load` fills its prompt learner."""
        self.model = self._inference.build_described_method(self._trainer, clip_model, classnames)
        if self._learner is not None:
            load(self._learner)
        self._classnames = list(classnames)
        self._text: Tensor | None = None

    @property
    def _learner(self) -> nn.Module | None:
        """What is trained; None for a method that trains nothing."""
        return getattr(self.model, "prompt_learner", None)

    def _tensors(self) -> dict[str, Tensor]:
        """Return the trained tensors, without those that belong to the class names."""
        if self._learner is None:
            return {}
        left_out = class_dependent(self._learner)
        return {name: tensor for name, tensor in trained_tensors(self._learner).items() if not left_out(name)}

    # ---- loading and saving

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        device: str | torch.device | None = None,
        backbone: str | Path | None = None,
        epoch: int | None = None,
        revision: str | None = None,
        token: str | None = None,
    ) -> PromptedClassifier:
        """Load a model.

        Args:
            name_or_path: the folder of a saved model or of a run, a checkpoint in it, or owner/name of one on the Hub.
            device: "cpu", "cuda", ...; None for the GPU if there is one.
            backbone: name or weights file of the backbone, if it is not found under the name it was trained with.
            epoch: of a run's checkpoint, from 1; None for the best one saved, or else the last.
            revision, token: of the Hub: a branch, tag, or commit; and a token for a private model.

        Raises:
            UserError: the folder holds no model, a file is damaged, or the backbone is another one.
        """
        if hub.is_hub_name(name_or_path):
            name_or_path = hub.download(str(name_or_path), revision, token)
        folder = model_files.locate(name_or_path)
        if model_files.is_run(folder):
            description = model_files.read_description(folder / model_files.RUN_CONFIG)
            results = folder / "results.json"
            if results.is_file():
                description.trained = summary(model_files.read_results(results, description))

            def load(learner: nn.Module) -> object:
                run, at = locate_model(name_or_path, [description.checkpoint], epoch)
                return load_model_file(learner, find_checkpoint(run, description.checkpoint, at))

            return cls(description, load, device, backbone)
        description = model_files.read_description(folder / model_files.CONFIG)
        tensors = model_files.read_tensors(folder / model_files.TENSORS)
        return cls(description, loader(tensors, folder), device, backbone or model_files.backbone_file(folder))

    def save_pretrained(self, folder: str | Path, *, include_backbone: bool = False) -> None:
        """Write config.json, model.safetensors, and a model card (README.md) into a folder, for the present classes.

        Args:
            include_backbone: also copy the files of the backbone, so that the folder needs nothing else.

        Raises:
            UserError: the folder cannot be written, or the backbone is not found.
        """
        folder = Path(folder)
        calibration = self.calibration if self.description.calibration else None
        description = msgspec.structs.replace(self.description, classnames=self.classnames, calibration=calibration)
        model_files.write_model(folder, description, self._tensors())
        write_atomic(folder / hub.CARD, hub.model_card(description).encode())
        if include_backbone:
            copy_backbone(self._trainer.cfg.MODEL.BACKBONE.NAME, folder, model_files.BACKBONE)

    def push_to_hub(
        self,
        name: str,
        *,
        private: bool = False,
        token: str | None = None,
        include_backbone: bool = False,
        commit_message: str = "Upload model",
    ) -> str:
        """Upload what `save_pretrained` writes to the Hub as owner/name, and return the address.

        Raises:
            UserError: no permission, or no network.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, include_backbone=include_backbone)
            return hub.upload(Path(folder), name, private, token, commit_message)

    # ---- classes

    @property
    def classnames(self) -> list[str]:
        """The classes that pictures are assigned to. Assign others to classify by them at once."""
        return list(self._classnames)

    @classnames.setter
    def classnames(self, names: Sequence[str]) -> None:
        names = list(names) if not isinstance(names, str) else names
        model_files.check_classnames(names, "classnames")
        if names == self._classnames:
            return
        if self.model.per_class_parameters:
            raise NotApplicable(
                f"classnames: expected the classes that the model was trained on, got others. "
                f"{self.description.method} has trained parameters for each of them and cannot name other classes."
            )
        self._build(self.model.clip, names, loader(self._tensors(), "the model"))

    # ---- computation

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Compute logits (B, C) of transformed images (B, 3, H, W), in float32 on the CPU."""
        return self.model(images.to(self.device), self._text_features()).float().cpu()

    def _text_features(self) -> Tensor:
        """Compute the method's text features once for all pictures."""
        if self._text is None:
            self._text = self.model.text_features()
        return self._text

    def predict(
        self, images: Source, *, top_k: int = 1, batch_size: int = 32, reject: str = "max_softmax"
    ) -> Predictions:
        """Classify pictures.

        Args:
            images: one or many of: a path, a folder (all pictures below it, sorted), a PIL image, an array or uint8
                tensor (H, W, 3) with values 0 to 255, a float tensor (3, H, W) from `transform`.
            top_k: number of classes that are named for each picture.
            batch_size: pictures at a time.
            reject: the rule for pictures of other classes, "max_softmax" or "energy"; used if the model has thresholds.

        Raises:
            UserError: a file is not a picture, or a folder contains none.
        """
        if top_k < 1 or batch_size < 1:
            raise UserError(f"top_k, batch_size: expected at least 1, got {top_k} and {batch_size}.")
        pictures = list(expand(images))
        parts = [self.logits(batch) for batch in self._batches(pictures, batch_size)]
        logits = torch.cat(parts) if parts else torch.empty(0, len(self._classnames))
        return self._predictions(logits, pictures, top_k, reject)

    def stream(
        self,
        files: Sequence[str],
        unreadable: dict[str, str],
        *,
        top_k: int = 1,
        batch_size: int = 32,
        reject: str = "max_softmax",
    ) -> Iterator[Predictions]:
        """Classify picture files batch by batch; what cannot be read is added to `unreadable`, {path: reason}."""

        def read(path: str) -> Tensor | None:
            try:
                return self._transformed(path)
            except UserError as error:
                unreadable[path] = str(error)
                return None

        for first in range(0, len(files), batch_size):
            paths = files[first : first + batch_size]
            pairs = [(path, x) for path, x in zip(paths, in_threads(read, paths), strict=True) if x is not None]
            if pairs:
                logits = self.logits(torch.stack([x for _, x in pairs]))
                yield self._predictions(logits, [path for path, _ in pairs], top_k, reject)

    def _predictions(self, logits: Tensor, pictures: Sequence[Picture], top_k: int, reject: str) -> Predictions:
        probabilities, numbers = self.probabilities(logits).topk(min(top_k, logits.shape[1]), dim=-1)
        names = [[self._classnames[i] for i in row] for row in numbers.tolist()]
        paths = [str(picture) if isinstance(picture, str | Path) else "" for picture in pictures]
        return Predictions(names, probabilities, logits, paths, *self._rejection(logits, reject))

    def _rejection(self, logits: Tensor, rule: str) -> tuple[Tensor | None, Tensor | None]:
        """Return the scores of logits (N, C) and whether each is below the threshold, as in `Predictions`."""
        if rule not in RULES:
            raise UserError(f"reject: expected one of {', '.join(RULES)}, got {rule!r}.")
        threshold = self.calibration.thresholds.get(rule)
        if threshold is None:
            return None, None
        scores = RULES[rule](logits.double(), self.temperature)
        return scores, scores < threshold

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of transformed images, in pixels."""
        return tuple(self._trainer.cfg.INPUT.SIZE)

    @property
    def calibration(self) -> Calibration:
        """What was fitted on validation images. Thresholds hold for the classes of the training only."""
        fitted = self.description.calibration or Calibration()
        if self._classnames == self.description.classnames:
            return fitted
        return Calibration(fitted.temperature)

    @property
    def temperature(self) -> float:
        """What logits are divided by before the softmax; 1 unless one was fitted."""
        return self.calibration.temperature

    def probabilities(self, logits: Tensor) -> Tensor:
        """Compute the softmax of logits (N, C) at the temperature."""
        return F.softmax(logits / self.temperature, dim=-1)

    @torch.no_grad()
    def attention(self, images: Source) -> TokenMaps | None:
        """Record where CLS and a few prompts attend to; None without an image transformer. `images` as in `predict`."""
        from trainers.attention_maps import token_maps

        batch = torch.stack(list(in_threads(self._transformed, list(expand(images)))))
        return token_maps(self.model, batch.to(self.device), self._text_features())

    @torch.no_grad()
    def encode_image(self, images: Source, *, batch_size: int = 32) -> Tensor:
        """Encode images as unit-length features: (N, D), or (N, K, D) for K prompts; `images` as in `predict`."""
        pictures = list(expand(images))
        parts = [
            self.model.image_features(b.to(self.device)).float().cpu() for b in self._batches(pictures, batch_size)
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def encode_text(self, texts: str | Sequence[str] | None = None) -> Tensor:
        """Encode texts as unit-length features: the classes as the method does, other texts by frozen CLIP."""
        if texts is None:
            return self.model.text_features().float().cpu()
        tokens = tokenize([texts] if isinstance(texts, str) else list(texts), self.model.clip.context_length)
        return F.normalize(self.model.clip.encode_text(tokens.to(self.device)).float(), dim=-1).cpu()

    @property
    def prompts_sha256(self) -> str:
        """The digest of the trained tensors, as in results.json."""
        return prompts_sha256({} if self._learner is None else {self.description.checkpoint: self._learner})

    def _batches(self, pictures: Sequence[Picture], size: int) -> Iterator[Tensor]:
        """Yield transformed pictures in batches, decoded by one thread per core."""
        for first in range(0, len(pictures), size):
            yield torch.stack(list(in_threads(self._transformed, pictures[first : first + size])))

    def _transformed(self, picture: Picture) -> Tensor:
        """Transform one picture for the model: (3, H, W)."""
        if isinstance(picture, Tensor) and picture.is_floating_point():
            expected = (3, *self.image_size)
            if picture.shape != expected:
                raise UserError(
                    f"images: expected float tensors {expected} from `transform`, got {tuple(picture.shape)}."
                )
            return picture
        if isinstance(picture, str | Path):
            return self.transform(read_image(picture, self._trainer.cfg.INPUT.MAX_MEGAPIXELS))
        if isinstance(picture, Image.Image):
            return self.transform(picture.convert("RGB"))
        return self.transform(array_image(np.asarray(picture)))


def loader(tensors: dict[str, Tensor], source: str | Path) -> Callable[[nn.Module], object]:
    """Return a function that copies trained tensors into a prompt learner. `source`: their origin, for messages."""
    return lambda learner: load_trained(learner, tensors, source, ignored=class_dependent(learner))


def summary(results: dict[str, Any]) -> dict[str, Any]:
    """Return what a saved model keeps of its run's results.json."""
    kept = "dataset subsample shots train_fraction seed epochs trained_parameters prompts_sha256 draw_hash".split()
    metrics = results.get("metrics") or {}
    per_class = {name: result["accuracy"] for name, result in metrics.get("per_class", {}).items()}
    found = {key: results.get(key) for key in kept}
    return found | {"accuracy": metrics.get("accuracy"), "images": metrics.get("n"), "per_class": per_class}
