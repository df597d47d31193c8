"""How much memory is free, and giving back what is."""

import ctypes
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

CGROUP = Path("/sys/fs/cgroup")  # where Linux (cgroup v2) tells a container its limit
MEMINFO = Path("/proc/meminfo")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
KEPT = 2**31 - 1  # the largest number that mallopt takes


def free_memory(device: torch.device) -> int:
    """Bytes that can be had on a device: on a GPU what is free, else what the system and its container still give.

    Where the system does not tell, half of its memory counts as free.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free
    try:
        entries = dict(line.split(":") for line in MEMINFO.read_text().splitlines())
        free = int(entries["MemAvailable"].split()[0]) * 1024  # stands there in KiB
    except (OSError, KeyError, ValueError):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    try:
        limit = int((CGROUP / "memory.max").read_text())  # "max" where there is none
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        used = int((CGROUP / "memory.current").read_text()) - int(stat["inactive_file"])  # files go when needed
    except (OSError, KeyError, ValueError):
        return free
    return max(min(free, limit - used), 0)


@cache
def _glibc(name: str) -> Callable[..., int]:
    """glibc's function of that name; where there is another library, one that does nothing."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, TypeError):  # another C library; Windows
        return lambda *arguments: 0


def keep_freed_memory() -> None:
    """Have this process reuse the memory of freed tensors, instead of returning it to the system after each one.

    By default glibc takes a large tensor's memory from the system, and returns it when the tensor is freed. Each
    training step then has the kernel clear the same pages again: 1.35 million page faults in a step of RPO with 500
    classes. At most KEPT bytes of free memory stay; `return_freed_memory` returns those too.
    """
    _glibc("mallopt")(M_MMAP_THRESHOLD, KEPT)
    _glibc("mallopt")(M_TRIM_THRESHOLD, KEPT)


def return_freed_memory(device: torch.device) -> None:
    """Give the memory that was freed on a device back to the system; on a GPU torch does what is needed.

    glibc keeps what is freed, and finds little of it again for tensors that are a little larger or wait for their
    alignment: a process that frees all it takes, a few hundred MB at a time, may grow by GiB all the same.
    """
    if device.type == "cpu" and not torch.compiler.is_compiling():
        _glibc("malloc_trim")(0)
