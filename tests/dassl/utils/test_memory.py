"""Free memory is what the system and its container still give."""

import torch

from dassl.utils import free_memory, memory

CPU = torch.device("cpu")
GIB = 2**30


def system(tmp_path, monkeypatch, available, **container):
    (tmp_path / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {available // 1024} kB\n")
    for name, text in container.items():
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)


def test_without_a_container_it_is_the_systems(tmp_path, monkeypatch):
    system(tmp_path, monkeypatch, 3 * GIB)
    assert free_memory(CPU) == 3 * GIB


def test_a_containers_limit_counts_and_its_file_cache_does_not(tmp_path, monkeypatch):
    stat = f"anon 5\ninactive_file {GIB}\n"
    system(tmp_path, monkeypatch, 8 * GIB, max=f"{4 * GIB}\n", current=f"{3 * GIB}\n", stat=stat)
    assert free_memory(CPU) == 2 * GIB


def test_a_container_without_a_limit(tmp_path, monkeypatch):
    system(tmp_path, monkeypatch, 8 * GIB, max="max\n", current="5\n", stat="inactive_file 0\n")
    assert free_memory(CPU) == 8 * GIB


def test_a_system_that_does_not_tell_gives_half_of_its_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "nothing")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    monkeypatch.setattr(memory.os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.get)
    assert free_memory(CPU) == 1000 * 4096 // 2
