"""What goes wrong in a loader: unreadable test images, workers that die."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from basics import MissingFile, UserError
from dassl.data import UNREADABLE, DataManager, loader
from dassl.data.loader import Loader


class Deadly(torch.utils.data.Dataset):
    """Kills the worker that loads its third item, by a signal or by leaving."""

    def __init__(self, end):
        self.end = end

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 2:
            self.end()
        return index


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def left():
    os._exit(3)


# torch may learn of the death while it opens a file, and leave that file open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("end", "cause"), [(killed, "is killed by signal: Killed"), (left, "exited unexpectedly")])
def test_a_dead_worker_is_reported_with_its_process_and_cause(end, cause):
    with pytest.raises(RuntimeError, match=r"DataLoader worker \(pid") as error:
        list(Loader(dataset=Deadly(end), num_workers=1))
    assert any(cause in str(e) for e in (error.value, error.value.__cause__, error.value.__context__))


@pytest.mark.parametrize(("message", "waits"), [("reset by peer", 1), ("Caught ConnectionError in DataLoader ...", 0)])
def test_only_a_connection_to_a_worker_is_waited_for(monkeypatch, message, waits):
    def fail():
        raise ConnectionError(message)

    waited = []
    monkeypatch.setattr(loader.time, "sleep", waited.append)
    with pytest.raises(ConnectionError, match=message):
        list(Loader(dataset=Deadly(fail)))
    assert len(waited) == waits


def test_there_are_no_more_workers_than_batches():
    loader = Loader(dataset=[1, 2], batch_size=2, num_workers=2, persistent_workers=True)
    assert [batch.tolist() for batch in loader] == [[1, 2]]
    assert loader.num_workers == 1


@pytest.fixture
def bad(cfg):
    """Return the path of a test image that cannot be read: the last, in the last batch."""
    path = DataManager(cfg).dataset.test[-1].impath
    with open(path, "wb") as file:
        file.write(b"no picture")
    return path


def test_an_unreadable_test_image_stops_the_evaluation_and_is_named(cfg, bad):
    with pytest.raises(UserError) as error:
        list(DataManager(cfg).test_loader)
    assert str(error.value).startswith(f"{bad}: expected an image")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_unreadable_test_image_may_count_as_a_wrong_answer(cfg, bad, num_workers, capfd):
    cfg.DATALOADER.NUM_WORKERS = num_workers
    cfg.TEST.BAD_IMAGES = "wrong"
    manager = DataManager(cfg)
    batches = list(manager.test_loader)
    labels, expected = torch.cat([batch["label"] for batch in batches]), [item.label for item in manager.dataset.test]
    assert labels[-1] == UNREADABLE - expected[-1]
    assert (labels < 0).sum() == 1 and labels[:-1].tolist() == expected[:-1]
    assert [path for batch in batches for path in batch["impath"]] == [item.impath for item in manager.dataset.test]
    assert sum(len(batch["img"]) for batch in batches) == len(expected)
    assert f"Counted as wrong: {bad}: expected an image" in capfd.readouterr().err


def test_a_missing_test_image_is_never_counted(cfg, bad):
    cfg.TEST.BAD_IMAGES = "wrong"
    manager = DataManager(cfg)
    os.remove(bad)
    with pytest.raises(MissingFile):
        list(manager.test_loader)


def test_a_bad_training_image_always_stops_the_training(cfg):
    cfg.TEST.BAD_IMAGES = "wrong"
    manager = DataManager(cfg)
    with open(manager.dataset.train_x[0].impath, "wb"):
        pass
    with pytest.raises(UserError, match="1 of 18 training images"):
        next(iter(manager.train_loader_x))


def test_a_process_exits_despite_living_loader_workers():
    script = (
        "from dassl.data.loader import Loader\n"
        "from basics import leave_signals_to_parent as init\n"
        "loader = Loader(dataset=[1, 2], num_workers=1, persistent_workers=True, worker_init_fn=init)\n"
        "batches = iter(loader)\n"
        "next(batches)\n"
        "loader.itself = loader\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
