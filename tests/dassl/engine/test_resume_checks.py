"""What a resumed run depends on besides its config: images, threads, torch, and a state that a run can have written."""

import time

import pytest
import torch
from toy_runs import kill, last_tensors, results_of

from basics import UserError
from dassl.engine.run_folder import FolderTaken
from dassl.utils import load_checkpoint, save_tensors


@pytest.fixture
def threads():
    """Use two threads, and restore the number afterward."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def edit(path, change):
    state = load_checkpoint(path)
    change(state)
    save_tensors(state, path)


@pytest.mark.parametrize(("part", "name"), [("train", "training"), ("val", "validation"), ("test", "test")])
def test_a_run_on_other_images_is_not_resumed(make, part, name):
    def digests(trainer, digest):
        trainer.dm.digests = {"train": "a", "val": "a", "test": "a"} | {part: digest}
        return trainer

    kill(digests(make(), "a"), 1, 1)
    with pytest.raises(FolderTaken, match=f"got one for which the {name} images were others"):
        digests(make(), "b").train()
    digests(make(), "a").train()


def test_a_resumed_run_keeps_its_number_of_threads(make, tmp_path, capsys, threads):
    make(folder="whole").train()
    kill(make(folder="killed"), 1, 1)
    torch.set_num_threads(1)
    make(folder="killed").train()
    assert torch.get_num_threads() == 2 and "Resuming with 2 threads, as before, not 1" in capsys.readouterr().err
    assert results_of(tmp_path / "killed") == results_of(tmp_path / "whole")
    assert results_of(tmp_path / "whole")["threads"] == 2


def test_another_torch_on_resume_is_reported_and_recorded(make, tmp_path, capsys):
    kill(make(), 1, 1)
    edit(tmp_path / "run" / "state.pt", lambda state: state["machine"].update(torch="1.0"))
    kill(make(), 2, 1)
    make().train()
    change = f"torch: 1.0 before, {torch.__version__} now"
    assert capsys.readouterr().err.count(f"Note: the run resumes with {change}.") == 1
    assert results_of(tmp_path / "run")["changed_on_resume"] == [change]


def test_a_state_of_an_earlier_version_is_resumed(make, tmp_path):
    make(folder="whole").train()
    kill(make(), 1, 1)
    edit(tmp_path / "run" / "state.pt", lambda state: [state.pop(key) for key in ("machine", "changes")])
    make().train()
    assert torch.equal(last_tensors(tmp_path / "run")["ctx"], last_tensors(tmp_path / "whole")["ctx"])


IMPOSSIBLE = {
    "epochs beyond the last": lambda state: state.update(epoch=99, rows=state["rows"] * 99),
    "epochs without rows": lambda state: state.update(epoch=3),
    "a text as a counter": lambda state: state.update(nonfinite_steps="many"),
    "a negative counter": lambda state: state.update(nonfinite_steps=-1),
    "rows of text": lambda state: state.update(rows=["a"]),
    "rows without times": lambda state: state.update(rows=[{"epoch": 1}]),
    "infinite times": lambda state: state["progress"].update(seconds=float("inf")),
    "batches of text": lambda state: state["progress"].update(batches="2"),
    "a best result that is not a number": lambda state: state.update(best_result=float("nan")),
    "a best result of text": lambda state: state.update(best_result="high"),
    "changes that are no list": lambda state: state.update(changes=7),
    "another format": lambda state: state.update(format=99),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_an_impossible_state_is_refused(make, tmp_path, name):
    kill(make("TRAIN.CHECKPOINT_MINUTES", "1e-9"), 1, 2)
    path = tmp_path / "run" / "state.pt"
    edit(path, IMPOSSIBLE[name])
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"state\.pt: expected the state of a run"):
        make().train()
    assert path.read_bytes() == before


def test_a_momentum_larger_than_the_file_is_refused(make, tmp_path):
    kill(make(), 1, 2)
    path = tmp_path / "run" / "state.pt"
    state = load_checkpoint(path)
    for slot in state["optimizers"]["prompt_learner"]["state"].values():
        slot["momentum_buffer"] = torch.zeros(1).expand(2**20, 2**20)
    torch.save(state, path)
    with pytest.raises(UserError, match="larger than its storage"):
        make().train()


def test_a_clock_set_back_does_not_distort_times(make, tmp_path, monkeypatch):
    now = iter(range(10**6, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    make("TRAIN.CHECKPOINT_MINUTES", "1").train()
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    place = rows[0].split(",").index("seconds")
    assert all(float(row.split(",")[place]) >= 0 for row in rows[1:])
