"""Registered models with their optimizers and schedules: modes, steps and checkpoints, without a config or data."""

from pathlib import Path
from typing import Any

import torch

from basics import log
from dassl.engine import checkpoints, compat, distributed
from dassl.engine.nonfinite import LossWatch, StepInfo
from dassl.utils import save_checkpoint, tolist_if_not


class TrainerBase:
    """The models that a method trains, by name, and what the engine does with each of them."""

    def __init__(self):
        self._models: dict[str, Any] = {}
        self._optims: dict[str, Any] = {}
        self._scheds: dict[str, Any] = {}
        self._writer = None  # TensorBoard's SummaryWriter, or what has its methods (`dassl.engine.trackers`)
        self.scaler = None  # a torch.amp.GradScaler for mixed precision
        self.epoch = self.batch_idx = 0
        self.num_batches = 1
        self.clip_norm, self.accumulate = 0.0, 1  # OPTIM.CLIP_NORM, OPTIM.ACCUMULATE
        self.step_skipped = self.has_gradients = False
        self.share_of_batch = 1.0  # the part of the batch's images that this process has
        self.watch = LossWatch()
        self.open_step()

    # ---- models

    def register_model(self, name="model", model=None, optim=None, sched=None):
        """Register a module to be trained. Only registered modules are saved and switched between modes.

        Args:
            name: also the name of its checkpoint folder.
            optim, sched: its optimizer and schedule; None if the engine must not step it.
        """
        if "_models" not in self.__dict__:
            raise AttributeError("register_model was called before super().__init__()")
        assert name not in self._models, f'a model named "{name}" is already registered'
        self._models[name] = model
        self._optims[name] = optim
        self._scheds[name] = sched

    def get_model_names(self, names=None) -> list[str]:
        """Return all registered names in order, or the given one or ones, which must be registered."""
        if names is None:
            return list(self._models)
        names = tolist_if_not(names)
        for name in names:
            assert name in self._models, f'no model named "{name}" is registered, only {list(self._models)}'
        return names

    def set_model_mode(self, mode="train", names=None):
        """Switch registered modules to "train", or to "eval" (also called "test")."""
        if mode not in ("train", "eval", "test"):
            raise KeyError(f'mode: expected train, eval or test, got "{mode}"')
        for name in self.get_model_names(names):
            self._models[name].train(mode == "train")

    def update_lr(self, names=None):
        """Step the schedules. Call it once per epoch."""
        for name in self.get_model_names(names):
            if self._scheds[name] is not None:
                self._scheds[name].step()

    def get_current_lr(self, names=None) -> float | None:
        """Return the learning rate of the first parameter group of the first model; None without an optimizer."""
        names = self.get_model_names(names)
        optim = self._optims[names[0]] if names else None
        return optim.param_groups[0]["lr"] if optim is not None else None

    # ---- steps

    def open_step(self, batch=None):
        """Prepare for a step on `batch` (a dict); the engine calls it before `forward_backward`."""
        self.batch_files = batch.get("impath", ()) if isinstance(batch, dict) else ()
        self.loss_parts = {}  # name -> number or one-element tensor, for methods whose loss is a sum
        # Whether earlier batches of this optimizer step have left gradients.
        self.has_gradients = self.batch_idx % self.accumulate > 0 and (self.has_gradients or not self.step_skipped)
        self.loss_seen = self.step_skipped = False  # about the last backward pass

    def detect_anomaly(self, loss) -> bool:
        """Return whether to skip the step on `loss` because it is infinite or NaN (TRAIN.ON_NONFINITE skip:N).

        Raises:
            NonFiniteLoss: the step may not be skipped. On a GPU this is raised one step late (see `LossWatch`).
        """
        self.loss_seen = True
        return self.watch.refuses(loss, StepInfo(self.epoch, self.batch_idx, self.batch_files, self.loss_parts))

    @property
    def ends_step(self) -> bool:
        """Whether the optimizers step on this batch, and not on a later one of the epoch (OPTIM.ACCUMULATE)."""
        return (self.batch_idx + 1) % self.accumulate == 0 or self.batch_idx + 1 == self.num_batches

    def model_zero_grad(self, names=None):
        """Discard the gradients, unless the batch continues an optimizer step."""
        if self.batch_idx % self.accumulate:
            return
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].zero_grad()

    def model_backward(self, loss):
        """Compute the gradients of `loss`, unless the step is skipped."""
        if distributed.size() > 1:
            loss = loss * self.share_of_batch
            self.step_skipped = self.detect_anomaly(distributed.total(loss.detach()))
        else:
            self.step_skipped = self.detect_anomaly(loss)
        if self.accumulate > 1:  # the mean over the batches of the step; the last one of an epoch may have fewer
            loss = loss / min(self.accumulate, self.num_batches - self.batch_idx // self.accumulate * self.accumulate)
        if not self.step_skipped:
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def model_update(self, names=None):
        """Step the optimizers, unless the step is skipped or later batches belong to it."""
        if not self.ends_step or (self.step_skipped and not self.has_gradients):
            return
        optims = [self._optims[name] for name in self.get_model_names(names) if self._optims[name] is not None]
        if distributed.size() > 1:
            distributed.sum_gradients(p for optim in optims for group in optim.param_groups for p in group["params"])
        if self.clip_norm:
            self._clip_gradients(optims)
        for optim in optims:
            if self.scaler is None:
                optim.step()
            else:
                self.scaler.step(optim)
        if self.scaler is not None:
            self.scaler.update()

    def _clip_gradients(self, optims):
        if self.scaler is not None:
            for optim in optims:
                self.scaler.unscale_(optim)
        parameters = [p for optim in optims for group in optim.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, self.clip_norm)

    def model_backward_and_update(self, loss, names=None):
        """Make one optimizer step on `loss` (a scalar tensor) for the named models, or for all.

        With OPTIM.ACCUMULATE, it is made on the last of so many batches, and OPTIM.CLIP_NORM limits its gradient.
        """
        self.model_zero_grad(names)
        self.model_backward(loss)
        self.model_update(names)

    prograd_backward_and_update = compat.prograd_backward_and_update

    # ---- checkpoints

    def save_model(self, epoch, directory, is_best=False, val_result=None, model_name=""):
        """Write a checkpoint of every registered model to `<directory>/<name>/`. `epoch` counts from 0."""
        for name, module in self._models.items():
            optim, sched = self._optims[name], self._scheds[name]
            per_class_parameters = hasattr(module, "classnames")  # see checkpoints.load_model_file
            save_checkpoint(
                {
                    "state_dict": checkpoints.snapshot(module),
                    "epoch": epoch + 1,
                    "optimizer": optim.state_dict() if optim is not None else None,
                    "scheduler": sched.state_dict() if sched is not None else None,
                    "val_result": val_result,
                    **({"classnames": list(module.classnames)} if per_class_parameters else {}),
                },
                Path(directory) / name,
                is_best=is_best,
                model_name=model_name,
            )

    def load_model(self, directory, epoch=None) -> int | None:
        """Load the trained tensors of every registered model from a run's folder.

        Args:
            directory: holds `<name>/model-best.pth.tar` or `<name>/model.pth.tar-<epoch>`. If empty, nothing is loaded.
            epoch: counted from 1; None for the best checkpoint, or else the last.

        Returns:
            The epoch of the loaded checkpoint; None if there was nothing to load.

        Raises:
            UserError: there is no such checkpoint, it is damaged, or it does not fit the model.
        """
        if not directory:
            if self._models:
                log("No model directory given; loading nothing")
            return None
        loaded = None
        for name in self.get_model_names():
            path = checkpoints.find_checkpoint(directory, name, epoch)
            loaded, val_result = checkpoints.load_model_file(self._models[name], path)
            result = f", val_result {val_result:.1f}" if val_result is not None else ""
            log(f'Loaded {name} from "{path}" (epoch {loaded}{result})')
        return loaded

    # ---- trackers

    def init_writer(self, log_dir):
        if self._writer is None:
            self._writer = compat.SummaryWriter(log_dir=str(log_dir))

    def close_writer(self):
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def write_scalar(self, tag, scalar_value, global_step=None):
        """Write a number or a one-element tensor to TensorBoard or another tracker, if one is on."""
        if self._writer is not None:
            self._writer.add_scalar(tag, float(scalar_value), global_step)
