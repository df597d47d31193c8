"""Files of torch.save are read as tensors: nothing in them is executed, and no object in them is rebuilt."""

import collections
import io
import os
import random
import struct
import zipfile

import pytest
import torch
from hostile import Calls
from original_files import OPTIMIZERS, SCHEDULES, original_checkpoint
from torch import nn

from basics import UserError
from basics.tensors import Refused, Stub, read_tensors
from dassl.optim.lr_scheduler import ConstantWarmupScheduler
from dassl.utils import resume_from_checkpoint

STATE = {"ctx": torch.arange(6.0).reshape(2, 3), "half": torch.ones(3, dtype=torch.float16)}


def save(content, path, **settings):
    torch.save(content, path, **settings)
    return path


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_tensors_next_to_pickled_schedules_and_optimizers_are_read(tmp_path, optimizer, schedule):
    original = original_checkpoint(STATE, optimizer=optimizer, schedule=schedule)
    before_torch_1_6 = save(original, tmp_path / "old", _use_new_zipfile_serialization=False)
    for path in (save(original, tmp_path / "new"), before_torch_1_6):
        found = read_tensors(path)
        assert list(found["state_dict"]) == list(STATE) and found["epoch"] == 50 and found["val_result"] is None
        for name, tensor in STATE.items():
            assert torch.equal(found["state_dict"][name], tensor) and found["state_dict"][name].dtype == tensor.dtype
        assert isinstance(found["scheduler"].pop("successor"), Stub)
        assert found["scheduler"] == {k: v for k, v in original["scheduler"].items() if k != "successor"}


def test_no_object_in_a_file_is_rebuilt(tmp_path, monkeypatch):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=1.0)
    successor = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
    path = save({"schedule": ConstantWarmupScheduler(optimizer, successor, 1, 1e-5)}, tmp_path / "a")

    def rebuilt(*arguments, **named):
        raise AssertionError("an object in the file was rebuilt")

    for kind in (torch.optim.SGD, torch.optim.lr_scheduler.CosineAnnealingLR, ConstantWarmupScheduler):
        monkeypatch.setattr(kind, "__setstate__", rebuilt, raising=False)
    assert isinstance(read_tensors(path)["schedule"], Stub)


def test_tensors_and_containers_come_back_as_saved(tmp_path):
    base = torch.arange(24.0)
    tensors = [base.view(4, 6).t(), base[3:9:2], base[:0], base[5], base[:3, None].expand(3, 2)]
    kinds = (torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool, torch.complex64)
    tensors += [base.to(kind) for kind in kinds]
    plain = [None, True, -1, 70000, 2**80, 1.5, "\u00e9", (), (1,), (1, 2, 3, 4), {"a": [{}]}]
    path = save({"tensors": tensors, "plain": plain, "ordered": collections.OrderedDict(a=1)}, tmp_path / "a")
    found, shapes = read_tensors(path), read_tensors(path, "meta")
    assert found["plain"] == plain and found["ordered"] == {"a": 1}
    for mine, shape, saved in zip(found["tensors"], shapes["tensors"], tensors, strict=True):
        assert torch.equal(mine, saved) and (mine.dtype, mine.shape) == (saved.dtype, saved.shape)
        assert shape.is_meta and (shape.dtype, shape.shape) == (saved.dtype, saved.shape)


def test_tensors_outlive_their_file(tmp_path):
    path = save(STATE, tmp_path / "a")
    found = read_tensors(path)
    with open(path, "r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert torch.equal(found["ctx"], STATE["ctx"])


def test_a_schedule_that_was_not_rebuilt_cannot_be_resumed(tmp_path):
    model = nn.Linear(2, 2)
    save(original_checkpoint(model.state_dict()), tmp_path / "model.pth.tar-50")
    (tmp_path / "checkpoint").write_text("model.pth.tar-50\n")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = ConstantWarmupScheduler(optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 9), 1, 1e-5)
    with pytest.raises(UserError, match="but not resumed"):
        resume_from_checkpoint(tmp_path, model, scheduler=schedule)


