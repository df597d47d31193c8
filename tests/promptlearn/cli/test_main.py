import functools
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dassl import __version__
from promptlearn.cli import main
from promptlearn.experiments import PROTOCOLS
from tests.fake_checkout import FakeCheckout

ROOT = Path(__file__).parents[3]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    fake = FakeCheckout(tmp_path)
    monkeypatch.chdir(fake.root)
    return fake


def start(*arguments, folder, **pipes):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "promptlearn.cli", *arguments]
    # Ctrl-C works whoever runs the tests: a shell's background job would pass on that SIGINT is ignored.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, preexec_fn=heed, **pipes)


def test_base2new_prints_only_the_table_to_stdout(fake, capfd):
    assert main(["base2new", "--trainers", "RPO"]) == 0
    out, err = capfd.readouterr()
    assert out.splitlines()[0].split() == "dataset method base new H seeds".split()
    assert "92.00 ± 1.00" in out and "62.00 ± 1.00" in out and "zero-shot CLIP" in out
    assert "built-in demo" in err
    assert (fake.output / "base2new" / "summary.json").is_file()
    *_, heading, report, results = err.splitlines()
    assert heading == "next:" and report.split() == ["dassl", "report", str(fake.output / "base2new")]
    assert main(results.split()[1:]) == 0


def test_the_same_command_again_gives_the_same_table_without_a_run(fake, capfd):
    main(["base2new", "--trainers", "RPO"])
    first = capfd.readouterr().out
    fake.calls()
    assert main(["base2new", "--trainers", "RPO"]) == 0
    again = capfd.readouterr()
    assert again.out == first and "8 of 8 runs are done" in again.err
    assert fake.calls() == []


def test_a_users_mistake_is_reported_once_and_gives_status_2(fake, capfd):
    fake.behave(fail=["seed"], status=2)
    assert main(["base2new", "--trainers", "RPO"]) == 2
    assert capfd.readouterr().err.count("error: planted failure") == 1


def test_results_of_other_settings_are_not_reused(fake, capfd):
    config = fake.root / "configs" / "trainers" / "RPO" / "tiny.yaml"
    main(["base2new", "--trainers", "RPO", "--seeds", "1"])
    result = fake.output / "base2new" / "train_base" / "digits" / "shots_16" / "RPO" / "tiny" / "seed1" / "results.json"
    result.write_text(json.dumps(json.loads(result.read_text()) | {"config": {"OPTIM": {"LR": 0.01}}}))
    config.write_text("OPTIM:\n  LR: 1e-2\n")
    assert main(["base2new", "--trainers", "RPO", "--seeds", "1"]) == 0
    capfd.readouterr()
    config.write_text("OPTIM:\n  LR: 0.02\n")
    assert main(["base2new", "--trainers", "RPO", "--seeds", "1"]) == 2
    assert "got one with others:\nOPTIM.LR: expected 0.02, got 0.01" in capfd.readouterr().err


def test_a_failed_run_is_missing_in_the_table_and_gives_status_1(fake, capfd):
    fake.behave(fail=["RPO/tiny/seed2"])
    assert main(["base2new", "--trainers", "RPO"]) == 1
    out, err = capfd.readouterr()
    assert "(2 of 3)" in out and "2 of 8 runs failed" in err


