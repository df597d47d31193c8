"""What all methods share: a frozen CLIP, its precision, the training step, class texts encoded once per evaluation.

A method's file defines a `PromptedCLIP` (its learnable tensors and attention pattern) and a `PromptTrainer`.
Symbols: B images, C classes, D the width of the shared embedding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from yacs.config import CfgNode

from basics import UserError, log, notify
from clip import CLIP, BackboneConfig, backbone_config, backbone_pixels, linear, load_clip
from dassl.config import Checks
from dassl.data import with_features
from dassl.data.data_manager import random_state_of
from dassl.engine import device_of
from dassl.engine.accelerate import Outputs, build_step, pick_text_block
from dassl.engine.checkpoints import load_model_file
from dassl.engine.losses import CrossEntropy, balanced_weights, build_mixing
from dassl.engine.state import saved_auto_settings
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import device_name, stream
from trainers.inference import describe
from trainers.prompted import PromptedCLIP, whole_model_shapes
from trainers.texts import TextTrainer
from trainers.work import count_gflop

TOWER_DTYPES = {"fp32": torch.float32, "amp": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def unsupported(device: torch.device, dtype: torch.dtype) -> str:
    """Return why this device cannot run CLIP in this precision, in torch's words; empty if it can."""
    try:
        x = torch.ones(1, 1, 2, 2, dtype=dtype, device=device)
        x = F.linear(F.conv2d(x, x[:, :, :1, :1]), x[0, 0])
        F.scaled_dot_product_attention(x, x, x)
    except (RuntimeError, NotImplementedError) as error:
        return str(error).splitlines()[0]
    return ""


