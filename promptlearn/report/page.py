"""The page: the sections of a comparison, and their HTML."""

import base64
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

import dassl
from promptlearn.experiments.protocols import PROTOCOLS, ZERO_SHOT
from promptlearn.experiments.requested_datasets import OWN_REGISTERED
from promptlearn.experiments.results_table import AVERAGE, H_OF_SEEDS, NOTES, at_equal_shots, notes_on
from promptlearn.experiments.significance import ALPHA, compare, friedman, scores_of
from promptlearn.experiments.significance_text import measures, notes_on_pairs, notes_on_ranks
from promptlearn.report import charts, html_tables, model_charts, predictions
from promptlearn.report.ahead import draw_all
from promptlearn.report.drawing import CSS, SERIES, Chart
from promptlearn.report.explanations import MAX_METHODS, Explanation, models, read_explanation
from promptlearn.report.html_tables import Table
from promptlearn.report.predictions import Example
from promptlearn.report.runs import Comparison
from promptlearn.report.significance_charts import critical_difference_diagram, difference_matrix

DEMO_BACKBONE = "tiny"


@dataclass(frozen=True)
class Gallery:
    """Example images of one method; `method` is its number."""

    title: str
    method: int
    examples: dict[str, list[Example]]


@dataclass
class Section:
    """A section of the page; what is empty is left out."""

    title: str
    text: list[str]
    charts: list[Chart] = field(default_factory=list)
    more: list[Chart] = field(default_factory=list)  # behind a click
    tables: list[Table] = field(default_factory=list)
    galleries: list[Gallery] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # runs
    dataset: str = ""  # the only one it is about

    @property
    def id(self) -> str:
        title = f"{self.title} {self.dataset}".strip().lower()
        return "".join(letter if letter.isalnum() else "-" for letter in title)

    @property
    def is_empty(self) -> bool:
        return not (self.charts or self.tables or self.galleries)


@dataclass(frozen=True)
class Part:
    """What the page shows together: one section for all datasets, or all sections on one dataset.

    Attributes:
        opened: whether the sections on a dataset are shown without a click.
    """

    title: str
    sections: list[Section]
    dataset: str = ""
    opened: bool = True

    @property
    def id(self) -> str:
        return self.sections[0].id if not self.dataset else f"dataset-{self.sections[0].id}"


def parts_of(comparison: Comparison, dataset: str) -> list[Part]:
    """Return all parts that there are runs for. `dataset`: the one whose sections are open."""
    parts = [Part(s.title, [s]) for s in overview(comparison) if not s.is_empty]
    for name in [dataset, *(each for each in comparison.datasets if each != dataset)]:
        found = [s for s in (*in_detail(comparison, name), *model_sections(comparison, name)) if not s.is_empty]
        for section in found:
            section.dataset = name
        parts += [Part(f"In detail: {name}", found, name, opened=name == dataset)] if found else []
        comparison.forget_predictions()
    return parts + [Part(s.title, [s]) for s in (every_run(comparison), settings(comparison))]


def charts_of(comparison: Comparison) -> list[Chart]:
    """Return all charts of the page."""
    sections = [section for part in parts_of(comparison, comparison.datasets[0]) for section in part.sections]
    return [chart for section in sections for chart in (*section.charts, *section.more)]


def overview(comparison: Comparison) -> Iterator[Section]:
    """Build the section on accuracy over all datasets and seeds."""
    table, only = html_tables.accuracies(comparison), with_most_shots(comparison)
    text = sentences(notes_on(comparison.lines, table.header))
    text += " Bold: the best on its dataset among equal shots. Click a heading to sort."
    yield Section("Results", [text], tables=[table])
    if comparison.protocol.harmonic:
        text = "The gain on the base classes, and what it costs on the new ones." + only
        yield Section("Base vs. new", [text], *first_and_more(charts.base_and_new(comparison)))
    if len(comparison.shots) > 1:
        text = (
            "Mean over the available seeds; the band is one standard deviation each way. Dashed from side to side: "
            "methods that train nothing."
        )
        yield Section("Few-shot curves", [text], *first_and_more(charts.curves(comparison)))
    figures = [figure for dataset in comparison.datasets for figure in charts.spread(comparison, dataset)]
    text = (
        f"Each dot is a run. With {charts.FEWEST_BOXED} runs or more, a box shows quartiles and median, and whiskers "
        "the last run within 1.5 interquartile ranges." + only
    )
    yield Section("Spread over the seeds", [text], *first_and_more(figures))
    yield statistical(comparison)
    text = "Medians over the training runs. Dashed: methods that train nothing. The process itself takes memory, too."
    yield Section("Accuracy and its costs", [text + only], charts.costs(comparison))
    table = html_tables.calibration(comparison)
    text = f"{NOTES['ECE']}. Diagrams are in the sections on each dataset."
    yield Section("Calibration", [text[0].upper() + text[1:]], tables=[table] if table else [])


def first_and_more(figures: list[Chart]) -> tuple[list[Chart], list[Chart]]:
    """Divide charts: the average, or else the first dataset, and those to show on demand."""
    first = [figure for figure in figures if figures[0].dataset == figure.dataset]
    return first, [figure for figure in figures if figure not in first]


