"""Files of torch.save are read as tensors; nothing that stands in them is built or run."""

import collections
import os
import pickle
import random
import struct
import warnings
import zipfile

import pytest
import torch
from original_files import OPTIMISERS, SCHEDULES, original_checkpoint
from torch import nn

from basics import UserError
from basics.tensors import Refused, Stub, read_tensors
from dassl.optim.lr_scheduler import ConstantWarmupScheduler
from dassl.utils import load_checkpoint, resume_from_checkpoint

STATE = {"ctx": torch.arange(6.0).reshape(2, 3), "half": torch.ones(3, dtype=torch.float16)}


def save(content, path):
    torch.save(content, path)
    return path


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_tensors_beside_live_schedules_and_optimisers_are_read(tmp_path, optimiser, schedule):
    original = original_checkpoint(STATE, optimiser=optimiser, schedule=schedule)
    path = save(original, tmp_path / "a")
    with pytest.raises(pickle.UnpicklingError):  # the reason for a reader of our own
        torch.load(path, weights_only=True)
    found = load_checkpoint(path)
    assert list(found["state_dict"]) == list(STATE) and found["epoch"] == 50 and found["val_result"] is None
    for name, tensor in STATE.items():
        assert torch.equal(found["state_dict"][name], tensor) and found["state_dict"][name].dtype == tensor.dtype
    assert isinstance(found["scheduler"].pop("successor"), Stub)
    del original["scheduler"]["successor"]
    assert found["scheduler"] == original["scheduler"]


def test_no_object_of_the_file_is_built(tmp_path, monkeypatch):
    parameter = nn.Parameter(torch.ones(2))
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    successor = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 5)
    content = {**original_checkpoint(STATE), "schedule": ConstantWarmupScheduler(optimiser, successor, 1, 1e-5)}
    path = save(content, tmp_path / "a")

    def built(*arguments, **named):
        raise AssertionError("an object of the file was built")

    for kind in (torch.optim.SGD, torch.optim.lr_scheduler.CosineAnnealingLR, ConstantWarmupScheduler):
        monkeypatch.setattr(kind, "__setstate__", built, raising=False)
    assert isinstance(load_checkpoint(path)["schedule"], Stub)


