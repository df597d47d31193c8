"""Checkpoints as the original Dassl and the repositories built on it write them."""

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, RMSprop
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, StepLR

OPTIMIZERS = {
    "sgd": lambda parameters: SGD(parameters, lr=0.002, momentum=0.9),
    "adam": lambda parameters: Adam(parameters, lr=0.002),
    "adamw": lambda parameters: AdamW(parameters, lr=0.002),
    "rmsprop": lambda parameters: RMSprop(parameters, lr=0.002),
}
SCHEDULES = {
    "cosine": lambda optimizer: CosineAnnealingLR(optimizer, 50.0),
    "single_step": lambda optimizer: StepLR(optimizer, 10),
    "multi_step": lambda optimizer: MultiStepLR(optimizer, [10, 20]),
}


def original_checkpoint(state_dict, epoch=50, optimizer="sgd", schedule="cosine"):
    """Return the dict that the original saves. With a warm-up it holds the live schedule, and that the optimizer."""
    parameters = [nn.Parameter(tensor.float()) for tensor in state_dict.values()]
    optimizer = OPTIMIZERS[optimizer](parameters)
    for parameter in parameters[:3]:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    successor = SCHEDULES[schedule](optimizer)
    scheduler = {
        "successor": successor,
        "warmup_epoch": 1,
        "cons_lr": 1e-5,
        "base_lrs": [0.002],
        "last_epoch": epoch,
        "_step_count": epoch + 1,
        "verbose": False,
        "_get_lr_called_within_step": False,
        "_last_lr": [0.001],
    }
    return {
        "state_dict": state_dict,
        "epoch": epoch,
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler,
        "val_result": None,
    }


def write_original(folder, state_dict, epoch=50, **changes):
    """Write `<folder>/model.pth.tar-<epoch>`, and the `checkpoint` file that names it."""
    folder.mkdir(parents=True)
    path = folder / f"model.pth.tar-{epoch}"
    torch.save(original_checkpoint(state_dict, epoch, **changes), path)
    (folder / "checkpoint").write_text(f"{path.name}\n")
    return path


class TextEncoder(nn.Module):
    def __init__(self, clip_model):
        super().__init__()
        self.transformer = clip_model.transformer
        self.positional_embedding = clip_model.positional_embedding
        self.ln_final = clip_model.ln_final
        self.text_projection = clip_model.text_projection


class WholeModel(nn.Module):
    """The module that the trainers of MaPLe and IVLP register: all of CLIP, and the prompts."""

    def __init__(self, clip_model):
        super().__init__()
        self.image_encoder = clip_model.visual
        self.text_encoder = TextEncoder(clip_model)
        self.logit_scale = clip_model.logit_scale


def whole_state_dict(clip_model, prompts):
    """Return the state dict of the whole model, with the prompts under their names in it."""
    state = WholeModel(clip_model).state_dict()  # an OrderedDict with `_metadata`, as a live module gives it
    for name, tensor in prompts.items():
        in_tower = name.startswith(("image_encoder.", "text_encoder."))
        state[name if in_tower else f"prompt_learner.{name}"] = tensor
    return state
