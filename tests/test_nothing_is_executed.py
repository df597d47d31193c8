"""Nothing in a file is executed: no source file even names what could execute it, and hostile files run nothing."""

import ast
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from hostile import Calls
from original_files import original_checkpoint
from safetensors.torch import save, save_file
from small_clip import make_small_clip
from torch import nn
from torchscript_archive import write_archive

import clip
from basics import UserError, read_json, sha256
from clip import weight_files
from dassl.data.datasets import read_split
from dassl.engine.checkpoints import load_model_file
from dassl.utils import load_checkpoint, read_image

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path.relative_to(ROOT).as_posix()
    for package in ("basics", "clip", "dassl", "promptlearn", "datasets", "trainers", "scripts", "benchmarks")
    for path in (ROOT / package).rglob("*.py")
) + ["train.py", "setup.py"]

# Modules and calls that turn bytes into objects or commands.
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
BUILTINS = {"eval", "exec", "compile", "__import__"}  # methods of these names are harmless: model.eval, re.compile
CALLS = {
    *("os.system", "os.popen", "extractall", "extract", "unpack_archive"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "jit.load"),
    *("read_pickle", "joblib.load", "torch.hub.load", "torch.package.PackageImporter", "torch.compiler.load"),
}


def dangers(source):
    """List what a source file does that could execute data: one phrase per place."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [f"imports {name}" for name in names if name.split(".")[0] in MODULES]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            safe = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if name in BUILTINS or any(f".{name}".endswith(f".{call}") for call in CALLS):
                found.append(f"calls {name}")
            if name == "torch.load" and safe.get("weights_only") != "True":
                found.append("calls torch.load without weights_only=True")
            if name in ("np.load", "numpy.load") and safe.get("allow_pickle") != "False":
                found.append(f"calls {name} without allow_pickle=False")
            if safe.get("shell") == "True":
                found.append("hands a command to a shell")
            found += [f"says {k}={v}" for k, v in safe.items() if (k, v) in UNSAFE]
    return found


UNSAFE = {("weights_only", "False"), ("allow_pickle", "True"), ("trust_remote_code", "True")}


@pytest.mark.parametrize("file", SOURCES)
def test_no_source_file_could_execute_data(file):
    assert dangers((ROOT / file).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        *("import pickle", "from pickle import loads", "import joblib", "eval('1')", "exec(text)", "os.system('ls')"),
        *("torch.load(path)", "torch.load(path, weights_only=False)", "torch.load(path, weights_only=safe)"),
        *(
            "yaml.load(text, Loader=yaml.Loader)",
            "archive.extractall(folder)",
            "np.load(path)",
            "np.load(path, allow_pickle=True)",
        ),
        *(
            "torch.jit.load(path)",
            "subprocess.run(line, shell=True)",
            "f(trust_remote_code=True)",
            "pandas.read_pickle(p)",
        ),
    ],
)
def test_each_danger_is_detected(line):
    assert dangers(line)


# Hostile files


def saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def zipped(records, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return file.getvalue()


def tarred(name):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return file.getvalue()


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def hostile(mark):
    """Name -> content of files that would run `touch MARK`, fill the memory, or lie, if they were trusted."""
    run, tensors = Calls(os.system, f"touch {mark}"), {"ctx": torch.ones(4, 3)}
    legacy = io.BytesIO()
    torch.save({"state_dict": run}, legacy, _use_new_zipfile_serialization=False)
    whole, claim = saved({"state_dict": tensors}), {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    return {
        "a pickled command": pickle.dumps(run),
        "a command in a checkpoint": saved({"state_dict": tensors, "epoch": run}),
        "a command in an original checkpoint": saved({**original_checkpoint(tensors), "extra": run}),
        "a command before torch 1.6": legacy.getvalue(),
        "a command in protocol 0": pickle.dumps(run, 0),
        "an archive that holds programs": zipped(
            {"m/data.pkl": pickle.dumps(run), "m/constants.pkl": b"", "m/code/__torch__.py": b"import os"}
        ),
        "cut off": whole[: len(whole) // 2],
        "cut off at the end": whole[:-30],
        "wrong magic": b"\x89PNG" + whole[4:],
        "nothing": b"",
        "zeros": bytes(4096),
        "text": b"#!/bin/sh\ntouch " + str(mark).encode(),
        "a tar with a way out": tarred("../../way_out"),
        "a zip with a way out": zipped({"../../way_out": b"x", "a/data.pkl": pickle.dumps(run)}),
        "a zip bomb": zipped({"a/data.pkl": b"\0" * 2**26, "a/version": b"3"}, zipfile.ZIP_DEFLATED),
        "a header of 2**60 bytes": struct.pack("<Q", 2**60) + b"{}",
        "a header longer than the file": struct.pack("<Q", 2**20) + b"{}",
        "a header that is not JSON": safetensors(b"{'a':"),
        "thousands of brackets": safetensors(b"[" * 100_000),
        "shapes that lie": safetensors({"ctx": {**claim, "shape": [1000, 1000]}}, bytes(16)),
        "offsets beyond the file": safetensors({"ctx": {**claim, "data_offsets": [0, 2**40]}}, bytes(16)),
        "shapes that overflow": safetensors({"ctx": {**claim, "shape": [2**33, 2**33]}}, bytes(16)),
        "tensors that overlap": safetensors({"a": claim, "b": claim}, bytes(16)),
    }


KINDS = list(hostile("x"))


def one_line(error):
    return str(error).strip() and "\n" not in str(error)


@pytest.fixture
def planted(tmp_path, request):
    """Write the hostile file under each suffix; the file `mark` must not appear."""
    mark = tmp_path / "mark"
    content = hostile(mark)[request.param]
    paths = [tmp_path / f"evil{suffix}" for suffix in (".pt", ".safetensors", ".pth.tar-3", ".json", ".jpg")]
    for path in paths:
        path.write_bytes(content)
    yield paths
    assert not mark.exists()
    assert not (tmp_path.parent / "way_out").exists()


@pytest.mark.parametrize("planted", KINDS, indirect=True)
def test_every_reader_refuses_a_hostile_file_in_one_line(planted):
    learner = nn.Module()
    learner.ctx = nn.Parameter(torch.zeros(4, 3))
    for path in planted:
        for reader in (
            *(clip.backbone_config, clip.load_clip),
            *(load_checkpoint, lambda path: load_model_file(learner, path)),
            *(read_json, lambda path: read_split(str(path), ""), read_image),
        ):
            with pytest.raises(UserError) as error:
                reader(str(path))
            assert one_line(error.value), error.value
    assert torch.equal(learner.ctx, torch.zeros(4, 3))


def lies():
    """List changes of a CLIP's tensors that leave the file valid, and the message about each."""
    huge = torch.full((16, 64), 1e30)
    return {
        "NaN": (
            {"ln_final.weight": torch.full((16,), torch.nan)},
            "NaN or infinite ones .* in ln_final.weight",
        ),
        "infinity": (
            {"text_projection": torch.full((16, 64), torch.inf)},
            "NaN or infinite ones .* in text_projection",
        ),
        "too large for half precision": ({"text_projection": huge}, "NaN or infinite ones of torch.float16"),
        "whole numbers": (
            {"ln_final.weight": torch.ones(16, dtype=torch.int64)},
            "expected torch.float32, got torch.int64",
        ),
        "another shape": ({"ln_final.bias": torch.zeros(7)}, r"expected \(16,\), got \(7,\)"),
        "no width": ({"ln_final.weight": torch.zeros(0)}, "expected the sizes of a CLIP, got"),
        "a scalar": ({"text_projection": torch.tensor(1.0)}, "is missing"),
    }


