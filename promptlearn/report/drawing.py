"""Draws charts: matplotlib figures as inline SVG in the colors of the page, light or dark, and as files for a paper."""

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import get_named_colors_mapping
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

# Each figure is drawn in placeholder colors that no data uses, which are then replaced by the page's variables, so that
# one drawing works on the light, the dark and the printed page. An SVG outside the page gets their light values.
NAMES = ("ink", "muted", "grid", "paper", "learned", "frozen", "gain", "loss")
DRAWN = {name: f"#10{number:04x}" for number, name in enumerate(NAMES, start=1)}
INK, MUTED, GRID, PAPER, LEARNED, FROZEN, GAIN, LOSS = DRAWN.values()
SERIES = 10  # colors of methods, as many as in page.css; the first is zero-shot CLIP's
DRAWN |= {f"s{number}": f"#2000{number:02x}" for number in range(SERIES)}
CSS = files(__package__).joinpath("page.css").read_text("utf-8")
LIGHT = {name: color for name, color in re.findall(r"--(\w+): light-dark\((#\w{6}),", CSS) if name in DRAWN}
MARKERS = "osD^vPX<>p"
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (5, 1.5, 1.5, 1.5)))  # of lines; each takes one round of colors
LETTERS = 24  # of a name next to an axis
WIDTH, HALF, THIRD = 10.6, 5.2, 3.4  # inches: widths of charts on the page
PAPER_TEXT = 8  # points
SVG_DPI = 72  # of matplotlib: a point is its unit
APART = "\N{INVISIBLE SEPARATOR}"

STYLE = {
    "svg.fonttype": "none",  # text can be searched and uses the page's font
    "svg.hashsalt": "report",  # the same runs give the same page
    "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3
    "text.parse_math": False,  # a dollar sign in a class name is literal
    "font.size": 9.5,  # of all text but titles, so that it stays readable where a narrow page shrinks the chart
    "xtick.labelsize": "medium",
    "ytick.labelsize": "medium",
    "axes.titlesize": "large",
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
    "savefig.dpi": 300,
}


@dataclass(frozen=True)
class Chart:
    """A chart: what it says, and how it is painted.

    Attributes:
        title, alt: the heading, and a description for readers who cannot see it.
        size: width and height on the page, in inches.
        paint: draws it on a figure.
        dataset, method: what alone it shows; empty if it compares several.
        rigid: whether the text keeps its size relative to the rest.
    """

    title: str
    alt: str
    size: tuple[float, float]
    paint: Callable[[Figure], None]
    dataset: str = ""
    method: str = ""
    rigid: bool = False

    @property
    def name(self) -> str:
        """The name of its file, and of its ids on the page."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")

    @property
    def is_wide(self) -> bool:
        """Whether it needs the whole width of the page."""
        return self.size[0] > HALF

    @property
    def columns(self) -> int:
        """How many of the page's six columns it takes."""
        return 2 if self.size[0] <= THIRD else 6 if self.is_wide else 3

    @cached_property
    def svg(self) -> str:
        """The element of the page."""
        return for_page(self.render("svg", self.size, STYLE).decode(), self.name)

    def file(self, form: str, width: float) -> bytes:
        """Return it as a file for a paper (pdf, svg, png), `width` inches wide."""
        scale = width / self.size[0] if self.rigid else PAPER_TEXT / STYLE["font.size"]
        colors = get_named_colors_mapping()
        try:
            for name, drawn in DRAWN.items():  # matplotlib looks for names before it reads "#..." as a number
                colors[drawn] = LIGHT[name]
            own = STYLE | {"font.size": scale * STYLE["font.size"], "lines.markersize": scale * 6}
            found = self.render(form, (width, scale * self.size[1]), own)
        finally:
            for drawn in DRAWN.values():
                del colors[drawn]
        return without_marks(found.decode()).encode() if form == "svg" else found

    def render(self, form: str, size: tuple[float, float], style: dict) -> bytes:
        with matplotlib.rc_context(style), warnings.catch_warnings():
            # The reader's fonts may have a glyph that is missing here.
            warnings.filterwarnings("ignore", r"Glyph .* missing from font")
            figure = Figure(size, layout="constrained", facecolor="none" if form == "svg" else PAPER)
            self.paint(figure)
            if form == "svg":  # make room for the texts here: savefig would draw the whole figure a second time for it
                FigureCanvasSVG(figure)
                figure.set_dpi(SVG_DPI)
                figure.get_layout_engine().execute(figure)
                figure.set_layout_engine("none")
            content = io.BytesIO()
            dated = {"svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None}, "png": {}}
            figure.savefig(content, format=form, metadata=dated[form])
        return content.getvalue()


def series(number: int) -> str:
    """Return the placeholder color of the method with that number."""
    return DRAWN[f"s{number % SERIES}"]


def looks(number: int) -> dict[str, object]:
    """Return color, marker, and dashes of the line of the method with that number: those of 40 methods differ."""
    again = number // SERIES
    marker = MARKERS[(number + again) % len(MARKERS)]
    return {"color": series(number), "marker": marker, "linestyle": DASHES[again % len(DASHES)]}


def mark(artist: Artist, text: str, method: str = "") -> None:
    """Show `text` where the pointer is on the artist; the page can leave out those of a `method`."""
    artist.set_gid(f"mark{APART}{method}{APART}{text}")


MARK = re.compile(f'<g id="mark{APART}([^"{APART}]*){APART}([^"]*)">')


def without_marks(svg: str) -> str:
    return MARK.sub("<g>", svg)


def for_page(svg: str, own: str) -> str:
    """Convert an SVG file to an element of the page, with the page's colors and ids that start with its `own` name."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    width, height = (float(re.search(rf'{side}="([\d.]+)pt"', svg)[1]) for side in ("width", "height"))
    svg = MARK.sub(lambda found: f'<g data-method="{found[1]}">' + (f"<title>{found[2]}</title>" * bool(found[2])), svg)
    svg = re.sub(r'<g id="\w+">', "<g>", svg)  # nothing refers to a group
    svg = re.sub(r'\bid="', f'id="{own}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{own}-", svg)
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), svg)  # a hundredth of a point
    head = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" aria-hidden="true" '
    head += f'viewBox="0 0 {width:g} {height:g}" style="--width: {width:g}pt">'
    svg = re.sub(r"<svg.*?>", lambda _: head, svg, count=1, flags=re.DOTALL)
    for name, drawn in DRAWN.items():
        svg = svg.replace(drawn, f"var(--{name}, {LIGHT[name]})")
    return svg


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


def add_cell(axes: Axes, cell: Rectangle, text: str, method: str = "") -> None:
    """Add and mark a cell of a matrix. Its axes have limits of their own, so none are looked for, which takes time."""
    mark(axes.add_artist(cell), text, method)


def write_inside(axes: Axes, x: float, y: float, text: object, **look) -> Text:
    """Write a text inside the axes. It does not count when room is made around them, which takes time, too."""
    return axes.text(x, y, text, ha="center", va="center", in_layout=False, **look)


def name_cells(axes: Axes, rows: list[str], columns: list[str]) -> None:
    """Name the rows and columns of a matrix, which has neither frame nor ticks."""
    plain_axes(axes)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)
