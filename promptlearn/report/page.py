"""The page: which sections a comparison has, and their HTML."""

import base64
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

import dassl
from promptlearn.experiments.results_table import AVERAGE, NOTES
from promptlearn.experiments.significance import ALPHA, compare, friedman, scores_of
from promptlearn.experiments.significance_text import RELIABLE_CASES, measures
from promptlearn.report import charts, html_tables, model_charts, predictions
from promptlearn.report.drawing import SERIES, Picture
from promptlearn.report.explanations import MOST_METHODS, Explanation, models, read_explanation
from promptlearn.report.html_tables import Table
from promptlearn.report.predictions import Example
from promptlearn.report.runs import Comparison
from promptlearn.report.significance_charts import critical_difference_diagram, difference_matrix

DEMO_BACKBONE = "tiny"


@dataclass(frozen=True)
class Album:
    """Example pictures of one method; `method` is its number."""

    title: str
    method: int
    examples: dict[str, list[Example]]


@dataclass
class Section:
    title: str
    text: list[str]
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    albums: list[Album] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)  # missing runs

    @property
    def id(self) -> str:
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower())


def sections_of(comparison: Comparison, dataset: str) -> list[Section]:
    """All that can be shown; what there are no runs for is left out. `dataset`: the one that is looked into."""
    found = [*over_all(comparison), *in_detail(comparison, dataset), *from_inside(comparison, dataset)]
    return [s for s in found if s.pictures or s.tables or s.albums] + [every_run(comparison)]


def over_all(comparison: Comparison) -> Iterator[Section]:
    """Accuracies over all data sets and seeds."""
    table = html_tables.accuracies(comparison)
    notes = [note for key, note in NOTES.items() if not key or key in table.header]
    text = ". ".join(note[0].upper() + note[1:] for note in notes)
    yield Section("Results", [f"{text}. Bold: the best of its data set. Click a heading to sort."], tables=[table])
    if comparison.protocol.harmonic:
        text = "What is gained on the classes that were trained on, and what that costs on those that were not."
        yield Section("Base against new", [text], charts.base_and_new(comparison))
    if len(comparison.shots) > 1:
        pictures = [picture for stage in comparison.stages for picture in charts.curves(comparison, stage)]
        text = (
            "Mean over the seeds that are there; the band is one sample standard deviation each way. Dashed: untrained."
        )
        yield Section("Few-shot curves", [text], pictures)
    pictures = [picture for dataset in comparison.datasets if (picture := charts.spread(comparison, dataset))]
    text = "Each dot is a run. Box: quartiles and median; whiskers: the last run within 1.5 quartile ranges."
    yield Section("Spread over the seeds", [text], pictures)
    yield statistical(comparison)
    picture = charts.costs(comparison)
    text = "Medians over the runs that trained. Dashed: a method that trains nothing."
    yield Section("Accuracy and its costs", [text], [picture] if picture else [])


def statistical(comparison: Comparison) -> Section:
    """Whether the differences are real."""
    lines = [line for line in comparison.lines if line.row.dataset != AVERAGE]
    text = (
        "Runs are paired by data set and seed. Runs on one data set are not independent: the figures speak of these "
        f"data sets, not of others. Filled squares, and bold figures: Wilcoxon's p is at most {ALPHA} after Holm's "
        "correction. A bar in a diagram joins methods whose mean ranks are nearer than the critical difference."
    )
    section, diagrams = Section("Are the differences real?", [text]), []
    for measure in measures(comparison.protocol, lines):
        scores = scores_of(lines, measure)
        if len(scores) > MOST_METHODS:
            continue
        found, ranks = compare(scores), friedman(scores)
        section.pictures.append(difference_matrix(comparison, found, measure))
        if ranks and ranks.p <= ALPHA:
            diagrams.append(critical_difference_diagram(comparison, ranks, measure))
        said = f"Friedman's test of {measure}: "
        if ranks is None:
            said += "too little data; it takes three methods, and two runs that all have."
        else:
            said += f"p = {ranks.p:.4f} that all {len(scores)} methods are alike, over {ranks.n} data sets x seeds."
            said += " No method can be said to differ from another." if ranks.p > ALPHA else ""
            said += " With so little data this is rough." if ranks.n <= RELIABLE_CASES else ""
        section.text.append(said)
        section.tables.append(html_tables.differences(comparison, found, measure))
    section.pictures += diagrams
    return section


