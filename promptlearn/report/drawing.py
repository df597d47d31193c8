"""Draws charts for the page: matplotlib figures as inline SVG in the colors of the page, light or dark."""

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Each figure is drawn in placeholder colors that no data uses, which are then replaced by the page's variables, so that
# one drawing works on the light, the dark and the printed page. The second color is for an SVG outside the page.
NAMED = {
    "ink": ("#100001", "#1b1f24"),
    "muted": ("#100002", "#6b7280"),
    "grid": ("#100003", "#d9dde3"),
    "paper": ("#100004", "#ffffff"),
    "learned": ("#100005", "#c2410c"),
    "frozen": ("#100006", "#1d6fb8"),
    "gain": ("#100007", "#15803d"),
    "loss": ("#100008", "#b91c1c"),
}
INK, MUTED, GRID, PAPER, LEARNED, FROZEN, GAIN, LOSS = (drawn for drawn, _ in NAMED.values())
SERIES = 10  # colors of methods, as many as in page.css; the first is zero-shot CLIP's
MARKERS = "osD^vPX<>p"
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (5, 1.5, 1.5, 1.5)))  # of lines; each takes one round of colors
LETTERS = 24  # of a name next to an axis

STYLE = {
    "svg.fonttype": "none",  # text can be searched and uses the page's font
    "svg.hashsalt": "report",  # the same runs give the same page
    "text.parse_math": False,  # a dollar sign in a class name is literal
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.facecolor": "none",
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
}


@dataclass(frozen=True)
class Chart:
    """A chart of the page."""

    svg: str
    title: str
    alt: str  # description for readers who cannot see it
    wide: bool = False  # takes the full width of the page


def series(number: int) -> str:
    """Return the placeholder color of the method with that number."""
    return f"#2000{number % SERIES:02x}"


def looks(number: int) -> dict[str, object]:
    """Return color, marker, and dashes of the line of the method with that number: those of 40 methods differ."""
    again = number // SERIES
    marker = MARKERS[(number + again) % len(MARKERS)]
    return {"color": series(number), "marker": marker, "linestyle": DASHES[again % len(DASHES)]}


def draw(title: str, alt: str, size: tuple[float, float], paint: Callable[[Figure], None], wide: bool = False) -> Chart:
    """Call `paint` with a figure of `size` (inches, at 72 points) and convert it for the page."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # matplotlib only measures the text; the reader's fonts may have a glyph that is missing here.
        warnings.filterwarnings("ignore", r"Glyph .* missing from font")
        figure = Figure(size, layout="constrained", facecolor="none")
        paint(figure)
        text = io.StringIO()
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None})
    return Chart(for_page(text.getvalue(), name=title), title, alt, wide)


def for_page(svg: str, name: str) -> str:
    """Convert an SVG file to an element of the page, with the page's colors and ids that start with its name."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    width, height = (float(re.search(rf'{side}="([\d.]+)pt"', svg)[1]) for side in ("width", "height"))
    own = re.sub(r"\W+", "-", name.lower())
    svg = re.sub(r'\bid="', f'id="{own}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{own}-", svg)
    head = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" aria-hidden="true" '
    head += f'viewBox="0 0 {width:g} {height:g}" style="max-width: {width:g}pt">'
    svg = re.sub(r"<svg.*?>", lambda _: head, svg, count=1, flags=re.DOTALL)
    for variable, (drawn, otherwise) in NAMED.items():
        svg = svg.replace(drawn, f"var(--{variable}, {otherwise})")
    return re.sub(r"#2000([\da-f]{2})", lambda found: f"var(--s{int(found[1], 16)}, #1b1f24)", svg)


def short(name: str) -> str:
    """Shorten a name to fit next to an axis."""
    return name if len(name) <= LETTERS else name[: LETTERS - 1] + "…"


def spread_out(heights: list[float], least: float) -> list[float]:
    """Spread labels: as near to the given heights as possible, in the same order, at least `least` apart."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    placed: list[list[float]] = []  # sequences of touching labels: [sum of wanted first heights, number]
    for i, index in enumerate(order):
        placed.append([heights[index] - i * least, 1])
        while len(placed) > 1 and placed[-2][0] / placed[-2][1] > placed[-1][0] / placed[-1][1]:
            total, count = placed.pop()
            placed[-1][0] += total
            placed[-1][1] += count
    starts = [total / count for total, count in placed for _ in range(int(count))]
    result = [0.0] * len(heights)
    for i, index in enumerate(order):
        result[index] = starts[i] + i * least
    return result


def plain_axes(axes: Axes) -> None:
    """Remove frame, ticks and numbers."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def tiles(figure: Figure, count: int, columns: int, **options: bool) -> list[Axes]:
    """Divide a figure into `count` panels, `columns` in a row; `options` are those of matplotlib's subplots."""
    panels = list(figure.subplots(-(-count // columns), columns, squeeze=False, **options).flat)
    for unused in panels[count:]:
        unused.set_visible(False)
    return panels[:count]


def name_cells(axes: Axes, rows: list[str], columns: list[str]) -> None:
    """Name the rows and columns of a matrix, which has neither frame nor ticks."""
    plain_axes(axes)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)