def with_most_shots(comparison: Comparison) -> str:
    """Return a sentence for the sections that show one of several numbers of shots."""
    most = comparison.most_shots
    return f" Only runs with {most} are shown here; other shots are in the tables." if most else ""


def sentences(notes: list[str]) -> str:
    return " ".join(f"{note[0].upper()}{note[1:]}." for note in notes)


def statistical(comparison: Comparison) -> Section:
    """Build the section on significance tests."""
    groups = at_equal_shots(line for line in comparison.lines if line.row.dataset != AVERAGE)
    section, diagrams, every_pair, every_scores = Section("Are the differences real?", []), [], [], []
    for shots, lines in groups.items():
        for measure in measures(comparison.protocol, lines):
            scores = scores_of(lines, measure)
            if not 2 <= len(scores) <= MAX_METHODS:
                continue
            what = f"{measure}, {shots}" if len(groups) > 1 else measure
            found, ranks = compare(scores), friedman(scores)
            section.charts.append(difference_matrix(comparison, found, what))
            section.tables.append(html_tables.differences(comparison, found, what))
            every_pair.append(found)
            every_scores.append(scores)
            if ranks and ranks.p <= ALPHA:
                diagrams.append(critical_difference_diagram(comparison, ranks, what))
            if ranks:
                result = (
                    f"Friedman's test of {what}, {len(scores)} methods: p = {ranks.p:.4f}, over {ranks.n} datasets."
                )
                result += " No method differs significantly from another." if ranks.p > ALPHA else ""
                section.text.append(result)
    section.charts += diagrams
    notes = [NOTES[H_OF_SEEDS]] if comparison.protocol.harmonic else []
    text = sentences(notes + notes_on_pairs(every_pair) + notes_on_ranks(every_scores))
    tested = any(pair.p is not None for pairs in every_pair for pair in pairs)
    text += f" Filled squares and bold figures: p is at most {ALPHA}." if tested else ""
    bars = " A bar in a diagram joins methods whose mean ranks differ by less than the critical difference."
    section.text.insert(0, text + (bars if diagrams else ""))
    return section


def in_detail(comparison: Comparison, dataset: str) -> Iterator[Section]:
    """Build the sections on classes and images of one dataset."""
    only = with_most_shots(comparison)
    text = "A line per training run. Losses of different methods are not on one scale." + only
    yield Section("Learning curves", [text], charts.learning_curves(comparison, dataset))
    if comparison.zero_shot:
        figure = predictions.class_gains(comparison, dataset)
        text = "Percentage points, mean over the seeds. A line separates the classes of two tests." + only
        yield Section("Gains and losses per class", [text], [figure] if figure else [])
    methods = comparison.methods[:MAX_METHODS]
    stages = comparison.stages[: predictions.MAX_STAGES]
    figures = [p for stage in stages for p in predictions.confusions(comparison, methods, dataset, stage)]
    first = {m: found[0] for m in methods if (found := comparison.select(m, dataset, stages[-1]))}
    pairs = {method: predictions.frequent_confusions(run) for method, run in first.items()}
    listed = [html_tables.confusions(comparison, pairs, stages[-1])] if any(pairs.values()) else []
    models_of = f"models trained on {dataset}" if comparison.protocol.transfer else dataset
    text = (
        f"The first seed's predictions: {models_of}. Rows: true class; columns: prediction; blue: correct, orange: "
        "wrong. Color: share of the true class." + only
    )
    yield Section("Confusions", [text], figures, tables=listed)
    figures = [d for stage in stages for d in predictions.reliability_diagrams(comparison, methods, dataset, stage)]
    text = (
        "Height of a bar: the accuracy of the first seed's predictions of that confidence; full color: most "
        "predictions. Line: the gap between confidence and accuracy, which are equal on the dashed line. ECE is the "
        "mean gap. Confidences are those before a temperature." + only
    )
    yield Section("Are the confidences right?", [text], figures)
    galleries = []
    for method, run in first.items():
        if not (run.is_from_here or comparison.foreign_images):
            continue
        shown = predictions.examples(run, first.get(comparison.zero_shot) if method != comparison.zero_shot else None)
        if shown:
            galleries.append(Gallery(method, comparison.number(method), shown))
    text = f"Test images: {models_of} ({stages[-1]}), the first seed's most confident predictions first." + only
    yield Section("Correct and wrong predictions", [text], galleries=galleries)