def test_dry_run_prints_the_commands_that_are_not_done_and_runs_nothing(fake, capfd):
    main(["base2new", "--trainers", "RPO", "--seeds", "1"])
    fake.calls()
    capfd.readouterr()
    data = fake.root / "my data"
    data.mkdir()
    assert main(["base2new", "--trainers", "RPO", "--seeds", "1", "2", "--dry-run"]) == 0
    assert main(["base2new", "--datasets", "oxford_pets", "--data", str(data), "--dry-run"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 2 + (2 + 8 * 3 * 2)
    assert fake.calls() == []
    assert shlex.split(lines[-1])[:4] == ["python", "train.py", "--root", "my data"]


def test_the_plan_for_other_engines_names_dependencies_and_resources(fake, capfd, tmp_path):
    resources = tmp_path / "cluster.yaml"
    resources.write_text("gpus: 1\nmemory: 16G\n")
    words = ["base2new", "--trainers", "RPO", "--seeds", "1", "--dry-run", "--format", "jsonl"]
    assert main([*words, "--cluster", str(resources), "--on", "slurm", "--cpus", "4"]) == 0
    entries = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [entry["after"] for entry in entries] == [[], [], [], [2]]
    assert entries[3]["command"][:2] == ["python", "train.py"] and "--model-dir" in entries[3]["command"]
    assert entries[0]["resources"] == {"cpus": 4, "gpus": 1, "memory": "16G", "minutes": 240}
    assert fake.calls() == []


@pytest.mark.parametrize(
    "words, message",
    {
        "--partition gpu": "error: --partition: expected --on slurm, got --on local.",
        "--detach --on ray": "error: --detach: expected --on slurm, got --on ray.",
        "--address auto": "error: --address: expected --on ray, got --on local.",
        "--on slurm --cluster nothing.yaml": "error: nothing.yaml: expected a config file, got nothing.",
        "--on slurm --cluster wrong.yaml": "wrong.yaml: partitoin: expected one of partition, ",
        "--on slurm --cluster zero.yaml": "error: zero.yaml: cpus: expected a whole number from 1, got 0. Correct it.",
    }.items(),
)
def test_wrong_options_of_a_cluster_are_refused(words, message, fake, capfd, monkeypatch, tmp_path):
    pytest.importorskip("submitit", reason="need submitit (pip install 'promptlearn-clip[slurm]')")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")  # Slurm
    monkeypatch.chdir(fake.root)
    (fake.root / "wrong.yaml").write_text("partitoin: gpu\n")
    (fake.root / "zero.yaml").write_text("cpus: 0\n")
    assert main(["base2new", "--trainers", "RPO", *words.split()]) == 2
    assert message in capfd.readouterr().err and fake.calls() == []


def test_a_printed_command_does_what_the_launcher_would(fake, capfd):
    main(["base2new", "--trainers", "RPO", "--seeds", "1", "--dry-run"])
    for line in capfd.readouterr().out.splitlines():
        subprocess.run([sys.executable, *shlex.split(line)[1:]], check=True)
    fake.calls()
    assert main(["base2new", "--trainers", "RPO", "--seeds", "1"]) == 0
    assert fake.calls() == []


def test_results_prints_the_table_of_a_folder(fake, capfd):
    main(["base2new", "--trainers", "RPO"])
    table = capfd.readouterr().out
    assert main(["results", "output"]) == 0
    assert capfd.readouterr().out == table


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_runs_prints_its_table_and_is_found_by_results(fake, capfd, protocol):
    few = ["--trainers", "RPO", "--seeds", "1", "--shots", "4", "--vary", "TRAINER.RPO.K", "2"]
    assert main([protocol, *few]) == 0
    table = capfd.readouterr().out
    assert "zero-shot CLIP" in table and "RPO (K=2)" in table and "missing" not in table
    assert main(["results", "output"]) == 0
    assert capfd.readouterr().out == table
    assert (fake.output / protocol / "summary.json").is_file()


def test_results_prints_every_protocol_by_its_name(fake, capfd):
    for protocol in ("base2new", "few_shot"):
        main([protocol, "--trainers", "RPO", "--seeds", "1", "--shots", "4"])
    capfd.readouterr()
    assert main(["results", "output"]) == 0
    out = capfd.readouterr().out
    assert out.index("base2new: train on base classes") < out.index("few_shot: all classes")


def test_results_in_other_formats_and_with_statistics(fake, capfd):
    main(["base2new", "--trainers", "RPO"])
    capfd.readouterr()
    for style, mark in [
        ("markdown", "|----"),
        ("latex", "\\toprule"),
        ("csv", "dataset,trainer,config,shots,"),
    ]:
        assert main(["results", "output", "--format", style]) == 0
        assert mark in capfd.readouterr().out
    assert main(["results", "output", "--statistics"]) == 0
    assert "zero-shot CLIP - RPO" in capfd.readouterr().out
    assert main(["results", "output", "--statistics", "RPO"]) == 0
    assert "RPO - zero-shot CLIP" in capfd.readouterr().out
    assert main(["results", "output", "--statistics", "PRO"]) == 2
    assert "expected a method with results (zero-shot CLIP, RPO), got 'PRO'" in capfd.readouterr().err


def test_methods_that_saw_other_images_are_reported_as_unfair(fake, capfd):
    fake.behave(draws={"RPO": "ab", "CoOp": "ab"})
    main(["base2new", "--trainers", "RPO", "CoOp", "--seeds", "1"])
    assert "not a fair comparison" not in capfd.readouterr().err
    fake.behave(draws={"RPO": "ab", "CoOp": "cd"})
    main(["base2new", "--trainers", "RPO", "CoOp", "--seeds", "2"])
    fair = "digits: expected one few-shot sample for all methods, got ab for RPO tiny and cd for CoOp tiny."
    assert capfd.readouterr().err.count(fair) == 1


def test_another_value_of_a_varied_setting_in_the_same_folder_is_refused(fake, capfd):
    arguments = ["ablation", "--trainers", "RPO", "--seeds", "1", "--vary", "TRAINER.RPO.K", "2"]
    main(arguments)
    folder = fake.output / "ablation" / "train_base" / "digits" / "shots_16" / "RPO" / "tiny,K=2" / "seed1"
    result = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps(result | {"config": {"TRAINER": {"RPO": {"K": 3}}}}))
    capfd.readouterr()
    assert main(arguments) == 2
    assert "TRAINER.RPO.K: expected 2, got 3" in capfd.readouterr().err


def test_a_comparison_that_was_stopped_shows_what_is_missing(fake, capfd):
    fake.behave(fail=["RPO/tiny/seed2", "RPO/tiny/seed3"])
    main(["base2new", "--trainers", "RPO", "CoOp"])
    capfd.readouterr()
    assert main(["results", "output"]) == 0
    assert "91.00 (1 of 3)" in capfd.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["base2nwe"], "unknown command 'base2nwe'. Did you mean 'base2new'?"),
        (["tain.py"], "tain.py: expected a script in"),
        (["base2new", "--data", "nowhere"], "expected the folder that holds the datasets, got nowhere"),
        (["base2new", "--trainers", "PRO"], "unknown trainer 'PRO'. Did you mean 'RPO'?"),
        (["base2new", "--checkout", "nowhere"], "nowhere: expected a checkout"),
        (["base2new", "--output", "train.py"], "train.py"),
        (["base2new", "--shots", "0"], "--shots: expected training images per class (1 or more), a percentage of them"),
        (["few_shot", "--shots", "1", "101%"], 'or "all", got "101%".'),
        (["variance", "--shots", "al"], 'or "all", got "al".'),
        (["base2new", "--vary", "TRAINER.RPO.K"], "--vary TRAINER.RPO.K: expected the values to try after the key"),
        (["results", "configs"], "configs: expected a folder with runs, got one without results.json"),
        (["results", "nowhere"], "nowhere: expected a folder with runs, got no folder"),
    ],
)
def test_bad_input_gives_one_line_and_status_2_before_any_run(fake, capfd, arguments, message):
    assert main(arguments) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert fake.calls() == []


