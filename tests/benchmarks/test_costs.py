"""The estimate of what a comparison costs: it reads the recorded rows, and covers every method."""

import pytest
import yaml

from benchmarks import costs


@pytest.fixture(scope="module")
def recorded():
    return costs.Recorded()


def test_measured_steps_are_those_of_the_table(recorded):
    for (method, prompts), own in recorded.step.items():
        batch = int(recorded.gflop[method, prompts][1])
        for classes, seconds in own.items():
            found, _ = recorded.step_seconds(method, prompts, batch, int(classes))
            assert found == pytest.approx(seconds)
    assert recorded.step_seconds("RPO", "24", 4, 525)[0] == pytest.approx(sum(recorded.step["RPO", "24"].values()) / 2)


def test_every_method_of_a_comparison_has_a_cost(recorded):
    groups = yaml.safe_load((costs.ROOT / "configs/protocols/defaults.yaml").read_text())["groups"]
    for method in ("ZeroshotCLIP", *(name for group in groups.values() for name in group)):
        few, many = (sum(costs.runs_of(recorded, method, shots)[0]) for shots in (1, 16))
        assert 0 < few <= many
        assert (method in ("ZeroshotCLIP", "TipAdapter", "LinearProbeCLIP")) or few < many


@pytest.mark.parametrize(("gpus", "hours"), [(1, 10), (2, 5), (3, 4), (64, 4)])
def test_the_longest_jobs_start_first(gpus, hours):
    assert costs.makespan([1, 2, 4, 3], gpus) == hours
