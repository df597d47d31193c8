"""The built-in demo: a procedural world that the tiny CLIP is trained on, and datasets that need no download.

glyphs    what exists in the world and how it looks (the atlas)
render    images of it
captions  its captions in pretraining
store     demo datasets as image files
sets      the rendered datasets
digits    real handwritten digits
"""

from .digits import Digits
from .sets import (
    Braille,
    Capitals,
    ColourShape,
    Letters,
    LettersAdversarial,
    LettersRendition,
    LettersSketch,
    LettersV2,
    Pictograms,
    RomanNumerals,
)

DEMO_SETS = (
    Digits,
    Letters,
    LettersV2,
    LettersSketch,
    LettersAdversarial,
    LettersRendition,
    Braille,
    ColourShape,
    Capitals,
    RomanNumerals,
    Pictograms,
)
__all__ = ["DEMO_SETS", *(data_set.__name__ for data_set in DEMO_SETS)]
