"""Write TorchScript archives like OpenAI's: nested modules pickled by name, storages as separate records."""

import io
import pickle
import zipfile

import torch


class Module:
    """Pickled under a name like TorchScript's."""


class Storage:
    def __init__(self, key, tensor):
        self.reference = ("storage", torch.FloatStorage, str(key), "cpu", tensor.numel())


class Rebuild:
    def __init__(self, storage, tensor):
        self.storage, self.tensor = storage, tensor

    def __reduce__(self):
        args = (self.storage, 0, tuple(self.tensor.shape), self.tensor.stride(), False, None)
        return torch._utils._rebuild_tensor_v2, args


class ArchivePickler(pickle._Pickler):
    def persistent_id(self, thing):
        return thing.reference if isinstance(thing, Storage) else None

    def save_global(self, thing, name=None):
        if thing is Module:
            self.write(pickle.GLOBAL + b"__torch__.multimodal\nCLIP\n")
            self.memoize(thing)
        else:
            super().save_global(thing, name)


def write_archive(path, state, payload=None):
    """Write an archive whose modules hold the tensors of `state`, and `payload` as one more attribute."""
    top, records = Module(), {}
    for i, (name, tensor) in enumerate(state.items()):
        *parents, leaf = name.split(".")
        node = top
        for parent in parents:
            node = node.__dict__.setdefault(parent, Module())
        records[i] = tensor.numpy().tobytes()
        node.__dict__[leaf] = Rebuild(Storage(i, tensor), tensor)
    if payload is not None:
        top.payload = payload
    description = io.BytesIO()
    ArchivePickler(description, protocol=2).dump(top)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", description.getvalue())
        archive.writestr("m/constants.pkl", b"")
        archive.writestr("m/version", b"3\n")
        for i, record in records.items():
            archive.writestr(f"m/data/{i}", record)
