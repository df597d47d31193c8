"""The atlas of the demo world: what exists in it, by notation and name, and how each thing looks.

A glyph is a mask of 56 x 56 pixels. All masks lie on one sheet, `atlas.png`; `atlas.json` says which masks belong to
which (notation, name). Both files ship with the project, because font and Pillow versions change pixels: the world
must not change with them. `python -m datasets.demo.glyphs` redraws both from the fonts that come with matplotlib.

The same name exists in several notations on purpose ("letter a" as a capital, in lower case and in braille; "three"
as a digit and as a roman numeral): a prompt's context then has something to decide.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from basics import write_atomic

SIDE = 56  # pixels of a mask, well above the 40 of an image: placing it only ever shrinks it
FILL = 0.92  # the longer side of a drawn character, as a share of SIDE
SHEET_COLUMNS = 40
SHEET = Path(__file__).with_name("atlas.png")
INDEX = Path(__file__).with_name("atlas.json")

# Characters of DejaVu Sans that show the same thing are variants of one name.
PICTOGRAMS = {
    "star": "★☆✭✯", "heart": "♥♡❤", "airplane": "✈", "scissors": "✂✄", "telephone": "☎☏", "umbrella": "☂☔",
    "snowflake": "❄❅❆", "flower": "✿❀✾", "envelope": "✉", "pencil": "✏✎", "sun": "☀☼", "moon": "☾☽", "cloud": "☁",
    "anchor": "⚓", "skull": "☠", "snowman": "☃", "flag": "⚑⚐", "gear": "⚙", "scales": "⚖", "swords": "⚔",
    "hammer": "⚒", "king": "♚♔", "queen": "♛♕", "rook": "♜♖", "bishop": "♝♗", "horse": "♞♘", "pawn": "♟♙",
    "spade": "♠♤", "club": "♣♧", "diamond": "♦♢", "music note": "♪♫♬", "cup": "☕", "radiation sign": "☢",
    "yin yang": "☯", "peace sign": "☮", "happy face": "☺☻", "sad face": "☹", "check mark": "✓✔", "arrow": "➔➤➙➜",
    "cross": "✚✝✙", "dice": "⚂⚃⚄⚅", "triangle": "▲△", "circle": "●○", "square": "■□", "hexagon": "⬢⬡",
    "pentagon": "⬟⬠", "wheelchair": "♿", "recycling sign": "♻", "warning sign": "⚠", "atom": "⚛", "lily": "⚜",
    "keyboard": "⌨", "comet": "☄", "victory hand": "✌", "pointing hand": "☞☛",
    "writing hand": "✍", "mouse": "🐭", "cow": "🐮", "coffin": "⚰", "hot springs": "♨",
    "dollar": "$", "euro": "€", "percent": "%", "ampersand": "&", "question mark": "?",
    "infinity": "∞", "eject button": "⏏", "house": "⌂", "hand": "☝", "fan": "✇", "caduceus": "☤",
    "sickle": "☭", "key": "⚷", "medal": "✪",
}  # fmt: skip
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ROMAN = {
    "one": "I", "two": "II", "three": "III", "four": "IV", "five": "V",
    "six": "VI", "seven": "VII", "eight": "VIII", "nine": "IX", "ten": "X",
}  # fmt: skip
# Raised dots of a to z; dots 1 2 3 run down the left column, 4 5 6 down the right one.
BRAILLE_DOTS = (
    "1 12 14 145 15 124 1245 125 24 245 13 123 134 1345 135 1234 12345 1235 234 2345 136 1236 2456 1346 13456 1356"
).split()
BRAILLE_RADII = ((7.5, 2.2), (6.5, 1.5), (8.0, 3.0))  # raised and flat dots of each variant, pixels of the mask

PICTOGRAM_FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")
TRAINING_FONTS = (
    "DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSans-Oblique.ttf", "DejaVuSansMono.ttf", "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf", "DejaVuSansMono-BoldOblique.ttf", "STIXGeneral.ttf", "STIXGeneralBol.ttf",
    "STIXGeneralItalic.ttf", "cmr10.ttf", "cmb10.ttf", "cmss10.ttf", "cmtt10.ttf",
)  # fmt: skip
HELD_OUT_FONTS = (
    "DejaVuSerif-Italic.ttf", "STIXGeneralBolIta.ttf", "DejaVuSerif-BoldItalic.ttf", "DejaVuSans-BoldOblique.ttf",
)  # fmt: skip


def written_notations() -> dict[str, dict[str, str]]:
    """Return {notation: {name: characters to draw}} for every notation that is written in a font."""
    return {
        "digit": {name: str(value) for value, name in enumerate(DIGITS)},
        "roman": ROMAN,
        "capital": {name: name.upper() for name in LETTERS},
        "lowercase": {name: name for name in LETTERS},
    }


@dataclass(frozen=True)
class Atlas:
    """All masks, and which of them show what.

    masks: (N, 1, 56, 56) float32 in [0, 1]. training, held_out: notation -> name -> mask numbers; `held_out` has only
    the notations that are written in a font, drawn in fonts that pretraining never sees.
    """

    masks: torch.Tensor
    training: dict[str, dict[str, list[int]]]
    held_out: dict[str, dict[str, list[int]]]

    def training_numbers(self) -> torch.Tensor:
        """Return every mask number that pretraining may see, ascending: (M,) int64."""
        return torch.tensor(sorted(n for names in self.training.values() for ids in names.values() for n in ids))


@cache
def load_atlas() -> Atlas:
    """Read the shipped atlas."""
    index = json.loads(INDEX.read_text(encoding="utf-8"))
    sheet = torch.from_numpy(np.array(Image.open(SHEET), dtype=np.float32) / 255)
    rows, columns = sheet.shape[0] // SIDE, sheet.shape[1] // SIDE
    masks = sheet.view(rows, SIDE, columns, SIDE).transpose(1, 2).reshape(-1, 1, SIDE, SIDE)[: index["masks"]]
    return Atlas(masks.contiguous(), index["training"], index["held_out"])


def draw_atlas() -> tuple[np.ndarray, dict]:
    """Draw every glyph from matplotlib's fonts: masks (N, 56, 56) uint8, and the index as atlas.json holds it."""
    masks: list[np.ndarray] = []
    training: dict[str, dict[str, list[int]]] = {}
    held_out: dict[str, dict[str, list[int]]] = {}

    def add(group: dict, notation: str, name: str, variants: Iterator[np.ndarray]) -> None:
        first = len(masks)
        masks.extend(variants)
        group.setdefault(notation, {})[name] = list(range(first, len(masks)))

    seen: set[bytes] = set()
    for name, characters in PICTOGRAMS.items():
        add(training, "pictogram", name, _pictograms(characters, seen))
    for notation, names in written_notations().items():
        for group, fonts in ((training, TRAINING_FONTS), (held_out, HELD_OUT_FONTS)):
            for name, characters in names.items():
                add(group, notation, name, (_character(characters, font) for font in fonts))
    for name, dots in zip(LETTERS, BRAILLE_DOTS, strict=True):
        add(training, "braille", name, (_braille(dots, raised, flat) for raised, flat in BRAILLE_RADII))
    return np.stack(masks), {"masks": len(masks), "training": training, "held_out": held_out}


