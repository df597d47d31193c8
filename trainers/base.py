"""What the prompt methods share: a frozen CLIP, its precision, a training step, class text encoded once a test.

A method's file defines a `PromptedCLIP` (its learnable tensors and attention pattern) and a `PromptTrainer`.
Letters: B images, C classes, D the shared embedding's width.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from yacs.config import CfgNode

from clip import CLIP, BackboneConfig, backbone_config, encode, linear, load_clip
from dassl.config import Checks
from dassl.data import prompt_template, with_features
from dassl.engine import TrainerX, device_of
from dassl.engine.accelerate import Outputs, build_step, pick_text_block
from dassl.engine.checkpoints import load_model_file
from dassl.engine.state import saved_auto_settings
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import device_name, stream
from trainers.prompted import PromptedCLIP, whole_model_shapes

DEFAULT_TEMPLATE = "a photo of a {}."
SHORTEST_TEXT = 4  # positions: start, a name of one token, the full stop, end
TOWER_DTYPES = {"fp32": torch.float32, "amp": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def why_not(device: torch.device, dtype: torch.dtype) -> str:
    """Why a CLIP cannot be run in this precision on this device, in torch's words; empty if it can."""
    try:
        x = torch.ones(1, 1, 2, 2, dtype=dtype, device=device)
        x = F.linear(F.conv2d(x, x[:, :, :1, :1]), x[0, 0])
        F.scaled_dot_product_attention(x, x, x)
    except (RuntimeError, NotImplementedError) as error:
        return str(error).splitlines()[0]
    return ""


