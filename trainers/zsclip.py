"""Zero-shot CLIP: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2103.00020.

Nothing is trained: an image is assigned to the class with the most similar text ("a photo of a cat."). If a class has
several texts, their unit-length features are averaged (section 3.1.4, prompt ensembling).

Attention pattern: the words of a text attend to themselves, causally; the patches of an image to each other.
"""

from __future__ import annotations

from collections.abc import Iterator

from clip import CLIP
from dassl.engine import TRAINER_REGISTRY
from trainers.base import PromptTrainer
from trainers.prompted import FixedTextCLIP, PromptedCLIP

# The seven templates that CLIP's authors selected on ImageNet.
ENSEMBLE = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)


class ZeroshotModel(FixedTextCLIP):
    """CLIP with both sides frozen."""

    frozen_image_encoder = True


@TRAINER_REGISTRY.register()
class ZeroshotCLIP(PromptTrainer):
    """Zero-shot CLIP with one text per class, from the template of the dataset."""

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        return ZeroshotModel(clip_model, [self.class_texts(classnames)])


@TRAINER_REGISTRY.register()
class ZeroshotCLIP2(PromptTrainer):
    """Zero-shot CLIP with an ensemble of eight texts per class: seven templates, and that of the dataset."""

    def texts(self, classnames: list[str]) -> Iterator[tuple[list[str], int]]:
        for template in ENSEMBLE:
            yield [template.format(name) for name in classnames], 0
        yield from super().texts(classnames)

    def build_method(self, clip_model: CLIP, classnames: list[str]) -> PromptedCLIP:
        return ZeroshotModel(clip_model, [texts for texts, _ in self.texts(classnames)])
