"""Tensors out of a file of `torch.save` that holds other objects too, without building those.

The original Dassl's checkpoints hold the schedule and the optimiser as pickled objects, for which torch's own
tensors-only reader refuses the file whole. The description in such a file (`data.pkl`) is a program for a stack
machine. Here it is carried out by hand: it can make numbers, strings, lists, tuples, dicts and tensors over the file's
records; an object of the few known classes becomes a `Stub`; whatever else it asks for ends the reading.
"""

import math
import os
import pickletools
import zipfile

import torch

STORAGES = {
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch DoubleStorage": torch.float64,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
}

# What a schedule with a warm-up brings along.
STUBS = {
    "dassl.optim.lr_scheduler ConstantWarmupScheduler",
    "dassl.optim.lr_scheduler LinearWarmupScheduler",
    "dassl.optim.radam RAdam",
    "torch.optim.adam Adam",
    "torch.optim.adamw AdamW",
    "torch.optim.lr_scheduler CosineAnnealingLR",
    "torch.optim.lr_scheduler MultiStepLR",
    "torch.optim.lr_scheduler StepLR",
    "torch.optim.rmsprop RMSprop",
    "torch.optim.sgd SGD",
}

LEGACY_START = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # torch.save before torch 1.6


class Refused(ValueError):
    """The file is damaged, or holds what is not read; the message is one line."""


class Stub:
    """Stands where an object was that is not built; it has no content."""


def _tensor(storage, offset, size, stride, *_):
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or any(type(number) is not int or number < 0 for number in numbers):
        raise Refused(f"a tensor of size {size}, stride {stride}, offset {offset} makes no sense")
    end = offset + 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if all(size) else offset
    if max(end, math.prod(size)) > len(storage):
        raise Refused(f"a tensor of size {size} and stride {stride} at {offset} overruns its {len(storage)} numbers")
    return torch.as_strided(storage, size, stride, offset)


def _mapping(*arguments):
    return next((argument for argument in arguments if type(argument) is dict), {})  # Counter brings its content


FUNCTIONS = {
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": lambda tensor, *_: tensor,
    "collections OrderedDict": _mapping,
    "collections defaultdict": _mapping,
    "collections Counter": _mapping,
    "__builtin__ dict": _mapping,  # the name of `dict` in pickle's protocol 2
}


def read_tensors(path):
    """What `torch.save` wrote to `path`, with a `Stub` for each object.

    Raises:
        Refused: the file is damaged, older than torch 1.6, or asks for more than tensors, containers and stubs.
    """
    try:
        with open(path, "rb") as file:
            if file.read(len(LEGACY_START)) == LEGACY_START:
                raise Refused(
                    "it is in the format of torch.save before torch 1.6; convert it where it was made, with a torch of "
                    "1.6 or later: c = torch.load(FILE); torch.save({'state_dict': c['state_dict'], "
                    "'epoch': c['epoch']}, FILE)"
                )
        with zipfile.ZipFile(path) as archive:
            return _carry_out(*_records(archive, os.path.getsize(path)))
    except Refused:
        raise
    except Exception as error:  # a damaged file raises nearly anything
        raise Refused(f"it is damaged, {type(error).__name__}: {error}".splitlines()[0]) from error


def _records(archive, file_size):
    """The description, and a function from a reference in it to the numbers, shape (count,)."""
    records = archive.infolist()
    if any(r.compress_type != zipfile.ZIP_STORED for r in records) or sum(r.file_size for r in records) > file_size:
        raise Refused("its records are compressed or overlap, which torch.save does not do")
    (name,) = (r.filename for r in records if r.filename.endswith("/data.pkl"))
    root, seen = name.removesuffix("data.pkl"), {}
    if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
        raise Refused("its numbers are not little-endian")

    def numbers(reference):
        kind, dtype, key, _, count = reference
        record = archive.getinfo(f"{root}data/{key}")
        if kind != "storage" or type(dtype) is not torch.dtype or type(count) is not int:
            raise Refused("it refers to something that is no record of numbers")
        if record.file_size != count * dtype.itemsize:
            raise Refused(f"a record holds {record.file_size} bytes, not the {count} numbers ({dtype}) it claims")
        if (key, dtype) not in seen:
            data = bytearray(archive.read(record))
            seen[key, dtype] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return seen[key, dtype]

    return archive.read(name), numbers


def _named(name):
    if name in STUBS:
        return Stub
    if name not in STORAGES and name not in FUNCTIONS:
        raise Refused(f"it asks for {name.replace(' ', '.')!r}, which is neither a tensor nor a container")
    return STORAGES[name] if name in STORAGES else FUNCTIONS[name]


def _checked(value, *kinds):
    if type(value) not in kinds:
        raise Refused(f"its description treats a {type(value).__name__} as {' or '.join(k.__name__ for k in kinds)}")
    return value


def _carry_out(program, numbers):
    """Carry out a description, in pickle's protocol 2 (the one of `torch.save`)."""
    stack, below, memo = [], [], {}
    for opcode, argument, _ in pickletools.genops(program):
        match opcode.name:
            case "PROTO":
                pass
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "NONE":
                stack.append(argument)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[opcode.name]())
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "MARK":
                below.append(stack)
                stack = []
            case "TUPLE" | "APPENDS" | "SETITEMS":
                stack, items = below.pop(), stack
                if opcode.name == "TUPLE":
                    stack.append(tuple(items))
                elif opcode.name == "APPENDS":
                    _checked(stack[-1], list).extend(items)
                else:
                    _checked(stack[-1], dict).update(zip(items[::2], items[1::2], strict=True))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(int(opcode.name[-1]))]
                stack.append(tuple(reversed(items)))
            case "APPEND":
                item = stack.pop()
                _checked(stack[-1], list).append(item)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _checked(stack[-1], dict)[key] = value
            case "GLOBAL":
                stack.append(_named(argument))
            case "BINPERSID":
                stack.append(numbers(stack.pop()))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                if not any(function is known for known in FUNCTIONS.values()):
                    raise Refused("it calls something that is no function of a tensor or a container")
                stack.append(function(*_checked(arguments, tuple)))
            case "NEWOBJ":
                stack.pop()  # arguments: a stub has no use for them
                if stack.pop() is not Stub:
                    raise Refused("it makes an object of something that is no class")
                stack.append(Stub())
            case "BUILD":  # attributes: an object's, or a dict's (`_metadata` of a state dict); neither is kept
                stack.pop()
                _checked(stack[-1], Stub, dict)
            case "STOP":
                return stack.pop()
            case _:
                raise Refused(f"its description holds {opcode.name}, which torch.save does not write")
