"""The doctor finds planted problems and suggests fixes; its exit status shows whether there are any."""

import os
import re
import shutil
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch

from promptlearn.cli import doctor, main


@pytest.fixture(autouse=True)
def own_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("DASSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    roomy = SimpleNamespace(free=100 * doctor.GIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: roomy)


def findings(check, *arguments):
    return [str(finding) for finding in check(*arguments)]


def test_a_healthy_machine_gets_status_0(tmp_path, capsys):
    assert main(["doctor", "--output", str(tmp_path / "runs")]) == 0
    out = capsys.readouterr().out
    demo, _, real = out.partition("\nfor real data:\n")
    assert demo.startswith("for the demo:\n") and "missing" not in demo and "problem" not in out
    assert re.search("^missing  no data folder given$", real, re.MULTILINE)
    assert out.endswith("the demo: everything is in order\nreal data: 2 missing\n")
    assert re.search(r"^ok .* cores, \d+ threads$", out, re.MULTILINE)
    assert re.search("^ok .*datasets that need no download: .*digits", out, re.MULTILINE)
    assert f"ok       runs: 100.0 GiB free in {tmp_path / 'runs'}" in out
    assert list(tmp_path.iterdir()) == []  # it leaves no files


def test_problems_are_reported_with_advice_and_status_1(tmp_path, capsys):
    damaged = tmp_path / ".cache" / "clip" / "ViT-B-16.pt"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"cut off")
    assert main(["doctor", "--data", str(tmp_path / "none"), "--output", str(tmp_path / "runs")]) == 1
    out = capsys.readouterr().out
    assert f"problem  weights {damaged} are damaged, or not OpenAI's\n         -> delete it to download it again" in out
    assert f"problem  the data folder {tmp_path / 'none'} does not exist\n         -> correct --data" in out
    assert out.endswith("the demo: everything is in order\nreal data: 2 problems\n")


def test_a_data_folder_is_reported_dataset_by_dataset(tmp_path, capsys):
    (tmp_path / "data" / "oxford_pets").mkdir(parents=True)
    assert main(["doctor", "--data", str(tmp_path / "data"), "--output", str(tmp_path)]) == 0
    assert f"ok       datasets in {tmp_path / 'data'}: oxford_pets\n" in capsys.readouterr().out


def test_folders_that_cannot_be_written_and_full_disks_are_problems(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=doctor.GIB))
    assert findings(doctor.disks, tmp_path)[0].startswith(f"problem  runs: 1.0 GiB free in {tmp_path}\n")

    def fail(*arguments):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", fail)
    found = findings(doctor.disks, tmp_path)
    assert all(finding.startswith("problem") and "Read-only file system" in finding for finding in found)
    assert "DASSL_CACHE" in found[1]


@pytest.mark.parametrize(("cuda", "message"), [(None, "built without CUDA"), ("13.0", "finds no GPU with it")])
def test_a_driver_without_a_torch_that_uses_it_is_a_problem(monkeypatch, cuda, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert findings(doctor.gpu) == ["note     no GPU: runs use the CPU, which is enough for the built-in demo"]
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    (found,) = findings(doctor.gpu)
    assert found.startswith("problem") and message in found


def test_a_missing_package_is_a_problem_and_an_extra_is_not(monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda name: ["torch", "not-there>=2", 'nor-this; extra == "test"'])
    found = findings(doctor.packages)
    assert len(found) == 2 and found[1].startswith("problem  the package not-there is missing\n")


def test_little_memory_and_too_many_threads_are_noted(monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: 2**15)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**26))
    monkeypatch.setattr(os.path, "isdir", lambda path: True)
    found = findings(doctor.memory)
    assert found[0].startswith("note     1.0 GiB of memory\n") and "NUM_WORKERS 0" in found[1]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4096)
    assert "OMP_NUM_THREADS=" in findings(doctor.processors)[0]