# Hostile files


class SetsState:
    def __init__(self, mark):
        self.mark = mark

    def __setstate__(self, state):
        open(state["mark"], "w").close()


class FakeSGD(torch.optim.SGD):
    pass


def objects(mark):
    """Return contents of a file that would create the file `mark`, or rebuild something, if they were unpickled."""
    touch = f"touch {mark}"
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    optimizer.param_groups[0]["hook"] = Calls(os.system, touch)
    return {
        "os.system": {"state_dict": STATE, "scheduler": Calls(os.system, touch)},
        "eval": {"state_dict": STATE, "epoch": Calls(eval, f"open({mark!r}, 'w')")},
        "exec": {"state_dict": {"ctx": Calls(exec, f"open({mark!r}, 'w')")}},
        "getattr": [Calls(getattr, "a", "upper")],
        "import": [Calls(__import__, "antigravity")],
        "a state setter": {**original_checkpoint(STATE), "extra": SetsState(mark)},
        "inside an optimizer": {"state_dict": STATE, "scheduler": {"successor": optimizer}},
        "another optimizer": {"state_dict": STATE, "scheduler": FakeSGD([nn.Parameter(torch.ones(1))], lr=1.0)},
        "a lambda schedule": {
            "scheduler": torch.optim.lr_scheduler.LRScheduler.__new__(torch.optim.lr_scheduler.LambdaLR)
        },
        "a module": {"state_dict": nn.Linear(1, 1)},
        "torch.load": [Calls(torch.load, mark)],
    }


@pytest.mark.parametrize("kind", objects("x"))
def test_a_file_with_other_objects_is_refused_and_runs_nothing(tmp_path, kind):
    content = objects(str(tmp_path / "mark"))[kind]
    refused(save(content, tmp_path / "a"), "^it contains objects other than tensors")
    refused(save(content, tmp_path / "old", _use_new_zipfile_serialization=False), "^it is damaged or not")
    assert not (tmp_path / "mark").exists()


def refused(path, message):
    with pytest.raises(Refused, match=message) as info:
        read_tensors(path)
    assert "\n" not in str(info.value)


def torch_file(path, program, **changes):
    """Write a file of torch.save with a handwritten description and one record of four floats."""
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


def test_a_correct_handwritten_file_is_read(tmp_path):
    assert read_tensors(torch_file(tmp_path / "a", tensor())).tolist() == [1, 2, 3, 4]
    assert read_tensors(torch_file(tmp_path / "b", tensor((1, 2), (9, 2), 1))).tolist() == [[2, 4]]


