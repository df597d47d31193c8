"""A trainer file in the style of CoOp's zero-shot one: it trains nothing, and uses another old file next to it."""

import torch

from clip import clip
from dassl.engine import TRAINER_REGISTRY, TrainerX

from .old_style import load_clip_to_cpu


@TRAINER_REGISTRY.register()
class RegistersNothing(TrainerX):
    def build_model(self):
        clip_model = load_clip_to_cpu(self.cfg)
        clip_model.float().to(self.device)
        prompts = [f"a photo of a {name.replace('_', ' ')}." for name in self.dm.dataset.classnames]
        prompts = torch.cat([clip.tokenize(prompt) for prompt in prompts]).to(self.device)
        with torch.no_grad():
            text_features = clip_model.encode_text(prompts)
            self.text_features = text_features / text_features.norm(dim=-1, keepdim=True)
        self.clip_model = clip_model

    def model_inference(self, image):
        image_features = self.clip_model.encode_image(image)
        image_features = image_features / image_features.norm(dim=-1, keepdim=True)
        return self.clip_model.logit_scale.exp() * image_features @ self.text_features.t()
