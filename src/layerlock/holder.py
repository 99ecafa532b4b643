"""Who holds a folder: told apart from other processes after a crash, after a restart, and on other machines.

A number alone says nothing of a process: another machine and another container have their own, and a number is given
again. So a holder is a host, the start of its system, a space of process numbers, a number, and when that began.
"""

from __future__ import annotations

import getpass
import json
import os
import secrets
import shlex
import socket
import sys
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

LONGEST_COMMAND = 200
"""characters of a command that are kept"""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A process at work, for people and for other processes."""

    user: str
    host: str
    boot: str
    """start of the system that it runs on; empty where that is not known"""
    space: str
    """within which its number is one of a kind; empty where that is not known"""
    pid: int
    began: str
    """when the process began, by the clock of its system; empty where that is not known"""
    since: str
    """when it took hold: ISO 8601 with the offset from UTC"""
    command: str
    token: str
    """like no other"""

    @property
    def words(self) -> str:
        """For people: who, where, since when, by which command."""
        return f"{self.user} on {self.host} (process {self.pid}, since {self.since}: {self.command})"

    @property
    def here(self) -> bool:
        """Whether its process number means something to this process."""
        return (self.host, self.boot, self.space) == (socket.gethostname(), _boot(), _space())

    @property
    def restarted(self) -> bool:
        """Whether the host that it names has restarted since, if no other host has the same name."""
        return self.host == socket.gethostname() and "" not in (self.boot, _boot()) and self.boot != _boot()

    def has_ended(self) -> bool:
        """Whether it is certain that the process has ended; of another machine or container it never is."""
        if not self.here:
            return False
        began = _began(self.pid)
        return began is None or ("" not in (began, self.began) and began != self.began)

    def save(self, path: Path) -> None:
        """Writes it as JSON. Raises OSError."""
        path.write_text(json.dumps(asdict(self)) + "\n")


def this_process() -> Holder:
    """This process as a holder, from now on."""
    return Holder(
        user=_user(),
        host=socket.gethostname(),
        boot=_boot(),
        space=_space(),
        pid=os.getpid(),
        began=_began(os.getpid()) or "",
        since=datetime.now().astimezone().isoformat(timespec="seconds"),
        command=_command(),
        token=secrets.token_hex(8),
    )


def read_holder(path: Path) -> Holder | None:
    """The holder that a file names; None where it is not there, cannot be read or names none."""
    try:
        holder = Holder(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    kinds = Holder.__annotations__
    right = all(isinstance(value, int if kinds[name] == "int" else str) for name, value in asdict(holder).items())
    return holder if right else None


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user without a name
        return f"user {os.getuid()}" if hasattr(os, "getuid") else "somebody"


def _command() -> str:
    """What this process was started with, in one line, an inline program shortened."""
    command = " ".join(shlex.join(sys.orig_argv).split())
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in command)
    return shown if len(shown) <= LONGEST_COMMAND else f"{shown[:LONGEST_COMMAND]}..."


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _space() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _began(process: int) -> str | None:
    """When a process began, in ticks since its system did; empty where that is not told, None where none runs."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        pass
    try:
        fields = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return ""
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()  # killed, its parent not told yet
