import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from promptlearn.experiments import PROTOCOLS
from tests.fake_checkout import FakeCheckout

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("scripts/*/*.sh"))
METHODS = {  # folder of scripts/ -> method
    "cocoop": "CoCoOp",
    "coop": "CoOp",
    "ivlp": "IVLP",
    "lp": "LP",
    "maple": "MaPLe",
    "rpo": "RPO",
    "sep": "SEP",
    "vpt": "VPT",
    "zeroshot_clip": "ZeroshotCLIP",
}


@pytest.fixture
def fake(tmp_path):
    (tmp_path / "the checkout").mkdir()
    fake = FakeCheckout(tmp_path / "the checkout")
    shutil.copytree(ROOT / "scripts", fake.root / "scripts")
    return fake


@pytest.fixture
def bash(fake, tmp_path):
    """Run a script of the fake checkout from a folder outside of it."""
    tools = tmp_path / "tools"
    tools.mkdir()
    python(tools / "python3")

    def run(script, *arguments, **environment):
        kept = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "DATA", "OUTPUT")}
        kept |= {"PATH": f"{tools}:{kept['PATH']}", "PYTHONPATH": str(ROOT), "CONDA_DEFAULT_ENV": "base"}
        return subprocess.run(
            ["bash", str(fake.root / script), *arguments],
            cwd=tmp_path,
            env=kept | environment,
            capture_output=True,
            text=True,
        )

    return run


