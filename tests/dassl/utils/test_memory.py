"""Free memory is what the system and its container can still provide; freed memory is returned to them."""

import platform
from pathlib import Path

import pytest
import torch

from dassl.utils import free_memory, memory, return_freed_memory

CPU = torch.device("cpu")
GIB = 2**30


def system(tmp_path, monkeypatch, available, **container):
    (tmp_path / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {available // 1024} kB\n")
    for name, text in container.items():
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)


def test_without_a_container_the_systems_memory_counts(tmp_path, monkeypatch):
    system(tmp_path, monkeypatch, 3 * GIB)
    assert free_memory(CPU) == 3 * GIB


def test_a_containers_limit_counts_and_its_file_cache_does_not(tmp_path, monkeypatch):
    stat = f"anon 5\ninactive_file {GIB}\n"
    system(tmp_path, monkeypatch, 8 * GIB, max=f"{4 * GIB}\n", current=f"{3 * GIB}\n", stat=stat)
    assert free_memory(CPU) == 2 * GIB


def test_a_container_without_a_limit_has_the_systems_memory(tmp_path, monkeypatch):
    system(tmp_path, monkeypatch, 8 * GIB, max="max\n", current="5\n", stat="inactive_file 0\n")
    assert free_memory(CPU) == 8 * GIB


def test_half_of_the_memory_counts_if_the_system_reports_none(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "nothing")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    monkeypatch.setattr(memory.os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.get)
    assert free_memory(CPU) == 1000 * 4096 // 2


def resident():
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) * 1024


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="need glibc (most Linux distributions have it)")
def test_freed_memory_is_returned_to_the_system():
    size, count = 100_000, 1000  # small enough to stand in the heap
    held = [bytearray(size) for _ in range(count)]
    last = bytearray(size)  # what was freed before it cannot simply be cut off
    del held
    before = resident()
    return_freed_memory(CPU)
    assert before - resident() > 0.8 * size * count
    del last


def test_without_glibc_nothing_happens(monkeypatch):
    memory._glibc.cache_clear()
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    return_freed_memory(CPU)
    memory._glibc.cache_clear()