def in_detail(comparison: Comparison, dataset: str) -> Iterator[Section]:
    """Classes and images of one data set."""
    if comparison.zero_shot:
        picture = predictions.class_gains(comparison, dataset)
        text = "Points of accuracy, mean over the seeds. A vertical line parts the classes of two tests."
        yield Section("Classes won and lost", [text], [picture] if picture else [])
    methods = comparison.methods[:MOST_METHODS]
    stages = comparison.stages[: predictions.MOST_STAGES]
    pictures = [p for stage in stages if (p := predictions.confusion(comparison, methods, dataset, stage))]
    first = {m: found[0] for m in methods if (found := comparison.select(m, dataset, stages[-1]))}
    pairs = {method: predictions.frequent_confusions(run) for method, run in first.items()}
    listed = [html_tables.confusions(comparison, pairs)] if any(pairs.values()) else []
    text = f"The first seed's answers on {dataset}. Rows: the true class; columns: the answer; blue is right."
    yield Section("Confusions", [text], pictures, listed)
    albums = []
    for method, run in first.items():
        shown = predictions.examples(run, first.get(comparison.zero_shot) if method != comparison.zero_shot else None)
        if shown:
            albums.append(Album(method, comparison.number(method), shown))
    text = f"Test images of {dataset} ({stages[-1]}), the first seed's most confident answers first."
    yield Section("Pictures, right and wrong", [text], albums=albums)


def from_inside(comparison: Comparison, dataset: str) -> Iterator[Section]:
    """What the models look like inside."""
    runs = models(comparison, dataset)
    explanations: dict[str, Explanation] = {m: e for m, run in runs.items() if (e := read_explanation(run))}
    text = (
        "Drawn from what the towers were seen to do while a few images were classified: a row's tokens read the filled "
        "columns. Orange tokens are learned or depend on what is; blue ones are frozen as they enter the first layer. "
        f"At most {model_charts.MOST_TOKENS} tokens of a group are drawn; their number stands behind the segment's "
        "name, which is the code's."
    )
    yield Section("Who reads whom", [text], [model_charts.who_reads_whom(m, e) for m, e in explanations.items()])
    text = (
        "The words whose embeddings are nearest to the learned text vectors, by Euclidean distance. A distance nearly "
        "as large as the vector's norm means: near no word."
    )
    listed = html_tables.words(comparison, explanations)
    yield Section("Nearest words", [text], tables=[listed] if listed else [])
    if explanations:
        picture, same = model_charts.features(explanations, dataset)
        text = f"t-SNE of the same test images of {dataset}, started from where frozen CLIP places them."
        text += f" Features are frozen CLIP's own in {', '.join(same)}." if same else ""
        yield Section("Image features, before and after", [text], [picture] if picture else [])


def every_run(comparison: Comparison) -> Section:
    text = "One row a run. Runs with the same draw of training images have the same draw hash."
    missing = [str(job) for job in comparison.missing]
    return Section("Every run", [text], tables=[html_tables.runs(comparison)], lines=missing)


def facts(comparison: Comparison) -> list[tuple[str, str]]:
    """What was compared on what."""
    results = [run.result for run in comparison.runs]

    def all_of(values: Iterable) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in values if value)) or "not noted"

    return [
        ("methods", str(len(comparison.methods))),
        ("data sets", str(len(comparison.datasets))),
        ("seeds", str(len({run.job.seed for run in comparison.runs}))),
        ("shots", ", ".join(map(str, comparison.shots))),
        ("backbone", all_of(result.get("backbone") for result in results)),
        ("device", all_of(result.get("device") for result in results)),
        ("torch", all_of((result.get("versions") or {}).get("torch") for result in results)),
        ("runs", f"{len(comparison.runs)} of {len(comparison.runs) + len(comparison.missing)}"),
    ]


def page(comparison: Comparison, dataset: str, notes: list[str]) -> str:
    """The whole page as HTML. `notes` are shown at its top."""
    notes = list(notes)
    if any(run.result.get("backbone") == DEMO_BACKBONE for run in comparison.runs):
        notes.append("The backbone is the built-in demo's tiny CLIP: these figures say nothing about CLIP.")
    if comparison.missing:
        notes.append(f"{len(comparison.missing)} runs are missing; they are listed at the end.")
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
        # The page's policy lets this very script run and nothing else.
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
