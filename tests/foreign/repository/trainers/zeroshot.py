import torch
from torch.nn import functional as F

from clip import clip
from dassl.engine import TRAINER_REGISTRY, TrainerX


@TRAINER_REGISTRY.register()
class SmallZeroshot(TrainerX):
    """Registers no model."""

    def build_model(self):
        self.clip_model = clip.load(self.cfg.MODEL.BACKBONE.NAME, self.device)
        prompts = torch.cat([clip.tokenize(f"a {name}.") for name in self.dm.dataset.classnames]).cuda()
        with torch.no_grad():
            x = self.clip_model.token_embedding(prompts) + self.clip_model.positional_embedding
            x = self.clip_model.ln_final(self.clip_model.transformer(x.permute(1, 0, 2)).permute(1, 0, 2))
            x = x[torch.arange(len(x)), prompts.argmax(dim=-1)] @ self.clip_model.text_projection
            self.text_features = F.normalize(x, dim=-1)

    def model_inference(self, image):
        features = F.normalize(self.clip_model.visual(image), dim=-1)
        return self.clip_model.logit_scale.exp() * features @ self.text_features.t()
