"""A Slurm cluster of two nodes on this machine, for tests of what runs through Slurm."""

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sinfo", "sbatch", "munged")
NODES = ("n1", "n2")
# Ports are derived from the process, so that two test processes do not meet. A job that is put into the queue again
# waits until its credential has expired.
CONFIG = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
AuthType=auth/munge
AuthInfo=cred_expire=10
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmctldPidFile={work}/ctld.pid
SlurmdPidFile={work}/d.%n.pid
SlurmdSpoolDir={work}/spool.%n
StateSaveLocation={work}/state
SlurmUser=root
SlurmdUser=root
SlurmctldPort={port}
SlurmctldLogFile={work}/ctld.log
SlurmdLogFile={work}/d.%n.log
SlurmdTimeout=10
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={first} CPUs=1 RealMemory=4000
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={second} CPUs=1 RealMemory=4000
PartitionName=debug Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Return why there can be no cluster here, with how to enable it; empty if there can."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return "need Slurm (apt-get install slurm-wlm munge)"
    return "" if os.geteuid() == 0 else "need root, to start Slurm's daemons"


class Cluster:
    """Started in a folder; `environment` is what Slurm's commands need to find it."""

    def __init__(self, work: Path):
        self.work = work
        for name in ("state", "spool.n1", "spool.n2"):
            (work / name).mkdir(parents=True)
        base = 20000 + os.getpid() % 10000
        text = CONFIG.format(work=work, port=base, first=base + 10001, second=base + 20002)
        (work / "slurm.conf").write_text(text)
        self.environment = {"SLURM_CONF": str(work / "slurm.conf")}
        self.start_munge()
        self.call("slurmctld")
        for node in NODES:
            self.start_node(node)
        self.wait_until(lambda: self.states() == {node: "idle" for node in NODES})

    def call(self, *command: str) -> str:
        done = subprocess.run(command, env=os.environ | self.environment, check=True, text=True, stdout=subprocess.PIPE)
        return done.stdout

    def start_munge(self) -> None:
        """Start the service by which Slurm's programs trust each other, unless it runs."""
        if subprocess.run("munge -n | unmunge", shell=True, capture_output=True).returncode == 0:
            return
        if not Path("/etc/munge/munge.key").exists():
            self.call("mungekey", "-c", "-f")
        folders = [f"{parent}/munge" for parent in ("/etc", "/run", "/var/log", "/var/lib")]
        for folder in folders:
            Path(folder).mkdir(exist_ok=True)
        self.call("chown", "-R", "munge:munge", *folders)
        self.call("chmod", "755", "/run/munge")
        self.call("su", "-s", "/bin/sh", "munge", "-c", "munged")
        self.wait_until(lambda: Path("/run/munge/munge.socket.2").exists())

    def start_node(self, node: str) -> None:
        self.call("slurmd", "-N", node)

    def kill_node(self, node: str) -> None:
        """Kill a node's daemon and all that runs on it, as a power failure would: nothing reports an end."""
        tasks = [folder for folder in Path("/proc").glob("[0-9]*") if self.runs_on(folder, node)]
        steps = {parent for parent in map(parent_of, tasks) if b"slurmstepd" in read(Path(f"/proc/{parent}/cmdline"))}
        for pid in [int((self.work / f"d.{node}.pid").read_text()), *steps, *(int(task.name) for task in tasks)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def runs_on(self, process: Path, node: str) -> bool:
        """Return whether a process (a folder of /proc) runs on a node of this cluster."""
        environment = read(process / "environ").split(b"\0")
        ours = f"SLURM_CONF={self.environment['SLURM_CONF']}".encode()
        return ours in environment and f"SLURMD_NODENAME={node}".encode() in environment

    def states(self) -> dict[str, str]:
        lines = self.call("sinfo", "--noheader", "--Node", "--format", "%N %t").split("\n")
        return dict(line.split() for line in lines if line)

    def wait_until(self, condition, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (self.work / "ctld.log").read_text()[-2000:]
            time.sleep(0.2)

    def close(self) -> None:
        for name in ("d.n1.pid", "d.n2.pid", "ctld.pid"):
            with suppress(OSError, ValueError):
                os.kill(int((self.work / name).read_text()), signal.SIGKILL)


def read(path: Path) -> bytes:
    """Read a file of /proc; empty if the process is gone."""
    with suppress(OSError):
        return path.read_bytes()
    return b""


def parent_of(process: Path) -> int:
    """Return the parent's process id; 0 if the process is gone."""
    lines = read(process / "status").decode().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("PPid:")), 0)