SGD = b"ctorch.optim.sgd\nSGD\n"
SYSTEM = b"cposix\nsystem\n"
PROGRAMS = {
    "a shorter storage": tensor(of=storage(3)),
    "a negative storage": tensor(of=storage(-4)),
    "a storage far beyond the file": tensor((2**40,), of=storage(2**40)),
    "a storage beyond all": tensor((2**61,), of=storage(2**61)),
    "an unknown type": tensor(of=storage(dtype=b"ctorch\nNoStorage\n")),
    "no such record": tensor(of=storage(key=text("../../etc/passwd"))),
    "another reference": tensor(of=storage(kind="module")),
    "a reference in a reference": tensor(of=storage(key=storage())),
    "a bare reference": text("0") + b"Q",
    "a size beyond": tensor((5,)),
    "a stride beyond": tensor((2, 2), (3, 1)),
    "an offset beyond": tensor((1,), (1,), 4),
    "a negative stride": tensor((2,), (-1,), 1),
    "a negative offset": tensor((2,), (1,), -1),
    "a negative size": tensor((-1, -4), (1, 1)),
    "sizes without strides": tensor((2, 2), (1,)),
    "one number repeated 10**15 times": tensor((10**15,), (0,)),
    "a size beyond all": tensor((2**63, 0), (1, 1)),
    "a tensor without storage": tensor(of=text("0000")),
    "a type called": b"ctorch\nFloatStorage\n)R",
    "a string called": text("system") + text("ls") + b"\x85R",
    "a function's attributes": b"ctorch._utils\n_rebuild_tensor_v2\n}b",
    "a class's attributes": SGD + b"}" + text("x") + b"K\x01sb",
    "a string extended": text("a") + text("b") + b"a",
    "arguments of a stub": SGD + SYSTEM + text("ls") + b"\x85R\x85\x81",
    "state of a stub": SGD + b")\x81" + SYSTEM + text("ls") + b"\x85Rb",
    "an old instruction": b"(S'ls'\niposix\nsystem\n",
    "an instance": b"(" + text("ls") + b"iposix\nsystem\n",
    "an object": b"(" + SYSTEM + text("ls") + b"o",
    "a name from the stack": text("posix") + text("system") + b"\x93",
    "an extension": b"\x82\x01",
    "a text reference": b"P0\n",
    "a huge string": b"X\xff\xff\xff\xff",
    "a huge memo": b"K\x01r\xff\xff\xff\xffh\x00",
    "an empty stack": b"R",
    "no mark": b"t",
    "no memo": b"h\x05",
    "half a pair": b"}(K\x01u",
    "a list as a key": b"}]K\x01s",
    "a list in itself": b"]q\x00h\x00a",
    "an unknown byte": b"\xff",
}


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_false_or_calling_description_is_refused(tmp_path, kind):
    refused(torch_file(tmp_path / "a", PROGRAMS[kind]), "^it is damaged|^it contains (objects|a tensor that is larger)")


def test_a_storage_that_claims_too_much_stays_within_the_file(tmp_path):
    # Harmless: such a file could as well hold other numbers.
    path = torch_file(tmp_path / "a", tensor((5,), of=storage(5)))
    assert read_tensors(path)[:4].tolist() == [1, 2, 3, 4]


def test_compressed_records_are_refused(tmp_path):
    refused(torch_file(tmp_path / "a", tensor(), compression=zipfile.ZIP_DEFLATED), "compressed or overlap")


def test_overlapping_records_are_refused(tmp_path):
    path = torch_file(tmp_path / "a", tensor())
    content = path.read_bytes()
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"a/data/0"))
    claim = struct.pack("<II", 2**31, 2**31)  # compressed and plain size
    path.write_bytes(content[: entry + 20] + claim + content[entry + 28 :])
    refused(path, "compressed or overlap")


def test_a_wrong_checksum_is_refused(tmp_path):
    path = torch_file(tmp_path / "a", tensor())
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<f", 3), struct.pack("<f", 5)))
    refused(path, "the checksum of its record 'a/data/0' is wrong")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02}.", b"x" * 4096])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "a"
    path.write_bytes(content)
    refused(path, "^it is damaged")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_file_is_refused(tmp_path, zipped):
    whole = save(STATE, tmp_path / "whole", _use_new_zipfile_serialization=zipped).read_bytes()
    path = tmp_path / "a"
    for end in range(0, len(whole) - 1, 97):
        path.write_bytes(whole[:end])
        refused(path, "^it is damaged")


@pytest.mark.parametrize("zipped", [True, False])
def test_changed_bytes_give_tensors_or_a_refusal(tmp_path, zipped):
    buffer = io.BytesIO()
    torch.save(original_checkpoint(STATE), buffer, _use_new_zipfile_serialization=zipped)
    path, outcomes, draw, records = tmp_path / "a", collections.Counter(), random.Random(0), {}
    description = buffer.getvalue()
    if zipped:  # its description alone, so that the checksums stay right
        with zipfile.ZipFile(buffer) as archive:
            records = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
        description = records.pop("data.pkl")[2:-1]
    for _ in range(200):
        changed = bytearray(description)
        for _ in range(draw.choice((1, 3))):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        if zipped:
            torch_file(path, bytes(changed), records=records)
        else:
            path.write_bytes(changed)
        try:
            read_tensors(path)
            outcomes["read"] += 1
        except Refused:
            outcomes["refused"] += 1
    assert outcomes["read"] > 10 and outcomes["refused"] > 10
