"""Images of the demo world, drawn in batches by torch: a glyph in a color, before a cluttered background.

Everything random comes from the given generator; the global random state is neither read nor advanced.
Shifts, warps and widths are in units of half an image (an image spans [-1, 1]), angles in radians, colors in [0, 1].
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from .glyphs import Atlas

SIDE = 40  # pixels of an image
COLORS = {
    "red": (220, 30, 30), "orange": (245, 140, 20), "yellow": (240, 225, 40), "green": (30, 160, 50),
    "cyan": (40, 210, 220), "blue": (35, 60, 215), "purple": (130, 40, 170), "pink": (250, 130, 190),
    "brown": (120, 70, 30), "white": (245, 245, 245), "black": (18, 18, 18),
    "grey": (130, 130, 130),  # codespell:ignore grey
}  # fmt: skip
PHOTO, SKETCH, INK = 0, 1, 2  # what an image was made with
MEAN, STD = 0.5, 0.27  # what the tiny CLIP subtracts from pixels in [0, 1], and divides by


@dataclass(frozen=True)
class Style:
    """How images are made."""

    size: tuple[float, float]  # share of the image that the glyph's mask spans: least, most
    rotation: float  # largest angle
    shift: float  # largest shift beyond the edge
    warp: float  # deviation of a smooth displacement
    clutter: tuple[int, int]  # scraps of other glyphs: fewest, most
    clutter_opacity: float
    clouds: float  # largest deviation of the background's clouds
    noise: float  # deviation of the pixels' noise
    bar: float  # share of images that a bar crosses
    blur: float  # share of blurred images
    sketch: float = 0.0  # share of outlines on paper, of the images without ink
    ink: float = 0.0  # share of dark silhouettes on pale paper
    rendition: bool = False  # inverted, gray or in few tones, in equal shares


PRETRAINING = Style(
    size=(0.6, 0.98),
    rotation=0.22,
    shift=0.03,
    warp=0.03,
    clutter=(0, 2),
    clutter_opacity=0.7,
    clouds=0.13,
    noise=0.03,
    bar=0.0,
    blur=0.25,
    sketch=0.1,
    ink=0.2,
)
EASY = replace(PRETRAINING, ink=0.75)  # where pretraining starts: without it only colors are learned


def style(name: str = "plain", difficulty: float = 0.5) -> Style:
    """Return the style of a dataset: `plain`, `v2`, `sketch`, `adversarial` or `rendition`.

    Args:
        difficulty: in [0, 1]; 0 is about as easy as pretraining.
    """
    if not 0 <= difficulty <= 1:
        raise ValueError(f"difficulty must lie in [0, 1], got {difficulty}")
    d = difficulty
    plain = Style(
        size=(0.6 - 0.15 * d, 0.98 - 0.15 * d),
        rotation=0.22 + 0.25 * d,
        shift=0.03 + 0.07 * d,
        warp=0.03 + 0.06 * d,
        clutter=(round(3 * d), 2 + round(4 * d)),
        clutter_opacity=0.7 + 0.2 * d,
        clouds=0.13 + 0.17 * d,
        noise=0.03 + 0.06 * d,
        bar=0.4 * d,
        blur=0.4,
    )
    styles = {
        "plain": plain,
        "v2": replace(plain, rotation=0.3 + 0.4 * d, warp=0.05 + 0.07 * d, noise=0.05 + 0.08 * d),
        "sketch": replace(plain, clutter=(0, 2), sketch=1.0),
        "adversarial": replace(plain, size=(0.45, 0.75), clutter=(3, 6), clutter_opacity=1.0, bar=0.6),
        "rendition": replace(plain, clutter=(1, 3), rendition=True),
    }
    return styles[name]


class Renderer:
    """Draws glyphs of an atlas as images of `side` x `side` pixels."""

    def __init__(self, atlas: Atlas, side: int = SIDE):
        self.atlas = atlas
        self.side = side
        self.scraps = atlas.training_numbers()  # clutter shows no held-out font
        self.palette = torch.tensor(list(COLORS.values())) / 255
        line = torch.linspace(-1, 1, side)
        self.y, self.x = torch.meshgrid(line, line, indexing="ij")

    def render(self, glyphs: Tensor, colors: Tensor, style: Style, generator: Generator) -> tuple[Tensor, Tensor]:
        """Render one image for each glyph.

        Args:
            glyphs: (n,) int64 mask numbers of the atlas.
            colors: (n,) int64 positions in COLORS; ink, sketches and renditions do not keep them.

        Returns:
            (n, 3, side, side) float32 in [0, 1], and (n,) int64 of PHOTO, SKETCH or INK.
        """
        n, draw = len(glyphs), _Draw(generator)
        mask = self._place(glyphs, draw, style.size, style.rotation, style.shift, style.warp)
        color = (self.palette[colors] + 0.06 * draw.normal(n, 3)).clamp(0, 1)[..., None, None]
        background = self._background(colors, style, draw)

        ink = draw.yes(n, style.ink)
        sketch = draw.yes(n, style.sketch) & ~ink
        inked = ink[:, None, None, None]
        background = torch.where(inked, 0.9 + 0.1 * (background - 0.5), background)
        color = torch.where(inked, 0.25 * draw.uniform(n, 3, 1, 1), color)
        picture = background * (1 - mask) + color * mask
        if style.sketch:
            picture = torch.where(sketch[:, None, None, None], self._sketch(mask, background, draw), picture)
        if style.rendition:
            picture = self._rendition(picture, draw)
        if style.bar:
            bar = self._bar(n, draw) * draw.yes(n, style.bar)[:, None, None, None]
            picture = picture * (1 - bar) + bar * draw.uniform(n, 3, 1, 1)
        picture = torch.where(draw.yes(n, style.blur)[:, None, None, None], _blur(picture), picture)
        contrast = draw.between(n, 0.7, 1.15)[:, None, None, None]
        brightness = draw.between(n, -0.1, 0.1)[:, None, None, None]
        picture = (picture - 0.5) * contrast + 0.5 + brightness
        picture = (picture + style.noise * draw.normal(*picture.shape)).clamp(0, 1)
        return picture, PHOTO + (SKETCH - PHOTO) * sketch + (INK - PHOTO) * ink

    def _place(
        self, glyphs: Tensor, draw: "_Draw", size: tuple[float, float], rotation: float, shift: float, warp: float
    ) -> Tensor:
        """Move the masks by a random affine map and a smooth displacement: (n, 1, side, side) in [0, 1]."""
        n = len(glyphs)
        scale, angle = draw.between(n, *size), draw.between(n, -rotation, rotation)
        shear, aspect = draw.between(n, -0.15, 0.15), draw.between(n, 0.85, 1.18)
        room = (1 - scale).clamp(min=0) + shift
        x = self.x - (draw.between(n, -1, 1) * room)[:, None, None]
        y = self.y - (draw.between(n, -1, 1) * room)[:, None, None]
        cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
        u = (cos * x + sin * y) / (scale * aspect)[:, None, None] + shear[:, None, None] * y
        v = (cos * y - sin * x) / (scale / aspect)[:, None, None]
        grid = torch.stack([u, v], -1)
        if warp:
            grid = grid + self._smooth(warp * draw.normal(n, 2, 4, 4)).permute(0, 2, 3, 1)
        return F.grid_sample(self.atlas.masks[glyphs], grid, align_corners=False, padding_mode="zeros")

    def _background(self, colors: Tensor, style: Style, draw: "_Draw") -> Tensor:
        """Draw a color far from the glyph's, with clouds and scraps of other glyphs: (n, 3, side, side)."""
        n = len(colors)
        choices = draw.uniform(n, 4, 3)
        farthest = (choices - self.palette[colors][:, None]).abs().sum(-1).argmax(1)
        plain = choices[torch.arange(n), farthest][..., None, None]
        clouds = self._smooth(style.clouds * draw.normal(n, 3, 4, 4) * draw.uniform(n, 1, 1, 1))
        background = (plain + clouds).clamp(0, 1)
        fewest, most = style.clutter
        scraps = draw.integers(n, fewest, most + 1)
        for i in range(most):
            glyphs = self.scraps[draw.integers(n, 0, len(self.scraps))]
            scrap = self._place(glyphs, draw, (0.12, 0.3), math.pi, 0.25, warp=0.0)
            scrap = scrap * (scraps > i)[:, None, None, None] * style.clutter_opacity
            background = background * (1 - scrap) + scrap * draw.uniform(n, 3, 1, 1)
        return background

    def _sketch(self, mask: Tensor, background: Tensor, draw: "_Draw") -> Tensor:
        """Draw the mask's outline in dark ink on pale paper."""
        n = len(mask)
        outline = (1.2 * (F.max_pool2d(mask, 3, 1, 1) + F.max_pool2d(-mask, 3, 1, 1))).clamp(0, 1)
        pen = 0.35 * draw.uniform(n, 3, 1, 1)
        grain = background - background.mean((2, 3), keepdim=True)
        paper = 0.85 + 0.12 * draw.uniform(n, 3, 1, 1) + 0.35 * grain
        return paper * (1 - outline) + pen * outline

    def _rendition(self, picture: Tensor, draw: "_Draw") -> Tensor:
        """Invert a third of the images, gray out a third, and reduce a third to four tones per channel."""
        kind = draw.integers(len(picture), 0, 3)[:, None, None, None]
        gray = picture.mean(1, keepdim=True).expand_as(picture)
        toned = (picture * 3).round() / 3
        return torch.where(kind == 0, 1 - picture, torch.where(kind == 1, gray, toned))

    def _bar(self, n: int, draw: "_Draw") -> Tensor:
        """Draw a straight bar across each image: (n, 1, side, side) of 0 and 1."""
        angle, offset = draw.between(n, 0, math.pi)[:, None, None], draw.between(n, -0.5, 0.5)[:, None, None]
        width = draw.between(n, 0.03, 0.13)[:, None, None]
        return ((angle.cos() * self.x + angle.sin() * self.y - offset).abs() < width).float()[:, None]

    def _smooth(self, coarse: Tensor) -> Tensor:
        """Interpolate a coarse field smoothly over the image: (n, c, 4, 4) -> (n, c, side, side)."""
        return F.interpolate(coarse, size=(self.side, self.side), mode="bicubic", align_corners=True)


class _Draw:
    """Random numbers from one generator, by what they are used for."""

    def __init__(self, generator: Generator):
        self.generator = generator

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def between(self, n: int, low: float, high: float) -> Tensor:
        return low + (high - low) * self.uniform(n)

    def integers(self, n: int, low: int, high: int) -> Tensor:
        return torch.randint(low, high, (n,), generator=self.generator)

    def yes(self, n: int, share: float) -> Tensor:
        return self.uniform(n) < share


def _blur(picture: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(picture, (1, 1, 1, 1), mode="replicate"), 3, 1)


def to_bytes(pictures: Tensor) -> Tensor:
    """Convert images in [0, 1] to what the files hold: uint8 of the same shape."""
    return (pictures * 255).round().to(torch.uint8)


def normalize(pictures: Tensor) -> Tensor:
    """Normalize images in [0, 1] for the tiny CLIP."""
    return (pictures - MEAN) / STD
