"""The machine under the measurements: its cores, who comes first on it, and what a tree of processes uses of it."""

import contextlib
import os
import platform
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

SERVER_CORE, CLIENT_CORE = 0, 1
_NICE = -10
_TICK = os.sysconf("SC_CLK_TCK")
_BUSY_FIELDS = (0, 2, 5, 6)  # user, system, irq, softirq of /proc/stat; nice is apart
_NICE_FIELD, _STEAL_FIELD = 1, 7


def describe() -> dict[str, object]:
    """Say what machine this is, as far as it matters to speed."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    return {
        "cores": os.cpu_count(),
        "processor": ", ".join(sorted(names)),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
    }


def come_first() -> str:
    """Raise this process's priority, and that of all it starts; return what was done, as a sentence."""
    done = []
    try:
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
        done.append(f"nice {_NICE}")
    except PermissionError:
        pass
    if favour(os.getpid()):
        done.append(f"autogroup nice {_NICE}")
    return f"Priority raised: {' and '.join(done)}." if done else "No right to raise the priority: others' work disturbs more."


def end_in_order() -> None:
    """Let SIGTERM and a closed terminal end this process as Ctrl-C does: with what it has started."""
    for one in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, lambda *_: sys.exit(1))


def favour(pid: int) -> bool:
    """Raise the priority of the process's autogroup: where sessions are scheduled as groups, nice acts inside a group only."""
    try:
        Path(f"/proc/{pid}/autogroup").write_text(str(_NICE))
    except OSError:
        return False
    return True


def pinned(core: int | None) -> list[str]:
    """Return what goes before a command so that it and its children stay on one core."""
    return [] if core is None else ["taskset", "--cpu-list", str(core)]


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()


class Tree:
    """A process that was started here, and all that it started."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._seen: set[psutil.Process] = {self._root}

    def processes(self) -> list[psutil.Process]:
        """Return those that live; those that were seen once are remembered, should they lose their parent."""
        self._seen = {one for one in self._seen if one.is_running()}
        parents = {one.pid for one in self._seen}
        others = [one for one in psutil.process_iter(["ppid"]) if one.pid not in parents]  # one look, however many there are
        while children := [one for one in others if one.info["ppid"] in parents]:
            self._seen.update(children)
            parents = {one.pid for one in children}
            others = [one for one in others if one not in self._seen]
        return list(self._seen)

    def favour(self) -> None:
        """Raise everyone's priority."""
        for one in self.processes():
            favour(one.pid)

    def cpu_s(self) -> float:
        """Return the seconds of processor that the tree has used, with children that have ended."""
        total = 0.0
        for one in self.processes():
            try:
                fields = Path(f"/proc/{one.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            except OSError:
                continue
            total += sum(int(value) for value in fields[11:15]) / _TICK
        return total

    def memory_mb(self) -> dict[str, float]:
        """Return resident and proportional memory of the whole tree, in MiB; shared pages count once in the second."""
        total = {"Rss": 0.0, "Pss": 0.0}
        for one in self.processes():
            try:
                lines = Path(f"/proc/{one.pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
            except OSError:
                continue
            for line in lines:
                name, _colon, value = line.partition(":")
                if name in total:
                    total[name] += int(value.split()[0]) / 1024
        return {"rss_mb": round(total["Rss"], 1), "pss_mb": round(total["Pss"], 1)}

    def end(self, patience_s: float = 10.0) -> None:
        """End the tree: the root by itself first, then, after `patience_s`, whoever is left."""
        processes = self.processes()
        with contextlib.suppress(psutil.NoSuchProcess):
            self._root.terminate()
        _gone, alive = psutil.wait_procs(processes, timeout=patience_s)
        for one in {*alive, *self.processes()}:
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(list(alive), timeout=patience_s)


@dataclass(frozen=True)
class Moment:
    """What the whole machine, and some processes, had used at one moment, in seconds of processor."""

    at: float
    machine_s: float
    nice_s: float
    steal_s: float

    @classmethod
    def now(cls) -> "Moment":
        """Look."""
        fields = [int(value) for value in Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:9]]
        busy = sum(fields[one] for one in _BUSY_FIELDS)
        return cls(time.monotonic(), busy / _TICK, fields[_NICE_FIELD] / _TICK, fields[_STEAL_FIELD] / _TICK)

    def others_since(self, before: "Moment", ours_s: float) -> dict[str, float]:
        """Return how many cores others used meanwhile, and how many the hypervisor took."""
        wall = self.at - before.at
        others = (self.machine_s - before.machine_s) + (self.nice_s - before.nice_s) - ours_s
        return {
            "others_cores": round(max(0.0, others) / wall, 3),
            "stolen_cores": round((self.steal_s - before.steal_s) / wall, 3),
        }
