"""`state.pt`: everything that the rest of a run depends on, in one file that is written as a whole."""

import functools
import math
from contextlib import suppress
from pathlib import Path

import torch

from basics import UserError, notify
from dassl.config import FREE_TO_CHANGE, flatten
from dassl.engine.checkpoints import load_trained, snapshot
from dassl.engine.run_folder import FolderTaken
from dassl.utils import device_name, get_random_state, load_checkpoint, save_tensors, set_random_state

STATE_FILE = "state.pt"
STATE_FORMAT = 2
LONGEST_REASON = 200  # characters of a library's complaint about the content of a file
OTHER_FOLDER = "Choose another --output-dir, or delete that folder to restart."

# Keys in the file, and what messages call them.
SOURCES = {
    "the drawn images": "the sampled images",
    "the frozen weights": "the frozen weights",
    "train": "the training images",
    "val": "the validation images",
    "test": "the test images",
}


def save_state(trainer, path):
    """Write everything that the rest of the trainer's run depends on."""
    record = trainer.record
    state = {
        "format": STATE_FORMAT,
        "epoch": len(record.rows),
        "progress": record.progress.state_dict() if record.progress.batches else None,
        "nonfinite_steps": trainer.watch.skipped,
        "sources": _sources(trainer),
        "machine": _machine(trainer),
        "changes": record.changes,
        "picked": trainer.auto_settings(),  # the name that state files have always used
        "config": flatten(trainer.cfg),
        "models": {name: snapshot(module) for name, module in trainer._models.items()},
        "optimizers": _state_dicts(trainer._optims),
        "schedulers": _state_dicts(trainer._scheds),
        "scaler": trainer.scaler.state_dict() if trainer.scaler is not None else None,
        "best_result": trainer.best_result,
        "best_val": record.best_val,
        "rows": record.rows,
        "random": get_random_state(),
    }
    if method_state := trainer.method_state():
        state["method"] = method_state
    save_tensors(state, path)


def saved_auto_settings(cfg) -> dict:
    """Return the `auto_settings` of the run that this one resumes; {} if there is none, or its state is damaged."""
    return _saved(cfg).get("picked", {})


def _saved(cfg) -> dict[str, dict]:
    """Return the dicts in the state of the run that this one resumes; {} if there is none, or it is damaged."""
    for folder in filter(None, (cfg.OUTPUT_DIR, cfg.RESUME)):
        path = Path(folder) / STATE_FILE
        if path.is_file():
            with suppress(UserError, AttributeError):  # resuming will report it
                return {key: value for key, value in load_checkpoint(path).items() if isinstance(value, dict)}
            return {}
    return {}


def keep_threads(cfg) -> None:
    """Set torch's number of threads to that of the run that this one resumes, because sums depend on it."""
    threads = _saved(cfg).get("machine", {}).get("threads")
    if isinstance(threads, int) and threads > 0 and threads != torch.get_num_threads():
        notify(f"Resuming with {threads} threads, as before, not {torch.get_num_threads()}")
        torch.set_num_threads(threads)


def _sources(trainer) -> dict[str, str | None]:
    """Return digests of what a run depends on besides its config: the few-shot sample, the images, the weights."""
    sample, weights = getattr(trainer.dm.dataset, "draw_hash", None), getattr(trainer, "weights_sha256", None)
    return {"the drawn images": sample, "the frozen weights": weights, **getattr(trainer.dm, "digests", {})}


def _machine(trainer) -> dict[str, int | str]:
    """Return what decides the last bits of a run's numbers."""
    return {"threads": torch.get_num_threads(), "device": device_name(trainer.device), "torch": str(torch.__version__)}


def _state_dicts(parts):
    return {name: part.state_dict() if part is not None else None for name, part in parts.items()}


def _explain_malformed(restore):
    """Decorate `restore` so that a state with missing or wrong content becomes a UserError."""

    @functools.wraps(restore)
    def explained(trainer, path):
        try:
            epochs = restore(trainer, path)
            if problem := _problem(trainer, epochs):
                raise ValueError(problem)
            return epochs
        except UserError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, AssertionError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST_REASON]
            raise UserError(
                f"{path}: expected the state of a run, got an unusable one ({reason}). Delete the file to restart."
            ) from error

    return explained


