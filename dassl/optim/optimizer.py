"""Optimizers by name."""

import warnings

import torch
from torch import nn

from basics import UserError
from dassl.optim.radam import RAdam

OPTIMIZERS = ("adam", "amsgrad", "sgd", "rmsprop", "radam", "adamw")


def build_optimizer(model, optim_cfg, param_groups=None):
    """Return the optimizer that `optim_cfg.NAME` names.

    Args:
        model: a module, all of whose parameters are passed on (frozen ones never get a gradient), or an iterable of
            parameters or of parameter groups.
        optim_cfg (CfgNode): the node `OPTIM`, or one with the same keys.
        param_groups: used unchanged in place of the model's parameters; `STAGED_LR` is then ignored.

    Raises:
        UserError: unknown name, or `NEW_LAYERS` names a child that the model does not have.
        TypeError: `STAGED_LR` with something other than a module.
    """
    name, lr = optim_cfg.NAME, optim_cfg.LR
    if name not in OPTIMIZERS:
        raise UserError(f"OPTIM.NAME: expected one of {', '.join(OPTIMIZERS)}, got {name!r}.")
    if isinstance(model, nn.DataParallel):
        model = model.module

    if param_groups is not None:
        if optim_cfg.STAGED_LR:
            warnings.warn("OPTIM.STAGED_LR is ignored, because param_groups are given", stacklevel=2)
        params = param_groups
    elif optim_cfg.STAGED_LR:
        params = _staged_groups(model, optim_cfg)
    elif isinstance(model, nn.Module):
        params = model.parameters()
    else:
        params = model

    decay, eps = optim_cfg.WEIGHT_DECAY, optim_cfg.EPS
    betas = (optim_cfg.ADAM_BETA1, optim_cfg.ADAM_BETA2)
    if name == "sgd":
        return torch.optim.SGD(
            params,
            lr=lr,
            momentum=optim_cfg.MOMENTUM,
            weight_decay=decay,
            dampening=optim_cfg.SGD_DAMPNING,
            nesterov=optim_cfg.SGD_NESTEROV,
        )
    if name == "rmsprop":
        return torch.optim.RMSprop(
            params, lr=lr, momentum=optim_cfg.MOMENTUM, weight_decay=decay, alpha=optim_cfg.RMSPROP_ALPHA, eps=eps
        )
    if name == "radam":
        # The original decouples the weight decay from the gradient, as AdamW does.
        return RAdam(params, lr=lr, betas=betas, eps=eps, weight_decay=decay, decoupled_weight_decay=True)
    if name == "adamw":
        return torch.optim.AdamW(params, lr=lr, betas=betas, eps=eps, weight_decay=decay)
    return torch.optim.Adam(params, lr=lr, betas=betas, eps=eps, weight_decay=decay, amsgrad=name == "amsgrad")


def _staged_groups(model, optim_cfg):
    if not isinstance(model, nn.Module):
        raise TypeError(f"OPTIM.STAGED_LR: expected a module with children, got {type(model).__name__}.")
    new_layers = optim_cfg.NEW_LAYERS
    new_layers = [new_layers] if isinstance(new_layers, str) else list(new_layers)
    children = dict(model.named_children())
    missing = [layer for layer in new_layers if layer not in children]
    if missing:
        raise UserError(
            f"OPTIM.NEW_LAYERS: expected children of the model out of {', '.join(children)}, got {', '.join(missing)}."
        )
    base = [p for name, child in children.items() if name not in new_layers for p in child.parameters()]
    new = [p for name, child in children.items() if name in new_layers for p in child.parameters()]
    return [{"params": base, "lr": optim_cfg.LR * optim_cfg.BASE_LR_MULT}, {"params": new}]