@pytest.mark.parametrize("arguments", [["--seeds", "-1"], ["--seeds", "one"], ["--trainer", "RPO"]])
def test_bad_flags_end_with_status_2(fake, capfd, arguments):
    with pytest.raises(SystemExit) as stop:
        main(["base2new", *arguments])
    assert stop.value.code == 2
    assert fake.calls() == []


def test_version_and_help(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"dassl {__version__}\n"
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in (*PROTOCOLS, "results", "train.py", "examples:"))
    assert main([]) == 0
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_comparison_resumes_to_the_same_table(fake, capfd, stop):
    fake.behave(slow=["RPO/tiny/seed1"])
    one = ["base2new", "--trainers", "RPO", "--jobs", "1"]
    launcher = start(*one, folder=fake.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(fake.root / "slow.started")
    launcher.send_signal(stop)
    out, err = launcher.communicate(timeout=30)
    assert launcher.returncode == 128 + stop
    assert (
        out == ""
        and f"stopped by {stop.name}. Run the same command to resume from here" in err
        and "Traceback" not in err
    )
    assert len(fake.calls()) == 3  # zero-shot base and new, and the slow one
    assert not [path for path in Path("/proc").glob("[0-9]*/cwd") if same(path, fake.root)]
    fake.behave()
    assert main(["base2new", "--trainers", "RPO"]) == 0
    assert len(fake.calls()) == 6
    stopped = capfd.readouterr().out
    assert main(["base2new", "--trainers", "RPO", "--output", "undisturbed"]) == 0
    assert capfd.readouterr().out == stopped


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)