def python(path, note="used"):
    """Write a stand-in for python that records its use and runs the real one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\n: > "$0.{note}"\nexec "{sys.executable}" "$@"\n')
    path.chmod(0o755)


@pytest.mark.parametrize("script", ["rpo/ablation", "sep/cross_dataset", "zeroshot_clip/few_shot"])
def test_a_script_starts_its_own_method_and_protocol_on_the_demo(bash, script):
    done = bash(f"scripts/{script}.sh", "--dry-run", SEEDS="1")
    assert done.returncode == 0, done.stderr
    folder, protocol = script.split("/")
    lines = done.stdout.splitlines()
    assert {line.split("--trainer ")[1].split()[0] for line in lines} == {"ZeroshotCLIP", METHODS[folder]}
    assert all(f"/{protocol}/" in line or "/train_source/" in line for line in lines)


def test_each_method_has_a_script_for_each_of_its_protocols():
    for folder in METHODS:
        found = {Path(script).stem for script in SCRIPTS if Path(script).parent.name == folder}
        untrained = {"variance", "ablation"} if folder == "zeroshot_clip" else set()
        assert found >= set(PROTOCOLS) - untrained - {"ablation"}


# CoOp's and CoCoOp's own commands -> the folders that they write, and the words that train.py gets
COMMANDS = {
    ("coop/main", "dtd", "rn50_ep50", "end", "16", "1", "False"): (
        "dtd/CoOp/rn50_ep50_1shots/nctx16_cscFalse_ctpend/seed{}",
        "DATASET.NUM_SHOTS 1 TRAINER.COOP.N_CTX 16 TRAINER.COOP.CSC False TRAINER.COOP.CLASS_TOKEN_POSITION end",
    ),
    ("coop/eval", "imagenetv2", "rn50"): (
        "evaluation/CoOp/rn50_16shots/nctx16_cscFalse_ctpend/imagenetv2/seed{}",
        "--model-dir {out}/imagenet/CoOp/rn50_16shots/nctx16_cscFalse_ctpend/seed{} TRAINER.COOP.N_CTX 16",
    ),
    ("cocoop/base2new_train", "dtd", "1"): (
        "base2new/train_base/dtd/shots_16/CoCoOp/vit_b16_c4_ep10_batch1_ctxv1/seed{}",
        "DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES base",
    ),
    ("cocoop/base2new_test", "dtd", "1"): (
        "base2new/test_new/dtd/shots_16/CoCoOp/vit_b16_c4_ep10_batch1_ctxv1/seed{}",
        "--model-dir {out}/base2new/train_base/dtd/shots_16/CoCoOp/vit_b16_c4_ep10_batch1_ctxv1/seed{} "
        "DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES new",
    ),
    ("cocoop/xd_train", "1"): (
        "imagenet/CoCoOp/vit_b16_c4_ep10_batch1_ctxv1_16shots/seed{}",
        "DATASET.NUM_SHOTS 16",
    ),
    ("cocoop/xd_test", "dtd", "1"): (
        "evaluation/CoCoOp/vit_b16_c4_ep10_batch1_ctxv1_16shots/dtd/seed{}",
        "--model-dir {out}/imagenet/CoCoOp/vit_b16_c4_ep10_batch1_ctxv1_16shots/seed{}",
    ),
}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_coops_own_commands_write_the_folders_of_its_readme(bash, fake, tmp_path, command):
    script, *arguments = command
    folder, words = COMMANDS[command]
    (tmp_path / "data").mkdir()
    done = bash(f"scripts/{script}.sh", *arguments, DATA="data", OUTPUT="out", SEEDS="1 3")
    assert done.returncode == 0, done.stderr
    calls = fake.calls()
    seeds = ["1", "3"] if script.startswith("coop/") else ["1"]
    assert [call[call.index("--output-dir") + 1] for call in calls] == [f"out/{folder.format(seed)}" for seed in seeds]
    for call, seed in zip(calls, seeds, strict=True):
        assert " ".join(call).endswith(words.format(seed, out="out")) and call[call.index("--root") + 1] == "data"
        assert ("--eval-only" in call) == ("--model-dir" in call)


def test_coops_own_commands_refuse_a_wrong_number_of_arguments(bash, fake):
    done = bash("scripts/coop/main.sh", "dtd", "rn50")
    assert done.returncode == 2 and done.stderr.startswith("error: expected 6 arguments, got 2. Usage: bash ")
    assert fake.calls() == []


def test_a_comparison_runs_all_methods_then_statistics_and_report(bash, fake):
    done = bash("scripts/compare.sh", "digits", "--jobs", "2", SEEDS="1 2")
    assert done.returncode == 1 and "FAILED" not in done.stderr  # the report's: these models cannot be looked into
    assert len([call for call in fake.calls() if "--explain" not in call]) == 2 + 8 * 2 * 2
    assert all(method in done.stdout for method in METHODS.values() if method != "ZeroshotCLIP")
    assert "Statistics of new" in done.stdout and "no ranks: Friedman's test needs" in done.stdout  # of one dataset
    page = fake.output / "base2new" / "report.html"
    assert page.is_file() and done.stdout.splitlines()[-1].endswith("/base2new/report.html")


def test_failed_runs_do_not_prevent_the_comparison(bash, fake):
    fake.behave(fail=["VPT"])
    done = bash("scripts/compare.sh", "digits", "--trainers", "CoOp", "VPT", SEEDS="1")
    assert done.returncode == 1 and "FAILED: VPT on digits" in done.stderr
    assert "Statistics of new" in done.stdout and "there are no results of" not in done.stderr
    assert (fake.output / "base2new" / "report.html").is_file()


def test_a_comparison_has_a_dry_run(bash, fake):
    done = bash("scripts/compare.sh", "--dry-run", SEEDS="1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3 * 9 * 2 and all(line.startswith("python train.py") for line in lines)
    assert fake.calls() == [] and not fake.output.exists()


def test_a_comparison_takes_ones_own_pictures(tmp_path):
    for name in ("ant", "bee", "cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (8, 8), (9 * number, 5, 7)).save(tmp_path / "photos" / name / f"{number}.png")
    rows = [f"photos/{path.parent.name}/{path.name},{path.parent.name}" for path in tmp_path.glob("photos/*/*")]
    (tmp_path / "insects.csv").write_text("\n".join(["path,label", *rows]))
    words = ["photos", "insects.csv", "twice=photos", "--trainers", "RPO", "--config", "tiny", "--dry-run"]
    command = ["bash", str(ROOT / "scripts" / "compare.sh"), *words]
    environment = os.environ | {"SEEDS": "1", "OUTPUT": str(tmp_path / "out")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    trained = [line for line in done.stdout.splitlines() if "/train_base/" in line and "--trainer RPO" in line]
    roots = [line.split("--root ")[1].split()[0] for line in trained if "--eval-only" not in line]
    assert roots == [str(tmp_path / name) for name in ("photos", "insects.csv", "photos")]
    assert "/train_base/twice/" in trained[-1]


def test_a_wrong_call_of_a_comparison_gives_one_message(bash):
    done = bash("scripts/compare.sh", "digts")
    assert done.returncode == 2 and done.stderr.count("error:") == 1 and done.stdout == ""


def test_the_environment_and_the_arguments_are_respected(bash, fake, tmp_path):
    (tmp_path / "images").mkdir()
    done = bash("scripts/rpo/base2new.sh", "oxford_pets", DATA="images", OUTPUT="out", SEEDS="2 5")
    assert done.returncode == 0, done.stderr
    calls = fake.calls()
    assert all(call[call.index("--root") + 1] == str(tmp_path / "images") for call in calls)
    assert [call[call.index("--seed") + 1] for call in calls] == ["1", "1", "2", "2", "5", "5"]
    assert (tmp_path / "out" / "base2new" / "summary.json").is_file() and not fake.output.exists()


def test_seeds_come_from_the_protocol_and_options_pass_through(bash, fake):
    done = bash("scripts/coop/variance.sh", "--dry-run", "--shots", "4")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "--trainer CoOp" in line]
    assert len(lines) == 10 * 2 and all("NUM_SHOTS 4" in line for line in lines)
    assert fake.calls() == []


def test_a_wrong_data_folder_gives_one_message_and_status_2(bash):
    done = bash("scripts/rpo/base2new.sh", "oxford_pets", DATA="/nowhere")
    assert done.returncode == 2
    assert done.stderr == (
        "error: --data: expected the folder that holds the datasets, got /nowhere, which is not a folder. Check the "
        "path.\n"
    )


def test_the_environment_of_the_checkout_is_used_unless_one_is_active(bash, fake, tmp_path):
    own = fake.root / ".venv" / "bin" / "python"
    python(own)
    assert bash("scripts/rpo/base2new.sh", "--dry-run", VIRTUAL_ENV="/active").returncode == 0
    assert not Path(f"{own}.used").exists() and (tmp_path / "tools" / "python3.used").exists()
    assert bash("scripts/rpo/base2new.sh", "--dry-run").returncode == 0
    assert Path(f"{own}.used").exists()


def test_a_python_without_the_dependencies_gets_a_clear_message(bash, fake):
    own = fake.root / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    own.chmod(0o755)
    done = bash("scripts/rpo/base2new.sh")
    assert done.returncode == 2 and "make demo" in done.stderr and "Traceback" not in done.stderr