def test_what_torch_reads_is_read_alike(tmp_path):
    base = torch.arange(24.0)
    content = {
        "views": [base.view(4, 6).t(), base[3:9:2], base[:0], base[5]],
        "types": [base.to(dtype) for dtype in (torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool)],
        "parameter": nn.Parameter(base),
        "plain": [None, True, False, -1, 300, 70000, 2**80, 1.5, "\u00e9", (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "ordered": collections.OrderedDict(a=1, b=[{}]),
    }
    path = save(content, tmp_path / "a")
    ours, theirs = read_tensors(path), torch.load(path, weights_only=True)
    assert list(ours) == list(theirs)
    assert ours["plain"] == theirs["plain"] and ours["ordered"] == dict(theirs["ordered"])
    assert torch.equal(ours["parameter"], theirs["parameter"])
    for key in ("views", "types"):
        for mine, other in zip(ours[key], theirs[key], strict=True):
            assert torch.equal(mine, other) and (mine.dtype, mine.stride()) == (other.dtype, other.stride())


def test_a_schedule_that_was_not_built_is_not_gone_on_with(tmp_path):
    model = nn.Linear(2, 2)
    save(original_checkpoint(model.state_dict()), tmp_path / "model.pth.tar-50")
    (tmp_path / "checkpoint").write_text("model.pth.tar-50\n")
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = ConstantWarmupScheduler(optimiser, torch.optim.lr_scheduler.StepLR(optimiser, 9), 1, 1e-5)
    with pytest.raises(UserError, match="but not resumed"):
        resume_from_checkpoint(tmp_path, model, scheduler=schedule)


def test_a_file_from_before_torch_1_6_is_told_how_to_convert(tmp_path):
    path = tmp_path / "a"
    torch.save(original_checkpoint(STATE), path, _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=r"before torch 1\.6; convert it where it was made") as info:
        load_checkpoint(path)
    assert "\n" not in str(info.value)
    torch.save({"state_dict": STATE, "epoch": 1}, path, _use_new_zipfile_serialization=False)
    assert torch.equal(load_checkpoint(path)["state_dict"]["ctx"], STATE["ctx"])  # plain ones torch itself reads


# ---- hostile files


class Calls:
    """Unpickled, it calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class SetsState:
    def __init__(self, mark):
        self.mark = mark

    def __getstate__(self):
        return {"mark": self.mark}

    def __setstate__(self, state):
        open(state["mark"], "w").close()


class FakeSGD(torch.optim.SGD):
    pass


def objects(mark):
    """Contents of a file that would leave `mark` behind, or build something, were they unpickled."""
    touch = f"touch {mark}"
    stub = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    stub.param_groups[0]["hook"] = Calls(os.system, touch)
    return {
        "os.system": {"state_dict": STATE, "scheduler": Calls(os.system, touch)},
        "eval": {"state_dict": STATE, "epoch": Calls(eval, f"open({mark!r}, 'w')")},
        "exec": {"state_dict": {"ctx": Calls(exec, f"open({mark!r}, 'w')")}},
        "getattr": [Calls(getattr, "a", "upper")],
        "import": [Calls(__import__, "antigravity")],
        "a state's setter": {**original_checkpoint(STATE), "extra": SetsState(mark)},
        "inside an optimiser": {"state_dict": STATE, "scheduler": {"successor": stub}},
        "another optimiser": {"state_dict": STATE, "scheduler": FakeSGD([nn.Parameter(torch.ones(1))], lr=1.0)},
        "a lambda's schedule": {
            "scheduler": torch.optim.lr_scheduler.LRScheduler.__new__(torch.optim.lr_scheduler.LambdaLR)
        },
        "a module": {"state_dict": nn.Linear(1, 1)},
        "torch.load": [Calls(torch.load, mark)],
    }


@pytest.mark.parametrize("kind", objects("x"))
def test_an_object_ends_the_reading_and_nothing_runs(tmp_path, kind):
    mark = tmp_path / "mark"
    path = save(objects(str(mark))[kind], tmp_path / "a")
    refused(path, "it asks for '")
    assert not mark.exists()


def refused(path, message):
    """The file is refused in one line by the reader itself, and by `load_checkpoint` unless torch reads it."""
    with pytest.raises(Refused, match=message) as info:
        read_tensors(path)
    assert "\n" not in str(info.value)
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's opinion of such a file
            torch.load(path, weights_only=True)
    except Exception:
        with pytest.raises(UserError, match='^Unable to load checkpoint from ".*"') as info:
            load_checkpoint(path)
        assert "\n" not in str(info.value)


def torch_file(path, program, **changes):
    """A file in torch.save's layout: a handwritten description, and one record of four floats."""
    records = {
        "data.pkl": b"\x80\x02" + program + b".",
        "data/0": struct.pack("<4f", 1, 2, 3, 4),
        "byteorder": b"little",
    }
    records |= {"version": b"3\n", **changes.pop("records", {})}
    with zipfile.ZipFile(path, "w", **changes) as archive:
        for name, data in records.items():
            archive.writestr(f"a/{name}", data)
    return path


def text(words):
    return b"X" + struct.pack("<I", len(words)) + words.encode()


def number(value):
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def numbers(*values):
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(count=4, key=None, kind="storage", dtype=b"ctorch\nFloatStorage\n"):
    return b"(" + text(kind) + dtype + (key or text("0")) + text("cpu") + number(count) + b"tQ"


def tensor(size=(4,), stride=(1,), offset=0, of=None):
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
    return rebuild + b"(" + (of or storage()) + number(offset) + numbers(*size) + numbers(*stride) + b"\x89N" + b"tR"


def test_the_handwritten_file_is_read_while_it_tells_the_truth(tmp_path):
    assert read_tensors(torch_file(tmp_path / "a", tensor())).tolist() == [1, 2, 3, 4]
    assert read_tensors(torch_file(tmp_path / "b", tensor((1, 2), (9, 2), 1))).tolist() == [[2, 4]]
    assert load_checkpoint(torch_file(tmp_path / "c", tensor())).tolist() == [1, 2, 3, 4]


SGD = b"ctorch.optim.sgd\nSGD\n"
SYSTEM = b"cposix\nsystem\n"
PROGRAMS = {
    "a longer storage": (tensor(of=storage(5)), "16 bytes, not the 5 numbers"),
    "a huge storage": (tensor(of=storage(2**62 + 4)), "16 bytes, not the 4611686018427387908 numbers"),
    "a negative storage": (tensor(of=storage(-4)), "16 bytes, not the -4 numbers"),
    "a shorter storage": (tensor(of=storage(3)), "16 bytes, not the 3 numbers"),
    "another type": (tensor(of=storage(dtype=b"ctorch\nDoubleStorage\n")), "16 bytes, not the 4 numbers"),
    "an unknown type": (tensor(of=storage(dtype=b"ctorch\nQInt8Storage\n")), "asks for 'torch.QInt8Storage'"),
    "no such record": (tensor(of=storage(key=text("../../etc/passwd"))), "damaged, KeyError"),
    "another reference": (tensor(of=storage(kind="module")), "no record of numbers"),
    "a reference in a reference": (tensor(of=storage(key=storage())), "damaged, KeyError"),
    "a bare reference": (text("0") + b"Q", "damaged, ValueError"),
    "a size beyond": (tensor((5,)), "overruns its 4 numbers"),
    "a stride beyond": (tensor((2, 2), (3, 1)), "overruns its 4 numbers"),
    "an offset beyond": (tensor((1,), (1,), 4), "overruns its 4 numbers"),
    "an offset beyond, empty": (tensor((0,), (1,), 5), "overruns its 4 numbers"),
    "a negative stride": (tensor((2,), (-1,), 1), "makes no sense"),
    "a negative offset": (tensor((2,), (1,), -1), "makes no sense"),
    "a negative size": (tensor((-1, -4), (1, 1)), "makes no sense"),
    "sizes without strides": (tensor((2, 2), (1,)), "makes no sense"),
    "one number a million million times": (tensor((10**12,), (0,)), "overruns its 4 numbers"),
    "a size beyond all": (tensor((2**63, 0), (1, 1)), "damaged"),
    "a tensor of no storage": (tensor(of=text("0000")), "damaged"),
    "a known name called": (SGD + b")R", "calls something that is no function"),
    "a type called": (b"ctorch\nFloatStorage\n)R", "calls something that is no function"),
    "a string called": (text("system") + text("ls") + b"\x85R", "calls something that is no function"),
    "a function's object": (b"ccollections\nOrderedDict\n)\x81", "no class"),
    "a function's attributes": (b"ctorch._utils\n_rebuild_tensor_v2\n}b", "treats a function as"),
    "a class's attributes": (SGD + b"}" + text("x") + b"K\x01sb", "treats a type as"),
    "a tensor's attributes": (tensor() + b"}b", "treats a Tensor as"),
    "a tensor's items": (tensor() + b"K\x00K\x01s", "treats a Tensor as dict"),
    "a string's end": (text("a") + text("b") + b"a", "treats a str as list"),
    "arguments of a stub": (SGD + SYSTEM + text("ls") + b"\x85R\x85\x81", "asks for 'posix.system'"),
    "a stub's state": (SGD + b")\x81" + SYSTEM + text("ls") + b"\x85Rb", "asks for 'posix.system'"),
    "an old instruction": (b"(S'ls'\niposix\nsystem\n", "holds STRING, which torch.save does not write"),
    "an instance": (b"(" + text("ls") + b"iposix\nsystem\n", "holds INST"),
    "an object": (b"(" + SYSTEM + text("ls") + b"o", "asks for 'posix.system'"),
    "a name from the stack": (text("posix") + text("system") + b"\x93", "holds STACK_GLOBAL"),
    "an extension": (b"\x82\x01", "holds EXT1"),
    "a text reference": (b"P0\n", "holds PERSID"),
    "a huge string": (b"X\xff\xff\xff\xff", "damaged, ValueError"),
    "a huge memo": (b"K\x01r\xff\xff\xff\xffh\x00", "damaged, KeyError"),
    "nothing below": (b"R", "damaged, IndexError"),
    "no mark": (b"t", "damaged, IndexError"),
    "no memory": (b"h\x05", "damaged, KeyError"),
    "half a pair": (b"}(K\x01u", "damaged, ValueError"),
    "a list for a name": (b"}]K\x01s", "damaged, TypeError"),
    "an unknown byte": (b"\xff", "damaged, ValueError"),
}


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_description_that_lies_or_asks_for_more_is_refused(tmp_path, kind):
    program, message = PROGRAMS[kind]
    refused(torch_file(tmp_path / "a", program), message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compression": zipfile.ZIP_DEFLATED}, "compressed or overlap"),
        ({"records": {"byteorder": b"big"}}, "not little-endian"),
        ({"records": {"b/data.pkl": b"N."}}, "damaged, ValueError"),
        ({"records": {"data/0": b""}}, "0 bytes, not the 4 numbers"),
    ],
)
def test_an_archive_that_torch_would_not_write_is_refused(tmp_path, changes, message):
    with pytest.raises(Refused, match=message):
        read_tensors(torch_file(tmp_path / "a", tensor(), **changes))


def test_records_that_claim_more_than_the_file_holds_are_refused(tmp_path):
    path = torch_file(tmp_path / "a", tensor())
    content = path.read_bytes()
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"a/data/0"))
    claim = struct.pack("<II", 2**31, 2**31)  # packed and plain size
    path.write_bytes(content[: entry + 20] + claim + content[entry + 28 :])
    refused(path, "compressed or overlap")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02}.", b"x" * 4096])
def test_what_is_no_archive_is_refused(tmp_path, content):
    path = tmp_path / "a"
    path.write_bytes(content)
    refused(path, "damaged, BadZipFile")


def test_a_file_cut_off_anywhere_is_refused(tmp_path):
    whole = save(original_checkpoint(STATE), tmp_path / "whole").read_bytes()
    path = tmp_path / "a"
    for end in range(0, len(whole) - 1, 997):
        path.write_bytes(whole[:end])
        with pytest.raises(Refused, match="damaged"):
            read_tensors(path)


def test_no_changed_byte_does_more_than_end_the_reading(tmp_path):
    path = tmp_path / "a"
    torch.save(original_checkpoint(STATE), path)
    with zipfile.ZipFile(path) as archive:
        records = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    program, outcomes, draw = records.pop("data.pkl"), collections.Counter(), random.Random(0)
    for _ in range(400):
        changed = bytearray(program[2:-1])
        for _ in range(draw.choice((1, 3))):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        torch_file(path, bytes(changed), records=records)
        try:
            read_tensors(path)
            outcomes["read"] += 1
        except Refused:
            outcomes["refused"] += 1
    assert outcomes["read"] > 20 and outcomes["refused"] > 20
