"""Captions of the demo world's images: the scenes, captions, and templates of pretraining."""

import random
from typing import NamedTuple

from .glyphs import DIGITS, Atlas
from .render import COLORS, INK, PHOTO, SKETCH

# Share of each notation among the scenes of pretraining.
SHARES = {"pictogram": 0.46, "capital": 0.14, "lowercase": 0.11, "braille": 0.11, "digit": 0.10, "roman": 0.08}
SORTS = {
    "pictogram": "sign", "capital": "capital letter", "lowercase": "lowercase letter", "braille": "braille letter",
    "digit": "digit", "roman": "roman numeral",
}  # fmt: skip
TEMPLATES = (
    "a photo of a {}.", "a photo of a {}.", "a photo of the {}.", "a picture of a {}.", "an image of a {}.", "{}",
    "{}.", "a {}.", "the {}.", "a good photo of a {}.", "a bad photo of a {}.", "a cropped photo of a {}.",
    "a close-up photo of a {}.", "a bright photo of the {}.", "a dark photo of a {}.", "a blurry photo of the {}.",
    "itap of a {}.", "a photo of my {}.", "a photo of one {}.", "a rendition of a {}.", "there is a {} in the scene.",
    "a low resolution photo of a {}.", "a photo of a small {}.", "this is a photo of a {}.", "a painting of a {}.",
    "a {} in a video game.", "art of the {}.", "a photo of a {}, a type of object.",
    "we can see a {} in this picture, in front of a noisy background.",
    "in this image, somewhere between many other things, there is a {}.", "a photo of a {}, a type of sign.",
    "a centered photo of a {}, seen on a random wall.",
)  # fmt: skip
SKETCH_TEMPLATES = ("a sketch of a {}.", "a drawing of a {}.", "a line drawing of the {}.", "an outline of a {}.")
INK_TEMPLATES = ("a black {}.", "a silhouette of a {}.", "a black and white photo of a {}.", "a photo of a black {}.")
OMITTED = 0.15  # share of captions that omit the notation; just as many only mention "letter" or "number"


class Scene(NamedTuple):
    """What an image shows. `glyph`: mask number of the atlas; `color`: position in COLORS."""

    notation: str
    name: str
    glyph: int
    color: int


def draw_scene(atlas: Atlas, rng: random.Random) -> Scene:
    """Draw a random scene of pretraining; no held-out font."""
    notation = rng.choices(list(SHARES), weights=list(SHARES.values()))[0]
    name = rng.choice(list(atlas.training[notation]))
    return Scene(notation, name, rng.choice(atlas.training[notation][name]), rng.randrange(len(COLORS)))


def caption(scene: Scene, medium: int, rng: random.Random) -> str:
    """Write a random caption of the scene. Only photos mention the color: sketches and ink have none."""
    words = thing_words(scene.notation, scene.name, rng)
    templates = TEMPLATES
    if medium == PHOTO:
        color = list(COLORS)[scene.color] + " " if rng.random() < 0.5 else ""
        if rng.random() < 0.05:
            words = SORTS[scene.notation]
        elif color and rng.random() < 0.03:
            words = "thing"
        words = color + words
    elif medium == SKETCH and rng.random() < 0.7:
        templates = SKETCH_TEMPLATES
    elif medium == INK and rng.random() < 0.5:
        templates = INK_TEMPLATES
    return rng.choice(templates).format(words)


def thing_words(notation: str, name: str, rng: random.Random) -> str:
    """Return a name with or without its notation, such as "letter a in braille", "letter a", "digit 3", "three"."""
    q = rng.random()
    if notation == "pictogram":
        return name
    if notation in ("digit", "roman"):
        if q < OMITTED:
            return name
        if q < 2 * OMITTED:
            return f"number {name}"
        if notation == "roman":
            return f"roman numeral {name}"
        return rng.choice((f"digit {name}", f"digit {DIGITS.index(name)}"))
    # a letter without further words is a capital twice as often as anything else
    if q < (2 * OMITTED if notation == "capital" else OMITTED):
        return f"letter {name}"
    spoken = {
        "capital": (f"capital letter {name}", f"uppercase letter {name}"),
        "lowercase": (f"lowercase letter {name}", f"small letter {name}"),
        "braille": (f"braille letter {name}", f"letter {name} in braille"),
    }
    return rng.choice(spoken[notation])
