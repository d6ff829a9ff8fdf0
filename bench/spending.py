"""Processor time of the servers that this process started: what they spent, whatever the clock says."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_SECOND = os.sysconf("SC_CLK_TCK")


def spent() -> dict[str, float]:
    """Seconds so far by the name of the program, with those of its children, ended ones included; Linux only.

    See proc_pid_stat(5).
    """
    seen = list(_processes())
    servers = {pid: (name, own + ended) for pid, name, parent, own, ended in seen if parent == os.getpid()}
    used: dict[str, float] = {}
    for pid, (name, own) in servers.items():
        children = sum(each for _, _, parent, each, _ in seen if parent == pid)
        used[name] = used.get(name, 0.0) + (own + children) / _SECOND
    return used


def _processes() -> Iterator[tuple[int, str, int, int, int]]:
    """Its id, name and parent; the ticks it used, and those of its children that have ended."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # one that has just ended
            before, _, rest = (folder / "stat").read_text().rpartition(") ")
            fields = rest.split()
            user, system, ended_user, ended_system = map(int, fields[11:15])
            name = before.partition(" (")[2]
            yield int(folder.name), name, int(fields[1]), user + system, ended_user + ended_system
