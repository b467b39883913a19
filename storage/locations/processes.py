"""Processes by name: a pid alone may belong to another process by now, or to one of another container.

A name holds the host, for people to read, and the pid with the process's start time, its PID namespace and the boot of
the machine. Together these belong to one process only.
"""

import os
import platform
from pathlib import Path
from typing import Literal

State = Literal["alive", "dead", "unknown"]
UNKNOWN = "-"
PARTS = 4
"""Parts of a name behind the host: pid, start, PID namespace, boot."""


def name_process() -> str:
    """Name this process."""
    found = _read_stat(os.getpid())
    started = found[1] if found else UNKNOWN
    return "/".join((platform.node(), str(os.getpid()), started, *_name_system()))


def find_state(name: str) -> State:
    """Return whether a named process is alive; unknown if its pid means nothing here.

    That is so for a process of another machine, of an earlier boot, of another PID namespace, or named by an earlier
    release, which recorded host and pid alone.
    """
    _, *parts = name.split("/")
    if len(parts) != PARTS or UNKNOWN in parts or tuple(parts[2:]) != _name_system():
        return "unknown"
    pid, started = int(parts[0]), parts[1]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "dead"
    except PermissionError:  # of another user
        pass
    found = _read_stat(pid)
    if found is None:  # hidden from this user
        return "unknown"
    return "dead" if found[0] in "ZX" or found[1] != started else "alive"


def describe_process(pid: int) -> str:
    """Describe a process of this machine in words: its pid, its program, and whether it is stopped."""
    found = _read_stat(pid)
    if found is None:
        return f"process {pid}"
    state, _, program = found
    return f"process {pid} ({program}{', stopped' if state in 'Tt' else ''})"


def _name_system() -> tuple[str, str]:
    """Name what gives a pid its meaning: the PID namespace and the boot; unknown without a /proc of this namespace."""
    try:
        if str(Path("/proc/self").readlink()) != str(os.getpid()):
            return UNKNOWN, UNKNOWN
        namespace = str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")
        return namespace, Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return UNKNOWN, UNKNOWN


def _read_stat(pid: int) -> tuple[str, str, str] | None:
    """Read the state, the start time in ticks since boot, and the program of a process; None if it cannot be read."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    program, fields = text.partition("(")[2].rpartition(")")[::2]
    return fields.split()[0], fields.split()[19], program