def model_sections(comparison: Comparison, dataset: str) -> Iterator[Section]:
    """Build the sections on attention patterns, nearest words, and image features."""
    runs, only = models(comparison, dataset), with_most_shots(comparison)
    explanations: dict[str, Explanation] = {m: e for m, run in runs.items() if (e := read_explanation(run))}
    text = (
        "Recorded while a few images were classified: the tokens of a row attend to the filled columns. Orange tokens "
        "are learned or depend on learned ones; blue tokens are frozen when they enter the first layer. The number of "
        f"tokens follows their name; at most {model_charts.MAX_TOKENS} of them are drawn." + only
    )
    patterns = [c for m, each in explanations.items() for c in model_charts.attention_patterns(m, dataset, each)]
    yield Section("Attention patterns", [text], patterns)
    text = (
        "Attention weights on the patches, mean over the heads, brighter is more; each panel has its own scale, from 0 "
        "to its largest weight. Chosen: the correct and the wrong predictions of highest confidence. At most three "
        "prompts of a segment and six layers are drawn. A plain picture: the token does not exist in that layer, or is "
        "not needed." + only
    )
    looks = [chart for m, each in explanations.items() for chart in model_charts.attention_maps(m, dataset, each)]
    yield Section("Where the tokens look", [text], looks)
    text = (
        "The words whose embeddings are nearest to the learned text vectors, by Euclidean distance. If the distance is "
        "almost as large as the vector's norm, no word is near." + only
    )
    listed = html_tables.words(comparison, explanations)
    yield Section("Nearest words", [text], tables=[listed] if listed else [])
    if explanations:
        figures, same = model_charts.features(explanations, dataset)
        text = f"t-SNE of the same test images of {dataset}, starting from their positions in frozen CLIP."
        text += (f" Unchanged features: {', '.join(same)}." if same else "") + only
        yield Section("Image features, before and after", [text], figures)


def every_run(comparison: Comparison) -> Section:
    text = "One row per run. Runs with the same sample (a hash) were trained on the same images."
    missing = [str(job) for job in comparison.missing]
    return Section("Every run", [text], tables=[html_tables.runs(comparison)], missing=missing)


def settings(comparison: Comparison) -> Section:
    text = "As the runs recorded them. Settings of a run alone (its seed, folder, and data) are left out."
    tables = [html_tables.environment(comparison), *html_tables.settings(comparison)]
    return Section("Settings and environment", [text], tables=tables)


def facts(comparison: Comparison) -> list[tuple[str, str]]:
    """State what was compared, and on what."""
    results = [run.result for run in comparison.runs]

    def all_of(values: Iterable) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in values if value)) or "not recorded"

    days = sorted({str(run.status["ended"])[:10] for run in comparison.runs if run.status.get("ended")})
    versions = [run.result.get("versions") or {} for run in comparison.runs]
    return [
        ("methods", str(len(comparison.methods))),
        ("datasets", str(len(comparison.datasets))),
        ("seeds", str(len({run.job.seed for run in comparison.runs if run.method not in comparison.untrained}))),
        ("shots", ", ".join(map(str, comparison.shots))),
        ("backbone", all_of(result.get("backbone") for result in results)),
        ("device", all_of(result.get("device") for result in results)),
        ("torch", all_of(of.get("torch") for of in versions)),
        ("dassl", all_of(" ".join(filter(None, (of.get("dassl"), of.get("commit")))) for of in versions)),
        ("date of the runs", " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "not recorded"),
        *([("command", command(comparison))] if comparison.protocol.name in PROTOCOLS else []),
        ("runs", f"{len(comparison.runs)} of {len(comparison.runs) + len(comparison.missing)}"),
    ]


def command(comparison: Comparison) -> str:
    """Return the command that makes these runs again, up to --data, --output, and settings of single runs.

    PATH stands for the user's own pictures.
    """
    own = {run.job.row.dataset for run in comparison.runs if run.result["dataset"] == OWN_REGISTERED}
    datasets = [f"{name}=PATH" if name in own else name for name in comparison.datasets]
    trained = dict.fromkeys(run.job.row.trainer for run in comparison.runs if run.job.row.trainer != ZERO_SHOT)
    parts = {"--trainers": trained, "--datasets": datasets if not comparison.protocol.transfer else ()}
    parts |= {"--seeds": sorted({run.job.seed for run in comparison.runs}), "--shots": comparison.shots}
    words = [f"{flag} {' '.join(map(str, values))}" for flag, values in parts.items() if values]
    return " ".join(["dassl", comparison.protocol.name, *words])


def page(comparison: Comparison, dataset: str, notes: list[str]) -> str:
    """Return the whole page as HTML, with `notes` at the top."""
    notes = list(notes)
    if any(run.result.get("backbone") == DEMO_BACKBONE for run in comparison.runs):
        notes.append("The backbone is the built-in demo's tiny CLIP: its results do not carry over to CLIP.")
    if comparison.missing:
        notes.append(f"{len(comparison.missing)} runs are missing. They are listed at the end.")
    parts = parts_of(comparison, dataset)
    draw_all([chart for part in parts for section in part.sections for chart in (*section.charts, *section.more)])
    here = files(__package__)
    script, template = (here.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("js", "html"))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        title=comparison.protocol.title[0].upper() + comparison.protocol.title[1:],
        lead=", ".join(comparison.methods) + " on " + ", ".join(comparison.datasets),
        facts=facts(comparison),
        notes=notes,
        parts=parts,
        filters={"dataset": comparison.datasets, "method": comparison.methods, "shots": comparison.shots},
        average=AVERAGE,
        series=SERIES,
        missing=html_tables.MISSING,
        version=f"version {dassl.__version__}",
        css=CSS,
        script=script,
        # The page's security policy allows this script and no other.
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
