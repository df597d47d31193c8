"""Tables and pages of many runs: each file is read once, and the work grows with the number of runs."""

import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.many_runs import make_runs
from promptlearn.cli import main
from promptlearn.experiments import PROTOCOLS, discover, results_table, run_files, summarize
from promptlearn.report import ahead, find_comparisons, runs
from promptlearn.report.drawing import Chart
from promptlearn.report.page import charts_of
from tests.made_up_runs import MadeUpRuns


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    output = tmp_path_factory.mktemp("many")
    made_up = MadeUpRuns(output)
    made_up.base2new(seeds=(1,))
    made_up.run("single", "digits", "LP", 1)
    return output


@pytest.fixture
def reads(monkeypatch):
    """Count how often each file of a run is opened."""
    counted: Counter = Counter()
    read_bytes, read_predictions = Path.read_bytes, run_files.read_predictions

    def counting_bytes(path):
        counted[path] += path.name == "results.json"
        return read_bytes(path)

    def counting_predictions(path):
        counted[path] += 1
        return read_predictions(path)

    monkeypatch.setattr(Path, "read_bytes", counting_bytes)
    monkeypatch.setattr(runs, "read_predictions", counting_predictions)
    return counted


@pytest.mark.parametrize("command", [["results", "--statistics"], ["report", "--no-explain"]], ids=lambda c: c[0])
def test_a_command_reads_each_file_of_a_run_once(output, tmp_path, monkeypatch, reads, command):
    name, option = command
    monkeypatch.setattr(Chart, "svg", "<svg/>")
    monkeypatch.setattr(ahead, "available_cores", lambda: 1)
    own = ["--output", str(tmp_path)] if name == "report" else []
    assert main([name, str(output), option, *own]) == 0
    found = set(output.rglob("results.json"))
    assert {path for path in reads if path.name == "results.json"} == {path.resolve() for path in found}
    assert set(reads.values()) <= {0, 1}
    assert (name == "report") == any(path.name == "predictions.csv" for path in reads)


def test_results_are_read_again_by_the_next_command(output, reads, capsys):
    for _ in range(2):
        assert main(["results", str(output)]) == 0
    assert {n for path, n in reads.items() if path.name == "results.json"} == {2}


@pytest.mark.parametrize("protocol", ["base2new", "few_shot"])
def test_the_work_of_a_table_grows_with_its_runs(tmp_path, monkeypatch, protocol):
    calls = Counter()
    for name in ("_rounded_mean", "_join_configs", "result_of"):
        plain = getattr(results_table, name)

        def counting(*args, _plain=plain, _name=name):
            calls[_name] += 1
            return _plain(*args)

        monkeypatch.setattr(results_table, name, counting)

    def work(datasets):
        made_up = MadeUpRuns(tmp_path / str(datasets))
        for number in range(datasets):
            for trainer in ("ZeroshotCLIP", "RPO", "CoOp"):
                for shots in (1, 4):
                    for stage in ("train_base", "test_new") if protocol == "base2new" else ("train",):
                        made_up.run(f"{protocol}/{stage}", f"d{number}", trainer, 1, shots=shots)
        calls.clear()
        lines = summarize(PROTOCOLS[protocol], discover(PROTOCOLS[protocol], made_up.output))
        results_table.table(PROTOCOLS[protocol], lines)
        return sum(calls.values())

    few, more, most = work(2), work(4), work(6)
    assert most - more == more - few > 0


@pytest.mark.skipif(sys.platform != "linux", reason="charts are drawn in one process there")
def test_charts_drawn_by_several_processes_are_the_same(monkeypatch):
    def charts():
        def line(height):
            return lambda canvas: canvas.subplots().plot([0, height])

        return [Chart(f"Line {height}", "", (2, 2), line(height)) for height in range(1, 4)]

    monkeypatch.setattr(ahead, "available_cores", lambda: 2)
    monkeypatch.setattr(ahead, "CHARTS_PER_PROCESS", 1)
    drawn = charts()
    ahead.draw_all(drawn)
    assert all("svg" in chart.__dict__ for chart in drawn)
    assert [chart.svg for chart in drawn] == [chart.svg for chart in charts()]


def test_predictions_are_not_kept_after_their_dataset(output):
    [(comparison, _), *_] = find_comparisons([output])
    charts_of(comparison)
    assert not any("predictions" in run.__dict__ for run in comparison.runs)


@pytest.mark.slow
def test_a_page_of_5000_runs_reads_each_results_file_once(tmp_path, reads):
    made = make_runs(tmp_path / "runs", 5000, classes=5, images=20)
    assert main(["report", str(tmp_path / "runs"), "--no-explain", "--output", str(tmp_path / "page")]) == 0
    of_results = [n for path, n in reads.items() if path.name == "results.json"]
    assert of_results == [1] * made
    assert (tmp_path / "page" / "base2new" / "report.html").is_file()
