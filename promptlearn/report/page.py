"""The page: the sections of a comparison, and their HTML."""

import base64
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

import dassl
from promptlearn.experiments.results_table import AVERAGE, H_OF_SEEDS, NOTES, at_equal_shots, notes_on
from promptlearn.experiments.significance import ALPHA, compare, friedman, scores_of
from promptlearn.experiments.significance_text import measures, notes_on_pairs, notes_on_ranks
from promptlearn.report import charts, html_tables, model_charts, predictions
from promptlearn.report.drawing import SERIES, Chart
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
    tables: list[Table] = field(default_factory=list)
    galleries: list[Gallery] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # runs

    @property
    def id(self) -> str:
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower())


def sections_of(comparison: Comparison, dataset: str) -> list[Section]:
    """Return all sections that there are runs for. `dataset`: the one shown in detail."""
    found = [*overview(comparison), *in_detail(comparison, dataset), *model_sections(comparison, dataset)]
    return [s for s in found if s.charts or s.tables or s.galleries] + [every_run(comparison)]


def overview(comparison: Comparison) -> Iterator[Section]:
    """Build the section on accuracy over all datasets and seeds."""
    table, only = html_tables.accuracies(comparison), with_most_shots(comparison)
    text = sentences(notes_on(comparison.lines, table.header))
    text += " Bold: the best on its dataset among equal shots. Click a heading to sort."
    yield Section("Results", [text], tables=[table])
    if comparison.protocol.harmonic:
        text = "The gain on the base classes, and what it costs on the new ones." + only
        yield Section("Base vs. new", [text], charts.base_and_new(comparison))
    if len(comparison.shots) > 1:
        figures = [figure for stage in comparison.stages for figure in charts.curves(comparison, stage)]
        text = "Mean over the available seeds; the band is one standard deviation each way. Dashed: untrained methods."
        yield Section("Few-shot curves", [text], figures)
    figures = [figure for dataset in comparison.datasets if (figure := charts.spread(comparison, dataset))]
    text = "Each dot is a run. Box: quartiles and median; whiskers: the last run within 1.5 interquartile ranges."
    text += only
    yield Section("Spread over the seeds", [text], figures)
    yield statistical(comparison)
    figure = charts.costs(comparison)
    text = "Medians over the training runs. Dashed: methods that train nothing." + only
    yield Section("Accuracy and its costs", [text], [figure] if figure else [])


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
    """Build the section on classes and images of one dataset."""
    only = with_most_shots(comparison)
    if comparison.zero_shot:
        figure = predictions.class_gains(comparison, dataset)
        text = "Percentage points, mean over the seeds. A vertical line separates the classes of two tests." + only
        yield Section("Gains and losses per class", [text], [figure] if figure else [])
    methods = comparison.methods[:MAX_METHODS]
    stages = comparison.stages[: predictions.MAX_STAGES]
    figures = [p for stage in stages if (p := predictions.confusion(comparison, methods, dataset, stage))]
    first = {m: found[0] for m in methods if (found := comparison.select(m, dataset, stages[-1]))}
    pairs = {method: predictions.frequent_confusions(run) for method, run in first.items()}
    listed = [html_tables.confusions(comparison, pairs, stages[-1])] if any(pairs.values()) else []
    models_of = f"models trained on {dataset}" if comparison.protocol.transfer else dataset
    text = f"The first seed's predictions: {models_of}. Rows: true class; columns: prediction; blue: correct." + only
    yield Section("Confusions", [text], figures, listed)
    figures = [d for stage in stages if (d := predictions.reliability_diagrams(comparison, methods, dataset, stage))]
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
        f"tokens follows the segment's name, as in the code; at most {model_charts.MAX_TOKENS} of them are drawn."
        + only
    )
    patterns = [model_charts.attention_patterns(method, each) for method, each in explanations.items()]
    yield Section("Attention patterns", [text], patterns)
    text = (
        "Attention weights on the patches, mean over the heads, brighter is more; each panel has its own scale, from 0 "
        "to its largest weight. Chosen: the correct and the wrong predictions of highest confidence. At most three "
        "prompts of a segment and six layers are drawn. A plain picture: the token does not exist in that layer, or is "
        "not needed." + only
    )
    looks = [chart for method, each in explanations.items() if (chart := model_charts.attention_maps(method, each))]
    yield Section("Where the tokens look", [text], looks)
    text = (
        "The words whose embeddings are nearest to the learned text vectors, by Euclidean distance. If the distance is "
        "almost as large as the vector's norm, no word is near." + only
    )
    listed = html_tables.words(comparison, explanations)
    yield Section("Nearest words", [text], tables=[listed] if listed else [])
    if explanations:
        figure, same = model_charts.features(explanations, dataset)
        text = f"t-SNE of the same test images of {dataset}, starting from their positions in frozen CLIP."
        text += (f" Unchanged features: {', '.join(same)}." if same else "") + only
        yield Section("Image features, before and after", [text], [figure] if figure else [])


def every_run(comparison: Comparison) -> Section:
    text = "One row per run. Runs with the same sample (a hash) were trained on the same images."
    missing = [str(job) for job in comparison.missing]
    return Section("Every run", [text], tables=[html_tables.runs(comparison)], missing=missing)


def facts(comparison: Comparison) -> list[tuple[str, str]]:
    """State what was compared, and on what."""
    results = [run.result for run in comparison.runs]

    def all_of(values: Iterable) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in values if value)) or "not recorded"

    return [
        ("methods", str(len(comparison.methods))),
        ("datasets", str(len(comparison.datasets))),
        ("seeds", str(len({run.job.seed for run in comparison.runs if run.method not in comparison.untrained}))),
        ("shots", ", ".join(map(str, comparison.shots))),
        ("backbone", all_of(result.get("backbone") for result in results)),
        ("device", all_of(result.get("device") for result in results)),
        ("torch", all_of((result.get("versions") or {}).get("torch") for result in results)),
        ("runs", f"{len(comparison.runs)} of {len(comparison.runs) + len(comparison.missing)}"),
    ]


def page(comparison: Comparison, dataset: str, notes: list[str]) -> str:
    """Return the whole page as HTML, with `notes` at the top."""
    notes = list(notes)
    if any(run.result.get("backbone") == DEMO_BACKBONE for run in comparison.runs):
        notes.append("The backbone is the built-in demo's tiny CLIP: its results do not carry over to CLIP.")
    if comparison.missing:
        notes.append(f"{len(comparison.missing)} runs are missing. They are listed at the end.")
    here = files(__package__)
    css, script, template = (here.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js", "html"))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        title=comparison.protocol.title[0].upper() + comparison.protocol.title[1:],
        lead=", ".join(comparison.methods) + " on " + ", ".join(comparison.datasets),
        facts=facts(comparison),
        notes=notes,
        sections=sections_of(comparison, dataset),
        series=SERIES,
        missing=html_tables.MISSING,
        version=f"version {dassl.__version__}",
        css=css,
        script=script,
        # The page's security policy allows this script and no other.
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
