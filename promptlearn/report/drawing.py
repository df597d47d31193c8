"""Pictures for the page: matplotlib figures as inline SVG whose colours are the page's, light or dark."""

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# A figure is drawn in these colours, which no data has, and each is then replaced by the page's variable of that name:
# so one drawing serves the light page, the dark one and the printed one. The second colour serves an SVG that was
# taken out of the page.
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
SERIES = 10  # colours of methods; page.css has as many. The first is zero-shot CLIP's.
MARKERS = "osD^vPX<>p"
LETTERS = 24  # of a name beside an axis

STYLE = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes the page's font
    "svg.hashsalt": "report",  # the same runs give the same page
    "text.parse_math": False,  # a dollar in a class's name is a dollar
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
class Picture:
    """A figure of the page."""

    svg: str
    title: str
    alt: str  # says in words what is seen, for those who do not see it
    wide: bool = False  # takes the page's whole width


def series(number: int) -> str:
    """The colour that a figure is drawn in for the method of that number."""
    return f"#2000{number % SERIES:02x}"


def draw(
    title: str, alt: str, size: tuple[float, float], paint: Callable[[Figure], None], wide: bool = False
) -> Picture:
    """Let `paint` draw on a figure of `size` (inches, at 72 points) and take it into the page."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # matplotlib only measures the text; a sign that its font lacks is in one of the reader's.
        warnings.filterwarnings("ignore", r"Glyph .* missing from font")
        figure = Figure(size, layout="constrained", facecolor="none")
        paint(figure)
        text = io.StringIO()
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None})
    return Picture(for_page(text.getvalue(), name=title), title, alt, wide)


def for_page(svg: str, name: str) -> str:
    """An SVG file's text as an element of the page: its colours the page's, its names its own."""
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
    """A name as it stands beside an axis."""
    return name if len(name) <= LETTERS else name[: LETTERS - 1] + "…"


def apart(heights: list[float], least: float) -> list[float]:
    """Heights for labels, near the given ones and in their order, no two nearer than `least`."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    placed: list[list[float]] = []  # runs of labels that touch: [sum of wanted first heights, number]
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
    """No frame, no ticks, no numbers."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
