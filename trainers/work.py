"""The floating-point operations of a method on its backbone, counted on one step and one image of zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clip.counting import counting

if TYPE_CHECKING:
    from trainers.base import PromptTrainer


def count_gflop(trainer: PromptTrainer) -> dict[str, float | None]:
    """Count without changing the model, its gradients, or any random stream.

    Returns:
        {"training_step": forward and backward of one batch, with the frozen image tower even where the feature store
        saves it; None for a method that makes no steps. "test_image": one image; texts that do not depend on it are
        encoded before}. In 10^9 operations, two per multiply-add.
    """
    cfg, model, device = trainer.cfg, trainer.model, trainer.device
    was_training = model.training
    model.eval()  # batch norms must not learn from these images
    try:
        with torch.random.fork_rng(devices=[]), torch.autocast(device.type, enabled=trainer.precision == "amp"):
            image = torch.zeros(1, 3, *cfg.INPUT.SIZE, device=device)
            with torch.no_grad():
                text = model.text_features()
                with counting() as tested:
                    model(image, text)
            step = None
            if trainer.makes_steps:
                batch = cfg.DATALOADER.TRAIN_X.BATCH_SIZE
                images = image.expand(batch, -1, -1, -1)
                parameters = [p for p in model.prompt_learner.parameters() if p.requires_grad]
                with counting() as trained:
                    loss, *_ = trainer.outputs(images, torch.zeros(batch, dtype=torch.long, device=device))
                    torch.autograd.grad(loss, parameters, allow_unused=True)
                step = trained.total / 1e9
    finally:
        model.train(was_training)
    return {"training_step": step, "test_image": tested.total / 1e9}