def _problem(trainer, epochs) -> str:
    """Return what in a restored state no run can have written; empty if all is plausible."""
    record, progress = trainer.record, trainer.record.progress
    counts = {"epochs": epochs, "skipped steps": trainer.watch.skipped, "batches": progress.batches}
    for name, count in counts.items():
        if type(count) is not int or count < 0:
            return f"{count!r} {name}"
    rows = record.rows
    if not isinstance(rows, list) or not all(isinstance(row, dict) and _is_number(row.get("seconds")) for row in rows):
        return f"{rows!r} as rows of metrics.csv"
    if epochs != len(rows) or epochs > trainer.max_epoch:
        return f"{epochs} epochs with {len(rows)} rows of metrics.csv, of at most {trainer.max_epoch}"
    if not isinstance(trainer.best_result, float | int) or math.isnan(trainer.best_result):
        return f"{trainer.best_result!r} as the best result"
    if not isinstance(record.best_val, dict | None) or not all(isinstance(each, str) for each in record.changes):
        return f"{record.best_val!r} as the best validation, {record.changes!r} as changes"
    return "" if _is_number(progress.seconds) else f"{progress.seconds!r} seconds"


def _is_number(value) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _report_changes(saved: dict, current: dict) -> list[str]:
    """Print and return what decides the last bits and is other than before."""
    changes = [
        f"{key}: {saved[key]} before, {current[key]} now"
        for key in current
        if saved.get(key, current[key]) != current[key]
    ]
    if changes:
        notify(f"Note: the run resumes with {'; '.join(changes)}. Its numbers may differ in the last digits.")
    return changes


@_explain_malformed
def restore_state(trainer, path) -> int:
    """Put the trainer where the run that wrote `path` was.

    Returns:
        The number of complete epochs; `trainer.record.progress` has the progress of the next one.

    Raises:
        FolderTaken: the file belongs to a run with another config, other images or other weights.
        UserError: the file is damaged. In either case it stays unchanged.
    """
    state = load_checkpoint(path)
    if not isinstance(state, dict) or state.get("format") != STATE_FORMAT:
        raise UserError(
            f"{path}: expected the state of a run in format {STATE_FORMAT}, got something else. Delete the file to "
            "restart."
        )
    _check_config(state["config"], flatten(trainer.cfg), path)
    _check_sources(state["sources"], _sources(trainer), path)
    if list(state["models"]) != list(trainer._models):
        raise UserError(
            f"{path}: expected the models {list(trainer._models)}, got {list(state['models'])}. "
            "Resume with the method of that run."
        )
    for name, module in trainer._models.items():
        load_trained(module, state["models"][name], path)
        for parts, kind in ((trainer._optims, "optimizers"), (trainer._scheds, "schedulers")):
            if parts[name] is not None:
                parts[name].load_state_dict(state[kind][name])
    if state["scaler"] is not None:
        trainer.scaler.load_state_dict(state["scaler"])
    trainer.best_result, trainer.record.best_val = state["best_result"], state["best_val"]
    trainer.record.rows = state["rows"]
    trainer.record.changes = [*state.get("changes", []), *_report_changes(state.get("machine", {}), _machine(trainer))]
    trainer.keep_auto_settings(state["picked"])
    trainer.load_method_state(state.get("method", {}))
    trainer.watch.skipped = state["nonfinite_steps"]
    if state["progress"] is not None:
        trainer.record.progress.load_state_dict(state["progress"])
    set_random_state(state["random"])
    return state["epoch"]


def _check_config(saved, current, path):
    # A key on only one side belongs to another method's file or another version; it had no influence.
    differing = [
        f"{key}: {saved[key]!r} there, {current[key]!r} now"
        for key in sorted((saved.keys() & current.keys()) - FREE_TO_CHANGE)
        if saved[key] != current[key]
    ]
    if differing:
        raise FolderTaken(
            f"{path}: expected a run with this config, got one with another:\n"
            + "\n".join(differing)
            + f"\n{OTHER_FOLDER}"
        )


def _check_sources(saved, current, path):
    # A digest on only one side: an earlier version did not record it, or the dataset has no such images.
    common = [key for key in SOURCES if saved.get(key) and current.get(key)]
    differing = [SOURCES[key] for key in common if saved[key] != current[key]]
    if differing:
        raise FolderTaken(
            f"{path}: expected a run on this data, got one for which {' and '.join(differing)} were others. "
            f"{OTHER_FOLDER}"
        )
