"""Small helpers; the CoOp family imports many of them from here or from `dassl.utils`."""

import os
import platform
import warnings
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
import PIL
import torch

from basics.files import mkdir_if_missing, read_json, write_json
from basics.hints import similarity
from dassl.utils.images import read_image
from dassl.utils.seeds import set_random_seed

__all__ = [
    "available_cores",
    "check_availability",
    "check_isfile",
    "collect_env_info",
    "device_name",
    "get_most_similar_str_to_a_from_b",
    "in_threads",
    "listdir_nohidden",
    "mkdir_if_missing",
    "read_image",
    "read_json",
    "set_random_seed",
    "tolist_if_not",
    "write_json",
]

AHEAD = 16  # results per core that wait to be taken


def check_isfile(fpath):
    """Return whether `fpath` is a file, and warn if it is not."""
    found = os.path.isfile(fpath)
    if not found:
        warnings.warn(f'No file found at "{fpath}"', stacklevel=2)
    return found


def listdir_nohidden(path, sort=False):
    """Return the names in the folder `path` that do not start with a dot, in the file system's order or sorted."""
    names = [name for name in os.listdir(path) if not name.startswith(".")]
    return sorted(names) if sort else names


def get_most_similar_str_to_a_from_b(a, b):
    """Return the string in `b` (at least one) that is most similar to `a`, ignoring case."""
    return max(b, key=partial(similarity, a))


def check_availability(requested, available):
    """Raise ValueError, with the most similar of `available` (strings), unless `requested` is one of them."""
    if requested not in available:
        nearest = get_most_similar_str_to_a_from_b(requested, available)
        raise ValueError(f'expected one of {list(available)}, got "{requested}". Did you mean "{nearest}"?')


def available_cores():
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(function, items):
    """Yield `function(item)` for each item, in order, computed by one thread per core.

    For work that releases Python's lock, such as decoding and hashing. Once it is left (Ctrl-C), no new item starts.
    At most AHEAD results per core wait, so that memory does not grow with the number of items.
    """
    cores = available_cores()
    pool, waiting = ThreadPoolExecutor(cores), deque[Future]()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > AHEAD * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def device_name(device):
    """Return the name of a `torch.device`: the GPU's, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def tolist_if_not(x):
    """Return `x` if it is a list, otherwise a list that holds it."""
    return x if isinstance(x, list) else [x]


def collect_env_info():
    """Return versions and devices, as text for the log."""
    lines = [
        f"Python: {platform.python_version()} on {platform.platform()}",
        f"torch: {torch.__version__}, {torch.get_num_threads()} threads",
        f"numpy: {np.__version__}, Pillow: {PIL.__version__}",
    ]
    if torch.cuda.is_available():
        lines.append(f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
        lines += [f"GPU {i}: {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    else:
        lines.append("CUDA: not available")
    return "\n".join(lines)