def same(link, folder):
    """Return whether a process (not this one) works in the folder."""
    try:
        return link.parent.name != str(os.getpid()) and link.readlink() == folder
    except OSError:
        return False  # it ended meanwhile, or belongs to another user


def test_a_reader_that_leaves_gets_no_traceback():
    with start("doctor", folder=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as ours:
        ours.stdout.close()
        assert ours.stderr.read() == ""
    assert ours.returncode == 128 + signal.SIGPIPE


SCRIPT = """
import sys
import neighbor

print(__name__, sys.argv, sys.path[0], neighbor.WORD)
sys.exit(7 if "fail" in sys.argv else 0)
"""


def test_a_script_runs_as_python_would_run_it(tmp_path):
    folder = tmp_path / "sub"
    folder.mkdir()
    (folder / "script.py").write_text(SCRIPT)
    (folder / "neighbor.py").write_text("WORD = 'found'")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    for arguments, status in [(["--flag", "a b"], 0), (["fail"], 7)]:
        ours = start("sub/script.py", *arguments, folder=tmp_path, **pipes)
        out, _ = ours.communicate(timeout=60)
        python = subprocess.run(
            [sys.executable, "sub/script.py", *arguments], cwd=tmp_path, capture_output=True, text=True
        )
        assert out == python.stdout and "found" in out
        assert ours.returncode == python.returncode == status


def test_waiting_threads_do_not_spin_if_torch_is_imported_later():
    code = "import os; os.environ.pop('OMP_WAIT_POLICY', None); import dassl, sys; assert 'torch' not in sys.modules; "
    code += "import promptlearn.cli; print(os.environ['OMP_WAIT_POLICY'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "passive\n", done.stderr


need_full = pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="need /dev/full, a file that is always full (Linux has it)"
)


@need_full
@pytest.mark.parametrize("words", [["--help"], ["data", "list"]])
def test_output_to_a_full_disk_gives_one_message(words):
    with open("/dev/full", "w") as full:
        ours = start(*words, folder=ROOT, stdout=full, stderr=subprocess.PIPE)
        err = ours.communicate(timeout=60)[1]
    assert ours.returncode == 2
    assert err == (
        "error: the output: expected an accessible file, got an error: No space left on device. "
        "Free some space, or choose another folder.\n"
    )


@need_full
def test_progress_without_space_or_reader_does_not_stop_a_run(fake):
    reader, writer = os.pipe()
    os.close(reader)
    with open("/dev/full", "w") as full, open(writer, "w") as unread:
        for stderr, seeds in ((full, "1"), (unread, "2")):
            words = ["base2new", "--trainers", "RPO", "--seeds", seeds]
            ours = start(*words, folder=fake.root, stdout=subprocess.PIPE, stderr=stderr)
            assert "zero-shot CLIP" in ours.communicate(timeout=60)[0]
            assert ours.returncode == 0
    assert len(fake.calls()) == 6
