"""A trainer file in the style of IVLP's and PromptSRC's: `design_details` describes prompts inside the towers."""

import torch
from torch.nn import functional as F

from clip import clip
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.optim import build_lr_scheduler, build_optimizer

from .knowledge import load_clip_to_cpu

DESIGN = {"trainer": "IVLP", "prompt_dropout": 0.1}


@TRAINER_REGISTRY.register()
class IVLP(TrainerX):
    def build_model(self):
        cfg, options = self.cfg, self.cfg.TRAINER.IVLP
        depths = {"vision_depth": options.PROMPT_DEPTH_VISION, "language_depth": options.PROMPT_DEPTH_TEXT}
        lengths = {"vision_ctx": options.N_CTX_VISION, "language_ctx": options.N_CTX_TEXT}
        self.model = load_clip_to_cpu(cfg, {**depths, **lengths, **DESIGN})
        for name, param in self.model.named_parameters():
            param.requires_grad_("VPT" in name)
        self.tokens = torch.cat([clip.tokenize(f"a photo of a {name}.") for name in self.dm.dataset.classnames]).cuda()
        self.model.to(self.device)
        self.optim = build_optimizer(self.model, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("VLPromptLearner", self.model, self.optim, self.sched)

    def model_inference(self, image):
        text = F.normalize(self.model.encode_text(self.tokens), dim=-1)
        return self.model.logit_scale.exp() * F.normalize(self.model.encode_image(image), dim=-1) @ text.t()

    def forward_backward(self, batch):
        image, label = self.parse_batch_test(batch)
        loss = F.cross_entropy(self.model_inference(image), label)
        self.model_backward_and_update(loss)
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return {"loss": loss.item()}
