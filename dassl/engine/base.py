"""The part of a trainer that knows registered models, steps, checkpoints and the loop, but no configuration."""

from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from basics import UserError
from dassl.engine import checkpoints
from dassl.engine.nonfinite import LossWatch, Step
from dassl.utils import save_checkpoint, tolist_if_not


def summary_writer():
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError("TensorBoard is not installed: pip install tensorboard, or TRAIN.TENSORBOARD False") from error
    return SummaryWriter


class TrainerBase:
    """Registered models with their optimisers and schedules: modes, steps, checkpoints, and the loop over epochs."""

    def __init__(self):
        self._models = OrderedDict()
        self._optims = OrderedDict()
        self._scheds = OrderedDict()
        self._writer = None
        self.scaler = None  # a torch.amp.GradScaler, if the method trains in mixed precision
        self.epoch = self.batch_idx = 0
        self.watch = LossWatch()
        self.open_step()

    # ---- models

    def register_model(self, name="model", model=None, optim=None, sched=None):
        """Hand over a module that is trained. Only registered modules are saved and switched between modes.

        Args:
            name: also the name of its checkpoint folder.
            optim, sched: its optimiser and its schedule; None: the engine does not step it.
        """
        if "_models" not in self.__dict__:
            raise AttributeError("register_model was called before super().__init__()")
        assert name not in self._models, f'a model named "{name}" is registered already'
        self._models[name] = model
        self._optims[name] = optim
        self._scheds[name] = sched

    def get_model_names(self, names=None):
        """All registered names in order, or the given one(s), which must be registered."""
        if names is None:
            return list(self._models)
        names = tolist_if_not(names)
        for name in names:
            assert name in self._models, f'no model named "{name}" is registered; there are {list(self._models)}'
        return names

    def set_model_mode(self, mode="train", names=None):
        """Switch registered modules to "train", or to "eval" (also called "test")."""
        if mode not in ("train", "eval", "test"):
            raise KeyError(f'mode "{mode}": expected train, eval or test')
        for name in self.get_model_names(names):
            self._models[name].train(mode == "train")

    def update_lr(self, names=None):
        """Step the schedules; to be called once an epoch."""
        for name in self.get_model_names(names):
            if self._scheds[name] is not None:
                self._scheds[name].step()

    def get_current_lr(self, names=None):
        """The learning rate of the first parameter group of the first model; None if it has no optimiser."""
        names = self.get_model_names(names)
        optim = self._optims[names[0]] if names else None
        return optim.param_groups[0]["lr"] if optim is not None else None

    # ---- steps

    def open_step(self, batch=None):
        """What the engine does before a step on `batch` (a dict), whatever a method makes of it."""
        self.batch_files = batch.get("impath", ()) if isinstance(batch, dict) else ()
        self.loss_parts = {}  # name -> number or one-element tensor; a method may tell of what its loss is made
        self.loss_seen = self.step_left_out = False  # of the last backward pass

    def detect_anomaly(self, loss):
        """Whether the step on `loss` must be left out, because it is infinite or NaN (TRAIN.ON_NONFINITE skip:N).

        Raises:
            NonFiniteLoss: none may be left out, or no more. On a GPU it is raised a step late (see `LossWatch`).
        """
        self.loss_seen = True
        return self.watch.refuses(loss, Step(self.epoch, self.batch_idx, self.batch_files, self.loss_parts))

    def model_zero_grad(self, names=None):
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].zero_grad()

    def model_backward(self, loss):
        """Gradients of `loss`; none if the step is left out."""
        self.step_left_out = self.detect_anomaly(loss)
        if not self.step_left_out:
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def model_update(self, names=None):
        """A step of the optimisers, unless it is left out."""
        if self.step_left_out:
            return
        optims = [self._optims[name] for name in self.get_model_names(names) if self._optims[name] is not None]
        for optim in optims:
            if self.scaler is None:
                optim.step()
            else:
                self.scaler.step(optim)
        if self.scaler is not None:
            self.scaler.update()

    def model_backward_and_update(self, loss, names=None):
        """One step of the named models (all) down the gradient of `loss` (a scalar tensor)."""
        self.model_zero_grad(names)
        self.model_backward(loss)
        self.model_update(names)

    def prograd_backward_and_update(self, loss_a, loss_b, lambda_=1, names=None):
        """ProGrad's step (Zhu et al., Prompt-aligned Gradient for Prompt Tuning, ICCV 2023).

        Down the gradient of `loss_a`, less `lambda_` times its part that runs against the gradient of `loss_b`;
        each parameter by itself.
        """
        names = self.get_model_names(names)
        parameters = [p for name in names for p in self._models[name].parameters() if p.requires_grad]
        if self.detect_anomaly(loss_b):
            return
        general = torch.autograd.grad(loss_b, parameters, retain_graph=True)
        self.model_zero_grad(names)
        self.model_backward(loss_a)
        if self.step_left_out:
            return
        for parameter, direction in zip(parameters, general, strict=True):
            unit = nn.functional.normalize(direction.flatten(), dim=0).view_as(direction)
            against = (parameter.grad * unit).sum().clamp(max=0)
            parameter.grad -= lambda_ * against * unit
        self.model_update(names)

    # ---- checkpoints

    def save_model(self, epoch, directory, is_best=False, val_result=None, model_name=""):
        """Write a checkpoint of every registered model to `<directory>/<name>/`. `epoch` is counted from 0."""
        for name in self.get_model_names():
            optim, sched = self._optims[name], self._scheds[name]
            per_class_parameters = hasattr(self._models[name], "classnames")  # see checkpoints.load_model_file
            save_checkpoint(
                {
                    "state_dict": checkpoints.snapshot(self._models[name]),
                    "epoch": epoch + 1,
                    "optimizer": optim.state_dict() if optim is not None else None,
                    "scheduler": sched.state_dict() if sched is not None else None,
                    "val_result": val_result,
                    **({"classnames": list(self._models[name].classnames)} if per_class_parameters else {}),
                },
                Path(directory) / name,
                is_best=is_best,
                model_name=model_name,
            )

    def load_model(self, directory, epoch=None):
        """Load the trained tensors of every registered model from a run's folder.

        Args:
            directory: holds `<name>/model-best.pth.tar` or `<name>/model.pth.tar-<epoch>`. Empty: nothing is loaded.
            epoch: counted from 1; None: the best one, or else the last.

        Returns:
            int or None: the epoch of the model that was loaded; None if there was nothing to load.

        Raises:
            UserError: there is no such checkpoint, it is damaged, or it does not fit the model.
        """
        if not directory:
            if self._models:
                print("Nothing is loaded: no model directory was given")
            return None
        loaded = None
        for name in self.get_model_names():
            path = checkpoints.find_checkpoint(directory, name, epoch)
            loaded, val_result = checkpoints.load_model_file(self._models[name], path)
            of_val = f", val_result {val_result:.1f}" if val_result is not None else ""
            print(f'Loaded {name} from "{path}" (epoch {loaded}{of_val})')
        return loaded

    def resume_model_if_exist(self, directory):
        """Go on from the state of a run in `directory`, if there is one.

        Returns:
            int: the number of complete epochs; 0 if the training begins.

        Raises:
            UserError: the state is damaged or of another configuration.
        """
        path = Path(directory) / checkpoints.STATE_FILE
        if not path.is_file():
            print("No checkpoint found, train from scratch")
            return 0
        done = checkpoints.restore_state(self, path)
        batches = f" and {self.progress.batches} batches" if self.progress.batches else ""
        print(f'Resumed from "{path}": {done} epochs{batches} are done')
        return done

    # ---- TensorBoard

    def init_writer(self, log_dir):
        if self._writer is None:
            self._writer = summary_writer()(log_dir=str(log_dir))

    def close_writer(self):
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def write_scalar(self, tag, scalar_value, global_step=None):
        """Write a number, or a one-element tensor, to TensorBoard, if that is on."""
        if self._writer is not None:
            self._writer.add_scalar(tag, float(scalar_value), global_step)

    # ---- the loop

    def train(self, start_epoch, max_epoch):
        """Train from `start_epoch` (or where `before_train` moves it to) to `max_epoch`."""
        self.start_epoch = start_epoch
        self.max_epoch = max_epoch
        self.before_train()
        # The bar goes to stderr, and only if that is a terminal.
        with tqdm(total=self.max_epoch, initial=self.start_epoch, desc="train", unit="epoch", disable=None) as bar:
            for epoch in range(self.start_epoch, self.max_epoch):
                self.epoch = epoch
                self.open_epoch()
                self.before_epoch()
                self.run_epoch()
                self.after_epoch()
                self.close_epoch()
                bar.set_postfix({key: f"{value:.4g}" for key, value in self.epoch_summary.items()}, refresh=False)
                bar.update()
        self.after_train()

    def before_train(self):
        pass

    def open_epoch(self):
        """What the engine does before an epoch, whatever a method makes of `before_epoch`."""
        self.epoch_summary = {}

    def before_epoch(self):
        pass

    def run_epoch(self):
        raise NotImplementedError

    def after_epoch(self):
        pass

    def close_epoch(self):
        """What the engine does after an epoch, whatever a method makes of `after_epoch`."""

    def after_train(self):
        pass

    def test(self):
        raise NotImplementedError

    def forward_backward(self, batch):
        """One training step. Returns a dict of numbers or one-element tensors to report, or None."""
        raise NotImplementedError

    def parse_batch_train(self, batch):
        raise NotImplementedError

    def parse_batch_test(self, batch):
        raise NotImplementedError