def _pictograms(characters: str, seen: set[bytes]) -> Iterator[np.ndarray]:
    """List the characters in both fonts, without those that the bold font draws as the regular one does."""
    for character in characters:
        for font in PICTOGRAM_FONTS:
            if _has(font, character):
                mask = _character(character, font)
                if mask.tobytes() not in seen:
                    seen.add(mask.tobytes())
                    yield mask


def _fonts() -> Path:
    import matplotlib  # only drawing the atlas needs it, reading does not

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def _has(font: str, character: str) -> bool:
    from matplotlib.ft2font import FT2Font

    return FT2Font(str(_fonts() / font)).get_char_index(ord(character)) != 0


def _character(characters: str, font: str) -> np.ndarray:
    """Draw characters, cropped, scaled to FILL, and centered: (56, 56) uint8."""
    canvas = Image.new("L", (400, 400), 0)
    ImageDraw.Draw(canvas).text((110, 90), characters, font=ImageFont.truetype(str(_fonts() / font), 150), fill=255)
    ink = canvas.crop(canvas.getbbox())
    scale = FILL * SIDE / max(ink.size)
    # a thin stroke keeps at least three pixels
    ink = ink.resize((max(3, int(ink.width * scale)), max(3, int(ink.height * scale))), Image.Resampling.LANCZOS)
    mask = Image.new("L", (SIDE, SIDE), 0)
    mask.paste(ink, ((SIDE - ink.width) // 2, (SIDE - ink.height) // 2))
    return np.asarray(mask)


def _braille(dots: str, raised: float, flat: float) -> np.ndarray:
    """Draw one braille cell at twice the size and shrink it for smooth edges: (56, 56) uint8."""
    canvas = Image.new("L", (2 * SIDE, 2 * SIDE), 0)
    draw = ImageDraw.Draw(canvas)
    for dot in range(6):
        x, y = 38 + 36 * (dot // 3), 20 + 36 * (dot % 3)
        radius = 1.9 * (raised if str(dot + 1) in dots else flat)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def write_atlas() -> None:
    """Redraw the atlas and write atlas.png and atlas.json next to this file."""
    masks, index = draw_atlas()
    rows = -(-len(masks) // SHEET_COLUMNS)
    sheet = np.zeros((rows * SHEET_COLUMNS, SIDE, SIDE), dtype=np.uint8)
    sheet[: len(masks)] = masks
    sheet = sheet.reshape(rows, SHEET_COLUMNS, SIDE, SIDE).transpose(0, 2, 1, 3)
    png = io.BytesIO()
    Image.fromarray(sheet.reshape(rows * SIDE, SHEET_COLUMNS * SIDE)).save(png, "PNG", optimize=True)
    write_atomic(SHEET, png.getvalue())
    lines = [f'"masks": {index["masks"]}']
    for group in ("training", "held_out"):
        names = ",\n".join(f"  {json.dumps(notation)}: {json.dumps(ids)}" for notation, ids in index[group].items())
        lines.append(f'"{group}": {{\n{names}\n}}')
    write_atomic(INDEX, ("{" + ",\n".join(lines) + "}\n").encode())


if __name__ == "__main__":
    write_atlas()
