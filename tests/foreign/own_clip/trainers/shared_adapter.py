"""A trainer file in the style of MMA's, which needs the clip package of its own repository, next to trainers/."""

import torch
from torch import nn
from torch.nn import functional as F

import clip.gsl
from clip import clip as own_clip
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.optim import build_lr_scheduler, build_optimizer


class CustomCLIP(nn.Module):
    def __init__(self, cfg, classnames):
        super().__init__()
        from clip.gsl import SharedLayer

        self.clip_model = own_clip.load(cfg.INPUT.SIZE[0])
        self.tokens = torch.cat([clip.tokenize(name) for name in classnames])
        self.adapter = SharedLayer(32)
        assert isinstance(self.adapter, clip.gsl.SharedLayer)

    def forward(self, image):
        image_features, _ = self.clip_model.encode_image(image, self.adapter)
        text_features, _ = self.clip_model.encode_text(self.tokens, self.adapter)
        return 10 * F.normalize(image_features, dim=-1) @ F.normalize(text_features, dim=-1).t()


@TRAINER_REGISTRY.register()
class SharedAdapter(TrainerX):
    def build_model(self):
        self.model = CustomCLIP(self.cfg, self.dm.dataset.classnames)
        for name, param in self.model.named_parameters():
            param.requires_grad_("adapter" in name)
        self.optim = build_optimizer(self.model.adapter, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model("adapter", self.model.adapter, self.optim, self.sched)

    def forward_backward(self, batch):
        loss = F.cross_entropy(self.model(batch["img"]), batch["label"])
        self.model_backward_and_update(loss)
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return {"loss": loss.item()}