class PromptTrainer(TextTrainer):
    """Trains the `prompt_learner` of a method by cross-entropy; CLIP is frozen.

    Attributes:
        checkpoint_name: the folder of its checkpoints, named as in the released code.
        trained_on: names in texts of the classes that a saved model was trained on; None while it is trained.
        unit_length_features: whether the cached features of a frozen image encoder are normalized.
        static_step: whether its loss runs the same operations on the same numbers, but for the batch, in every step, so
            that a CUDA graph can replay them (MODEL.CUDA_GRAPH). Not so if the loss reads a number of the GPU, uses the
            epoch, or leaves tensors on the trainer, other than `loss_parts`.
    """

    model: PromptedCLIP
    for_this_engine = True
    honors_loss_options = True
    checkpoint_name = "prompt_learner"
    unit_length_features = True
    static_step = False
    trained_on: list[str] | None = None

    @property
    def options(self) -> CfgNode:
        """The settings of the method."""
        return self.cfg.TRAINER[self.config_node]

    @property
    def precision(self) -> str:
        """PREC: fp32, fp16, or bf16 (the precision of the frozen towers), or amp. Prompts are always float32."""
        return self.options.PREC if self.config_node else "fp32"

    @property
    def tower_dtype(self) -> torch.dtype:
        """The dtype of the frozen towers."""
        return TOWER_DTYPES[self.precision]

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        """Build the method on a frozen CLIP that is already on the device."""
        raise NotImplementedError

    def check_options(self, checks: Checks) -> None:
        """Record mistakes in the settings of the method; keys are relative to its config node."""

    def check_sizes(self, checks: Checks, sizes: BackboneConfig) -> None:
        """Record settings of the method that are too large for the backbone."""

    def check_cfg(self, cfg: CfgNode) -> None:
        self.cfg, checks = cfg, Checks(cfg, f"TRAINER.{self.config_node}")
        if self.config_node:
            checks.one_of("PREC", TOWER_DTYPES)
            self.check_options(checks)
            reason = unsupported(device_of(cfg), TOWER_DTYPES.get(self.precision, torch.float32))
            checks.require(
                not reason,
                f"TRAINER.{self.config_node}.PREC: expected a precision that this machine supports, got "
                f"{self.precision}. Choose another; torch reports: {reason}",
            )
        transforms = cfg.DATALOADER.K_TRANSFORMS, cfg.INPUT.NO_TRANSFORM
        checks.require(
            transforms == (1, False),
            "DATALOADER.K_TRANSFORMS, INPUT.NO_TRANSFORM: expected 1 and False (methods take one tensor per image), "
            f"got {transforms[0]} and {transforms[1]}.",
        )
        self.check_texts(cfg, checks)
        file = cfg.MODEL.INIT_WEIGHTS
        checks.require(
            not file or os.path.isfile(file), f'MODEL.INIT_WEIGHTS: expected a file, got "{file}". Check the path.'
        )
        with checks.gather():  # needs sizes only: no weights are loaded or downloaded
            sizes = backbone_config(cfg.MODEL.BACKBONE.NAME)
            expected, got = (sizes.image_size, sizes.image_size), tuple(cfg.INPUT.SIZE)
            checks.require(
                got == expected,
                f"INPUT.SIZE: expected {expected} for the backbone {cfg.MODEL.BACKBONE.NAME}, got {got}. Leave the key "
                "out of the command and of the config file that names the backbone: then it follows the backbone.",
            )
            self.check_sizes(checks, sizes)
        checks.finish()

    def build_model(self) -> None:
        classnames = self.names_in_texts(self.dm.dataset.classnames)
        self.check_context(classnames, backbone_config(self.cfg.MODEL.BACKBONE.NAME).context_length)
        clip_model = self._load_backbone()
        with torch.random.fork_rng(devices=[]):  # a separate stream: initialization affects nothing else
            torch.manual_seed(stream(self.cfg.SEED, "initialisation").initial_seed())
            self.model = self.build_method(clip_model, classnames).to(self.device)
        self.text: Tensor | None = None  # the class features, during an evaluation
        self.cross_entropy = CrossEntropy(self.cfg.TRAIN.LABEL_SMOOTHING, self._class_weights())
        self.mixing = build_mixing(self.cfg.TRAIN, self.num_classes)
        self.scaler = torch.amp.GradScaler(self.device.type) if self.precision == "amp" else None
        if hasattr(self.model, "prompt_learner"):
            self._register_learner(clip_model, classnames)
            self._accelerate()
        if self.model.frozen_image_encoder:
            self._wrap_loaders()

    def _class_weights(self) -> Tensor | None:
        """Return the weights of the classes in the loss (TRAIN.CLASS_WEIGHTS); None for equal ones."""
        if self.cfg.TRAIN.CLASS_WEIGHTS == "none":
            return None
        labels = [item.label for item in self.dm.dataset.train_x]
        return balanced_weights(labels, self.num_classes).to(self.device)

    def _load_backbone(self) -> CLIP:
        """Load the frozen CLIP onto the device."""
        cfg = self.cfg
        if self.precision == "fp16" and self.device.type == "cpu":
            key = f"TRAINER.{self.config_node}.PREC"
            notify(f"{key}: fp16 is slow on a CPU. fp32 is faster and at least as exact.")
        pixels = backbone_pixels(cfg.MODEL.BACKBONE.NAME)
        if pixels and pixels != (tuple(cfg.INPUT.PIXEL_MEAN), tuple(cfg.INPUT.PIXEL_STD)):
            mean, std = map(list, pixels)
            notify(f"{cfg.MODEL.BACKBONE.NAME} was trained with INPUT.PIXEL_MEAN {mean} and INPUT.PIXEL_STD {std}")
        clip_model = load_clip(cfg.MODEL.BACKBONE.NAME, self.tower_dtype)
        self.weights_sha256 = clip_model.weights_sha256
        self.linear = self._linear_library(clip_model)  # before the first computation
        return clip_model.to(self.device)

    def _register_learner(self, clip_model: CLIP, classnames: list[str]) -> None:
        """Register the trained module with its optimizer and learning-rate schedule."""
        cfg, learner = self.cfg, self.model.prompt_learner
        learner.backbone_shapes = whole_model_shapes(clip_model)
        if self.model.per_class_parameters:
            self._refuse_untrained_classes()
            learner.classnames = classnames
        if cfg.MODEL.INIT_WEIGHTS:
            load_model_file(learner, cfg.MODEL.INIT_WEIGHTS)
            log(f'Starting from the tensors of "{cfg.MODEL.INIT_WEIGHTS}"')
        self.optim, self.sched = self.build_optimizer(learner)
        self.register_model(self.checkpoint_name, learner, self.optim, self.sched)

    def _refuse_untrained_classes(self) -> None:
        if untrained := getattr(self.dm.dataset, "untrained", []):
            raise UserError(
                f"TRAINER.NAME: expected a method that can classify {len(untrained)} classes without training images "
                f"({', '.join(untrained[:5])}), got {self.cfg.TRAINER.NAME}, which has parameters of each class. Add "
                "training images, remove the test images of these classes, or use a method without such parameters."
            )

    def build_optimizer(self, learner: nn.Module) -> tuple[Optimizer | None, LRScheduler | None]:
        """Return the optimizer and the schedule of the trained module; None if the method makes no steps."""
        optim = build_optimizer(learner, self.cfg.OPTIM, self.parameter_groups(learner))
        return optim, build_lr_scheduler(optim, self.cfg.OPTIM)

    def parameter_groups(self, learner: nn.Module) -> list[dict] | None:
        """Return the optimizer's parameter groups; None for one group of all parameters."""
        return None

    def _accelerate(self) -> None:
        """Choose the text blocks, and compile or capture the step."""
        self.model.text_block = self._text_block()
        self.step = build_step(self.outputs, self.model.prompt_learner, self.cfg.MODEL, self.device, self.static_step)

    def _wrap_loaders(self) -> None:
        """Load the cached features of the frozen image encoder instead of images, unless the images are mixed."""
        for name in ("train_loader_x", "val_loader", "test_loader")[self.mixing is not None :]:
            setattr(self, name, with_features(getattr(self, name), self.cfg, self.frozen_features, self.feature_key()))

    def feature_key(self) -> dict:
        """Return what identifies `frozen_features` in the store, besides the images and their transform."""
        key = {"weights": self.weights_sha256, "precision": self.precision, "device": device_name(self.device)}
        return key if self.unit_length_features else {**key, "normalized": False}

    @torch.no_grad()
    def frozen_features(self, images: Tensor) -> Tensor:
        """Compute frozen CLIP's features of images (B, 3, H, W): (B, D), on the CPU."""
        self.signals.stop_if_requested("while image features were computed")  # before training, so nothing is lost
        with torch.autocast(self.device.type, enabled=self.precision == "amp"):
            features = self.model.tower_features(images.to(self.device))
            return (F.normalize(features, dim=-1) if self.unit_length_features else features).cpu()

    def _linear_library(self, clip_model: CLIP) -> str:
        """Select the library for frozen linear maps (MODEL.LINEAR); a resumed run keeps its first choice."""
        library = self.cfg.MODEL.LINEAR
        if library == "auto":
            library = saved_auto_settings(self.cfg).get("linear") or linear.faster(clip_model.tower_shapes())
        return linear.use(library)

    def _text_block(self) -> int:
        """Select the number of classes per text block; 0: all at once."""
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

    def describe_model(self) -> dict:
        """Describe the model for model.json, so that it can be used without its dataset."""
        return describe(self)

    @property
    def makes_steps(self) -> bool:
        """Whether the method is trained by gradient steps."""
        return bool(self._optims) and all(optim is not None for optim in self._optims.values())

    def count_gflop(self) -> dict[str, float | None]:
        """Count the operations of a training step and of a test image (`trainers.work`)."""
        return count_gflop(self)

    def parse_batch_train(self, batch: dict) -> tuple[Tensor, Tensor]:
        # The loader pins batches for a GPU, so the CPU need not wait for the copy.
        images = "features" if "features" in batch else "img"  # cached features replace images
        return tuple(batch[key].to(self.device, non_blocking=True) for key in (images, "label"))

    parse_batch_test = parse_batch_train

    def mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mix the images of a training batch (TRAIN.MIXUP, TRAIN.CUTMIX); the labels become shares (B, C).

        What is mixed depends on the seed, the epoch, and the batch alone.
        """
        if self.mixing is None:
            return images, labels
        with random_state_of(stream(self.cfg.SEED, "mixing", self.epoch, self.batch_idx).initial_seed()):
            return self.mixing(images, labels)

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the training loss (here `self.cross_entropy`) and the logits (B, C) of a batch.

        The options of the loss need that function; `labels` may be shares of the classes (B, C). A method whose loss
        has several parts may store them in `self.loss_parts` ({name: detached}) for the logs.
        """
        logits = self.model(images)
        return self.cross_entropy(logits, labels), logits

    def outputs(self, images: Tensor, labels: Tensor) -> Outputs:
        """Return `loss`, the logits, and the parts of the loss."""
        loss, logits = self.loss(images, labels)
        return loss, logits.detach(), self.loss_parts

    def forward_backward(self, batch: dict) -> dict[str, Tensor]:
        images, labels = self.mix(*self.parse_batch_train(batch))
        with torch.autocast(self.device.type, enabled=self.precision == "amp"):
            loss, logits, self.loss_parts = self.step(images, labels)
        self._refuse_unused_options()
        self.model_backward_and_update(loss)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        largest = labels if self.mixing is None else labels.argmax(dim=1)
        return {"loss": loss.detach(), **self.loss_parts, "acc": compute_accuracy(logits, largest)[0]}

    def _refuse_unused_options(self) -> None:
        """Refuse options of the loss that a method's own `loss` has not used."""
        train = self.cfg.TRAIN
        if not self.cross_entropy.used and (train.LABEL_SMOOTHING or train.CLASS_WEIGHTS != "none"):
            raise UserError(
                f"TRAIN.LABEL_SMOOTHING, TRAIN.CLASS_WEIGHTS: expected 0 and none with {self.cfg.TRAINER.NAME}, whose "
                f"loss does not use self.cross_entropy, got {train.LABEL_SMOOTHING} and {train.CLASS_WEIGHTS}."
            )

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        with super().evaluation(), torch.autocast(self.device.type, enabled=self.precision == "amp"):
            self.text = self.model.text_features()  # once per evaluation, not per batch
            try:
                yield
            finally:
                self.text = None  # training changes them

    def model_inference(self, images: Tensor) -> Tensor:
        return self.model(images, self.text)