@pytest.mark.parametrize("kind", lies())
def test_weights_with_false_sizes_are_refused_in_one_line(tmp_path, kind):
    changes, message = lies()[kind]
    state = {k: v.contiguous() for k, v in make_small_clip().state_dict().items()} | changes
    path = tmp_path / "lies.safetensors"
    sizes = {"sizes": '{"vision_heads": 4, "text_heads": 2}'}
    save_file(state, path, metadata=sizes)
    with pytest.raises(UserError, match=message) as error:
        clip.load_clip(str(path), torch.float16)
    assert one_line(error.value)


@pytest.mark.parametrize(
    "sizes",
    ["{", "[]", "3", '{"text_heads": 0}', '{"text_heads": "2"}', '{"text_heads": 3}', '{"activation": "os.system"}'],
)
def test_impossible_sizes_are_refused_in_one_line(tmp_path, sizes):
    state = {k: v.contiguous() for k, v in make_small_clip().state_dict().items()}
    (tmp_path / "odd.safetensors").write_bytes(save(state, metadata={"sizes": sizes}))
    for reader in (clip.backbone_config, clip.load_clip):
        with pytest.raises(UserError, match="expected the sizes of a CLIP|damaged metadata") as error:
            reader(str(tmp_path / "odd.safetensors"))
        assert one_line(error.value)


def test_a_file_with_the_sha256_of_openais_still_runs_nothing(tmp_path, monkeypatch):
    path, mark = tmp_path / "ViT-B-16.pt", tmp_path / "mark"
    write_archive(path, {"visual.proj": torch.ones(2, 3)}, Calls(os.system, f"touch {mark}"))
    monkeypatch.setattr(weight_files, "published_hashes", lambda: {sha256(path)})
    with pytest.raises(UserError, match="objects other than tensors .*system"):
        clip.load_clip(str(path))
    assert not mark.exists()
