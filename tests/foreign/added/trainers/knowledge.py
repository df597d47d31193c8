"""A trainer file in the style of KgCoOp's: a second CLIP on the GPU, templates by dataset, the name of a built-in.

It reads settings that its own repository's train.py declares (LOSS.NAME and LOSS.T), unless `extend_cfg` is added here.
"""

import torch
import torch.nn as nn
from torch.nn import functional as F

from clip import clip
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.optim import build_lr_scheduler, build_optimizer
from trainers.templates import CUSTOM_TEMPLATES


def load_clip_to_cpu(cfg, design_details=None):
    model_path = clip._download(clip._MODELS[cfg.MODEL.BACKBONE.NAME])
    state_dict = torch.load(model_path, map_location="cpu")
    return clip.build_model(state_dict, design_details).float()


class CustomCLIP(nn.Module):
    def __init__(self, cfg, classnames, clip_model):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(len(classnames), clip_model.text_projection.shape[1]).cuda())
        temp = CUSTOM_TEMPLATES[cfg.DATASET.NAME]
        prompts = torch.cat([clip.tokenize(temp.format(name)) for name in classnames]).cuda()
        clip_model_ = load_clip_to_cpu(cfg)
        clip_model_.cuda()
        with torch.no_grad():
            text_features = clip_model_.encode_text(prompts.to("cuda")).to("cuda:0")
        self.text_features = F.normalize(text_features, dim=-1)
        self.weights = torch.ones(len(classnames), device="cuda")
        self.image_encoder = clip_model.visual
        self.logit_scale = clip_model.logit_scale

    def forward(self, image):
        image_features = F.normalize(self.image_encoder(image), dim=-1)
        text_features = F.normalize(self.text_features + self.bias, dim=-1)
        return self.logit_scale.exp() * image_features @ text_features.t() * self.weights


@TRAINER_REGISTRY.register()
class KgCoOp(TrainerX):
    def build_model(self):
        cfg = self.cfg
        print(f"words: {cfg.TRAINER.COOP.CTX_INIT!r}")
        self.T = cfg.LOSS.T if cfg.LOSS.NAME == "tempered" else 1.0
        self.model = CustomCLIP(cfg, self.dm.dataset.classnames, load_clip_to_cpu(cfg))
        for name, param in self.model.named_parameters():
            param.requires_grad_(name == "bias")
        self.model.to(self.device)
        self.optim = build_optimizer(self.model, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("prompt_learner", self.model, self.optim, self.sched)

    def forward_backward(self, batch):
        image, label = batch["img"].cuda(), batch["label"].cuda()
        loss = F.cross_entropy(self.model(image) / self.T, label)
        self.model_backward_and_update(loss)
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return {"loss": loss.item()}