class PromptTrainer(TrainerX):
    """Trains a method's `prompt_learner` by cross-entropy; CLIP is frozen.

    Attributes:
        config_node: the method's node under TRAINER, "" if it has none.
        checkpoint_name: the folder of its checkpoints, as the released code names it.
    """

    model: PromptedCLIP
    config_node = ""
    checkpoint_name = "prompt_learner"

    @property
    def options(self) -> CfgNode:
        """The method's own settings."""
        return self.cfg.TRAINER[self.config_node]

    @property
    def precision(self) -> str:
        """PREC: fp32, fp16, bf16 (precision of the frozen towers) or amp. Prompts are always float32."""
        return self.options.PREC if self.config_node else "fp32"

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        """The method on a frozen CLIP that is already on the device."""
        raise NotImplementedError

    def check_options(self, checks: Checks) -> None:
        """Note what is wrong with the method's own settings; keys are those of its node."""

    def check_sizes(self, checks: Checks, sizes: BackboneConfig) -> None:
        """Note which of the method's settings the backbone is too small for."""

    def check_cfg(self, cfg: CfgNode) -> None:
        self.cfg, checks = cfg, Checks(cfg, f"TRAINER.{self.config_node}")
        if self.config_node:
            checks.one_of("PREC", TOWER_DTYPES)
            self.check_options(checks)
            reason = why_not(device_of(cfg), TOWER_DTYPES.get(self.precision, torch.float32))
            checks.require(
                not reason, f"TRAINER.{self.config_node}.PREC {self.precision}: this machine cannot: {reason}"
            )
        checks.require(
            cfg.DATALOADER.K_TRANSFORMS == 1 and not cfg.INPUT.NO_TRANSFORM,
            "DATALOADER.K_TRANSFORMS, INPUT.NO_TRANSFORM: expected 1 and False: the method takes one tensor an image",
        )
        file = cfg.MODEL.INIT_WEIGHTS
        checks.require(not file or os.path.isfile(file), f'MODEL.INIT_WEIGHTS: no file "{file}"')
        with checks.gather():
            prompt_template(cfg.DATASET.PROMPT or DEFAULT_TEMPLATE)
        with checks.gather():  # sizes alone: no weight is loaded, nothing is fetched
            sizes = backbone_config(cfg.MODEL.BACKBONE.NAME)
            expected, got = (sizes.image_size, sizes.image_size), tuple(cfg.INPUT.SIZE)
            checks.require(
                got == expected,
                f"INPUT.SIZE: expected {expected} for the backbone {cfg.MODEL.BACKBONE.NAME}, got {got}",
            )
            self.check_sizes(checks, sizes)
        checks.finish()

    def texts(self, classnames: list[str]) -> Iterator[tuple[list[str], int]]:
        """The texts of all classes that go through the text tower, and how many learned vectors join each."""
        yield self.class_texts(classnames), 0

    def check_room(self, checks: Checks, sizes: BackboneConfig, vectors: int, least: int = SHORTEST_TEXT) -> None:
        """Note it if `vectors` in a text leave less than `least` positions to the words."""
        checks.require(
            sizes.context_length - vectors >= least,
            f"TRAINER.{self.config_node}: {vectors} learned vectors overrun the context: the backbone has "
            f"{sizes.context_length} positions, of which {least} must be left to the words",
        )

    def check_context(self, classnames: list[str], length: int) -> None:
        """Refuse class names whose texts overrun the backbone's context of `length` positions; names them."""
        checks = Checks(self.cfg)
        for texts, joined in self.texts(classnames):
            for name, text in zip(classnames, texts, strict=True):
                used = 2 + len(encode(text)) + joined  # the start and end tokens
                limit = f", with at most {max(length - used + joined, 0)} learned vectors" if joined else ""
                checks.require(
                    used <= length,
                    f"the class {name[:80]!r} overruns the context: its text and {joined} learned vectors take {used} "
                    f"of {length} positions. Shorten the name{limit}",
                )
        checks.finish()

    def build_model(self) -> None:
        classnames = [name.replace("_", " ") for name in self.dm.dataset.classnames]
        self.check_context(classnames, backbone_config(self.cfg.MODEL.BACKBONE.NAME).context_length)
        clip_model = self._load_backbone()
        with torch.random.fork_rng(devices=[]):  # a stream of its own: a method's random start changes nothing else
            torch.manual_seed(stream(self.cfg.SEED, "initialisation").initial_seed())
            self.model = self.build_method(clip_model, classnames).to(self.device)
        self.text: Tensor | None = None  # the class features, during an evaluation
        self.scaler = torch.amp.GradScaler(self.device.type) if self.precision == "amp" else None
        if hasattr(self.model, "prompt_learner"):
            self._build_optimizer(clip_model, classnames)
            self._accelerate()
        if self.model.frozen_image_encoder:
            self._wrap_loaders()

    def _load_backbone(self) -> CLIP:
        """The frozen CLIP on the device."""
        cfg = self.cfg
        if self.precision == "fp16" and self.device.type == "cpu":
            key = f"TRAINER.{self.config_node}.PREC"
            print(f"{key} fp16 is slow on a CPU; {key} fp32 is faster and at least as exact")
        clip_model = load_clip(cfg.MODEL.BACKBONE.NAME, TOWER_DTYPES[self.precision])
        self.weights_sha256 = clip_model.weights_sha256
        self.linear = self._linear_library(clip_model)  # before anything is computed
        return clip_model.to(self.device)

    def _build_optimizer(self, clip_model: CLIP, classnames: list[str]) -> None:
        """Register the trained module with its optimizer and schedule."""
        cfg, learner = self.cfg, self.model.prompt_learner
        learner.backbone_shapes = whole_model_shapes(clip_model)
        if self.model.per_class_parameters:
            learner.classnames = classnames
        if cfg.MODEL.INIT_WEIGHTS:
            load_model_file(learner, cfg.MODEL.INIT_WEIGHTS)
            print(f'Starting from the tensors of "{cfg.MODEL.INIT_WEIGHTS}"')
        self.optim = build_optimizer(learner, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model(self.checkpoint_name, learner, self.optim, self.sched)

    def _accelerate(self) -> None:
        """Choose the text blocks, and compile or capture the step."""
        self.model.text_block = self._text_block()
        self.step = build_step(self.outputs, self.model.prompt_learner, self.cfg.MODEL, self.device)

    def _wrap_loaders(self) -> None:
        """Load the cached features of the frozen image encoder instead of images."""
        key = {"weights": self.weights_sha256, "precision": self.precision, "device": device_name(self.device)}
        for name in ("train_loader_x", "val_loader", "test_loader"):
            setattr(self, name, with_features(getattr(self, name), self.cfg, self.frozen_features, key))

    @torch.no_grad()
    def frozen_features(self, images: Tensor) -> Tensor:
        """Frozen CLIP's unit-length features of images (B, 3, H, W): (B, D), on the CPU."""
        self.signals.stop_if_asked("while image features were computed")  # nothing is lost: they come before the steps
        with torch.autocast(self.device.type, enabled=self.precision == "amp"):
            return PromptedCLIP.image_features(self.model, images.to(self.device)).cpu()

    def _linear_library(self, clip_model: CLIP) -> str:
        """The library for frozen linear maps (MODEL.LINEAR) from here on; a resumed run keeps that of its start."""
        library = self.cfg.MODEL.LINEAR
        if library == "auto":
            library = saved_auto_settings(self.cfg).get("linear") or linear.faster(clip_model.tower_shapes())
        return linear.use(library)

    def _text_block(self) -> int:
        if not self.model.independent_classes:
            return 0
        model, batch = self.model, self.cfg.DATALOADER.TRAIN_X.BATCH_SIZE
        compute, each = partial(model.text_step, batch), model.texts_of_a_class(batch)
        with torch.autocast(self.device.type, enabled=self.precision == "amp"):
            return pick_text_block(self.cfg.MODEL.TEXT_BLOCK, compute, model.n_classes, self.device, each)

    def auto_settings(self) -> dict[str, int | str]:
        return {"text_block": self.model.text_block, "linear": self.linear}

    def keep_auto_settings(self, auto_settings: dict[str, int | str]) -> None:
        if self.cfg.MODEL.TEXT_BLOCK == "auto":  # other blocks would change the last bits
            self.model.text_block = int(auto_settings["text_block"])

    def class_texts(self, classnames: list[str]) -> list[str]:
        """The class names in DATASET.PROMPT, else in the dataset's own template ("_" or "{}" stands for the name)."""
        text = self.cfg.DATASET.PROMPT or getattr(self.dm.dataset, "prompt", "") or DEFAULT_TEMPLATE
        template = prompt_template(text)
        return [template.replace("{}", name) for name in classnames]

    def parse_batch_train(self, batch: dict) -> tuple[Tensor, Tensor]:
        # The loader pins what a GPU is to get: the CPU need not wait until it is there.
        images = "features" if "features" in batch else "img"  # frozen features come in place of images
        return tuple(batch[key].to(self.device, non_blocking=True) for key in (images, "label"))

    parse_batch_test = parse_batch_train

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The training loss (here cross-entropy) and the logits (B, C) of a batch.

        A loss of several parts may put them into `self.loss_parts` ({name: detached}) to have them reported.
        """
        logits = self.model(images)
        return F.cross_entropy(logits.float(), labels), logits

    def outputs(self, images: Tensor, labels: Tensor) -> Outputs:
        """`loss` with the parts that it left."""
        loss, logits = self.loss(images, labels)
        return loss, logits.detach(), self.loss_parts

    def forward_backward(self, batch: dict) -> dict[str, Tensor]:
        images, labels = self.parse_batch_train(batch)
        with torch.autocast(self.device.type, enabled=self.precision == "amp"):
            loss, logits, self.loss_parts = self.step(images, labels)
        self.model_backward_and_update(loss)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {"loss": loss.detach(), **self.loss_parts, "acc": compute_accuracy(logits, labels)[0]}

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        self.set_model_mode("eval")
        with torch.autocast(self.device.type, enabled=self.precision == "amp"):
            self.text = self.model.text_features()  # once an evaluation, not once a batch
            try:
                return super().test(split)
            finally:
                self.text = None  # never carried over into training

    def model_inference(self, images: Tensor) -> Tensor:
        return self.model(images, self.text)
