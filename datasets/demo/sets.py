"""The rendered datasets of the demo: glyphs as few-shot datasets and their shifted styles.

Letters and roman numerals are written in fonts that the tiny CLIP never saw. Class names leave the notation out
("letter a", "three"), as the captions of pretraining sometimes do; the prompt of a dataset names it.
"""

import torch
from torch import Tensor

from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import stream

from .glyphs import LETTERS, PICTOGRAMS, ROMAN, load_atlas
from .render import COLORS, Renderer, style, to_bytes
from .store import SEED, DemoDataset

LETTER_NAMES = tuple(f"letter {letter}" for letter in LETTERS)


class GlyphDataset(DemoDataset):
    """Images of one glyph each.

    notation, held_out_fonts: which glyphs of the atlas. things: for each class, the atlas's name of it. colors: for
    each class, its color; empty: any. style: how the images are made.
    """

    notation: str
    held_out_fonts = False
    things: tuple[str, ...]
    colors: tuple[str, ...] = ()
    style = style("plain")

    @classmethod
    def pictures(cls, split: str, label: int) -> Tensor:
        atlas = load_atlas()
        generator = stream(SEED, "demo", cls.dataset_dir, split, cls.names[label])
        fonts = atlas.held_out if cls.held_out_fonts else atlas.training
        variants = torch.tensor(fonts[cls.notation][cls.things[label]])
        n = cls.counts[split]
        glyphs = variants[torch.randint(len(variants), (n,), generator=generator)]
        if cls.colors:
            colors = torch.full((n,), list(COLORS).index(cls.colors[label]))
        else:
            colors = torch.randint(len(COLORS), (n,), generator=generator)
        return to_bytes(Renderer(atlas).render(glyphs, colors, cls.style, generator)[0])


@DATASET_REGISTRY.register()
class Letters(GlyphDataset):
    """Lower-case letters in fonts that the tiny CLIP never saw: the source of the domain shifts below."""

    dataset_dir = "letters"
    prompt = "a photo of a lowercase {}."
    notation = "lowercase"
    held_out_fonts = True
    things = LETTERS
    names = LETTER_NAMES


@DATASET_REGISTRY.register()
class LettersV2(Letters):
    """Lower-case letters, more turned, warped and noisy."""

    dataset_dir = "letters_v2"
    style = style("v2")


@DATASET_REGISTRY.register()
class LettersSketch(Letters):
    """Outlines of lower-case letters on paper."""

    dataset_dir = "letters_sketch"
    style = style("sketch")


@DATASET_REGISTRY.register()
class LettersAdversarial(Letters):
    """Small lower-case letters in dense clutter."""

    dataset_dir = "letters_adversarial"
    style = style("adversarial")


@DATASET_REGISTRY.register()
class LettersRendition(Letters):
    """Lower-case letters, inverted, gray or in few tones."""

    dataset_dir = "letters_rendition"
    style = style("rendition")


@DATASET_REGISTRY.register()
class Braille(GlyphDataset):
    """Braille letters: the names of `Letters` in another notation."""

    dataset_dir = "braille"
    prompt = "a photo of a {} in braille."
    notation = "braille"
    things = LETTERS
    names = LETTER_NAMES


@DATASET_REGISTRY.register()
class Capitals(GlyphDataset):
    """Capital letters in fonts that the tiny CLIP never saw."""

    dataset_dir = "capitals"
    prompt = "a photo of a capital {}."
    notation = "capital"
    held_out_fonts = True
    things = LETTERS
    names = LETTER_NAMES


@DATASET_REGISTRY.register()
class RomanNumerals(GlyphDataset):
    """Roman numerals from one to ten in fonts that the tiny CLIP never saw."""

    dataset_dir = "roman_numerals"
    prompt = "a photo of a roman numeral {}."
    notation = "roman"
    held_out_fonts = True
    things = tuple(ROMAN)
    names = tuple(ROMAN)


@DATASET_REGISTRY.register()
class Pictograms(GlyphDataset):
    """Fifty pictograms: a target of cross-data-set runs."""

    dataset_dir = "pictograms"
    prompt = "a photo of a {}."
    notation = "pictogram"
    things = tuple(PICTOGRAMS)[:50]
    names = things


@DATASET_REGISTRY.register()
class ColourShape(GlyphDataset):
    """Attributes: a shape in a color, such as "red star". The base classes are the first three shapes."""

    SHAPES = ("star", "heart", "moon", "flower", "umbrella", "cloud")
    SHADES = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")

    dataset_dir = "colour_shape"
    prompt = "a photo of a {}."
    notation = "pictogram"
    things = tuple(shape for shape in SHAPES for _ in range(8))
    colors = SHADES * 6
    names = tuple(f"{color} {shape}" for color, shape in zip(colors, things, strict=True))
