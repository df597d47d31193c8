"""Reads what runs of the toy method in dassl/engine/conftest.py leave."""

import csv
import json

import pytest

from dassl.utils import load_checkpoint


def results_of(folder):
    """Return the content of results.json, without what may differ between two equal runs."""
    results = json.loads((folder / "results.json").read_text())
    del results["seconds"], results["peak_memory_mib"], results["config"]["OUTPUT_DIR"]
    return results


def rows_of(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def last_tensors(folder, epoch=4):
    return load_checkpoint(folder / "prompt_learner" / f"model.pth.tar-{epoch}")["state_dict"]


def kill(trainer, epoch, batch):
    trainer.killed_at = (epoch, batch)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
