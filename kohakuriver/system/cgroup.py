"""Control groups of the kernel, versions 1 and 2: a group per workload, to limit, freeze, find and kill all of it.

Formats: the kernel's admin-guide/cgroup-v1/ and admin-guide/cgroup-v2.rst. Imports little: the keeper forks with it.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol

ROOT = "/sys/fs/cgroup"
TOP = "kohakuriver"
_PERIOD_MICROSECONDS = 100_000
_FREEZE_PATIENCE_SECONDS = 0.1
_V1_CONTROLLERS = ("freezer", "memory", "pids", "cpu")


class Limits(NamedTuple):
    """What a group may use; None and 0 mean no limit."""

    memory_bytes: int | None = None
    pids: int = 0
    cpus: int = 0


class Group(Protocol):
    """The control group of one workload; it need not exist yet, and all but `make`, `join` and `leave` then do nothing."""

    def make(self, limits: Limits) -> None:
        """Create it with its limits; raises OSError."""

    def join(self) -> None:
        """Move the calling process into it; raises OSError."""

    def leave(self) -> None:
        """Move the calling process, which did not count, back to where it came from; raises OSError."""

    def pids(self) -> list[int]:
        """The living processes in it."""

    def freeze(self) -> None:
        """Stop every process in it, also those to come."""

    def thaw(self) -> None:
        """Let them go on."""

    def is_frozen(self) -> bool:
        """Whether it is frozen or about to be."""

    def kill(self) -> None:
        """Send SIGKILL to every process in it, frozen or not."""

    def oom_kills(self) -> int:
        """How many of its processes the kernel has killed for memory."""

    def remove(self) -> bool:
        """Remove it when it is empty; False when something is still in it."""


class Cgroups(Protocol):
    """What the machine offers, and where our groups lie."""

    version: int
    limits_memory: bool
    limits_pids: bool
    limits_cpu: bool

    def group(self, name: str) -> Group:
        """The group of a workload, not yet made."""

    def close(self) -> None:
        """Remove what `find` made, as far as it is empty."""


def find(scope: str, root: str = ROOT) -> Cgroups | None:
    """Make room for the groups of one scope; None where we may not, or where there is no way to find and freeze."""
    try:
        if os.path.exists(f"{root}/cgroup.controllers"):
            return CgroupsV2(scope, root)
        if os.path.isdir(f"{root}/freezer"):
            return CgroupsV1(scope, root)
    except OSError:
        return None
    return None


class CgroupsV1:
    """Version 1: one tree per controller."""

    version = 1

    def __init__(self, scope: str, root: str = ROOT) -> None:
        found = [name for name in _V1_CONTROLLERS if os.path.exists(f"{root}/{name}/cgroup.procs")]
        self._places = {name: f"{root}/{name}/{TOP}/{scope}" for name in found}
        own = _own_groups()
        self._homes = {name: _home(f"{root}/{name}", own.get(name, "/")) for name in found}
        for place in self._places.values():
            os.makedirs(place, exist_ok=True)
        self.limits_memory, self.limits_pids, self.limits_cpu = (name in found for name in ("memory", "pids", "cpu"))

    def group(self, name: str) -> Group:
        return GroupV1({controller: f"{place}/{name}" for controller, place in self._places.items()}, self._homes)

    def close(self) -> None:
        _remove_empty(self._places.values())


class GroupV1:
    """One workload's directories, by controller; `homes` are those that the runner itself is in."""

    def __init__(self, places: Mapping[str, str], homes: Mapping[str, str]) -> None:
        self._places, self._homes, self._pids = places, homes, 0
        self._freezer = f"{places['freezer']}/freezer.state"

    def make(self, limits: Limits) -> None:
        wanted = {"freezer": True, "memory": True, "pids": limits.pids > 0, "cpu": limits.cpus > 0}
        for controller, place in self._places.items():
            if wanted[controller]:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(place)
                self._limit(controller, place, limits)

    def _limit(self, controller: str, place: str, limits: Limits) -> None:
        if controller == "memory" and limits.memory_bytes is not None:
            _write(f"{place}/memory.limit_in_bytes", str(limits.memory_bytes))
            if os.path.exists(f"{place}/memory.memsw.limit_in_bytes"):
                _write(f"{place}/memory.memsw.limit_in_bytes", str(limits.memory_bytes))
        elif controller == "pids":
            self._pids = limits.pids
            _write(f"{place}/pids.max", str(limits.pids + 1))
        elif controller == "cpu":
            _write(f"{place}/cpu.cfs_period_us", str(_PERIOD_MICROSECONDS))
            _write(f"{place}/cpu.cfs_quota_us", str(limits.cpus * _PERIOD_MICROSECONDS))

    def join(self) -> None:
        for place in self._made():
            _write(f"{self._places[place]}/cgroup.procs", "0")

    def leave(self) -> None:
        for place in self._made():
            _write(f"{self._homes[place]}/cgroup.procs", "0")
        if self._pids > 0:
            _write(f"{self._places['pids']}/pids.max", str(self._pids))

    def _made(self) -> list[str]:
        return [name for name, place in self._places.items() if os.path.exists(place)]

    def pids(self) -> list[int]:
        return _numbers(f"{self._places['freezer']}/cgroup.procs")

    def freeze(self) -> None:
        _try_write(self._freezer, "FROZEN")
        _wait_until(lambda: "FREEZING" not in _read(self._freezer))

    def thaw(self) -> None:
        _try_write(self._freezer, "THAWED")

    def is_frozen(self) -> bool:
        return _read(self._freezer).startswith("FR")

    def kill(self) -> None:
        """Frozen first: what cannot run cannot fork away; SIGKILL takes effect on thawing."""
        if not self.pids():
            return
        self.freeze()
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.thaw()

    def oom_kills(self) -> int:
        return _field(f"{self._places['memory']}/memory.oom_control", "oom_kill") if "memory" in self._places else 0

    def remove(self) -> bool:
        gone = [_remove(place) for place in self._places.values()]
        return all(gone)


class CgroupsV2:
    """Version 2: one tree; limits are there as far as the controllers can be handed down to us."""

    version = 2

    def __init__(self, scope: str, root: str = ROOT) -> None:
        self._top, self._place = f"{root}/{TOP}", f"{root}/{TOP}/{scope}"
        self._home = _home(root, _own_groups().get("", "/"))
        os.makedirs(self._place, exist_ok=True)
        for directory in (root, self._top, self._place):
            for controller in ("memory", "pids", "cpu"):
                _try_write(f"{directory}/cgroup.subtree_control", f"+{controller}")
        handed_down = _read(f"{self._place}/cgroup.subtree_control").split()
        self.limits_memory, self.limits_pids, self.limits_cpu = (
            name in handed_down for name in ("memory", "pids", "cpu")
        )

    def group(self, name: str) -> Group:
        return GroupV2(f"{self._place}/{name}", self._home)

    def close(self) -> None:
        _remove_empty([self._place])


class GroupV2:
    """One workload's directory; `home` is the one that the runner itself is in."""

    def __init__(self, place: str, home: str) -> None:
        self._place, self._home, self._pids = place, home, 0

    def make(self, limits: Limits) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._place)
        if limits.memory_bytes is not None:
            self._limit("memory.max", str(limits.memory_bytes))
            self._limit("memory.swap.max", "0")
        if limits.pids > 0:
            self._pids = limits.pids
            self._limit("pids.max", str(limits.pids + 1))
        if limits.cpus > 0:
            self._limit("cpu.max", f"{limits.cpus * _PERIOD_MICROSECONDS} {_PERIOD_MICROSECONDS}")

    def _limit(self, name: str, value: str) -> None:
        if os.path.exists(f"{self._place}/{name}"):  # a controller that was not handed down has no files
            _write(f"{self._place}/{name}", value)

    def join(self) -> None:
        _write(f"{self._place}/cgroup.procs", "0")

    def leave(self) -> None:
        _write(f"{self._home}/cgroup.procs", "0")
        if self._pids > 0:
            self._limit("pids.max", str(self._pids))

    def pids(self) -> list[int]:
        return _numbers(f"{self._place}/cgroup.procs")

    def freeze(self) -> None:
        _try_write(f"{self._place}/cgroup.freeze", "1")
        _wait_until(lambda: _field(f"{self._place}/cgroup.events", "frozen") == 1)

    def thaw(self) -> None:
        _try_write(f"{self._place}/cgroup.freeze", "0")

    def is_frozen(self) -> bool:
        return _read(f"{self._place}/cgroup.freeze").strip() == "1"

    def kill(self) -> None:
        """The kernel does it in one go since 5.14; before, frozen processes die of SIGKILL as well."""
        if _try_write(f"{self._place}/cgroup.kill", "1") or not self.pids():
            return
        self.freeze()
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.thaw()

    def oom_kills(self) -> int:
        return _field(f"{self._place}/memory.events", "oom_kill")

    def remove(self) -> bool:
        return _remove(self._place)


def _own_groups() -> dict[str, str]:
    """The group that this process is in, by controller; that of version 2 under the empty name."""
    lines = [line.split(":", 2) for line in _read("/proc/self/cgroup").splitlines()]
    return {name: path for _, names, path in lines for name in names.split(",")}


def _home(mount: str, path: str) -> str:
    """The directory of a group; the top of what is mounted where the group lies outside of it."""
    place = f"{mount}{path.rstrip('/')}"
    return place if os.path.exists(f"{place}/cgroup.procs") else mount


def _wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _FREEZE_PATIENCE_SECONDS
    while not done() and time.monotonic() < deadline:
        time.sleep(0.0005)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _try_write(path: str, text: str) -> bool:
    try:
        _write(path, text)
    except OSError:
        return False
    return True


def _read(path: str) -> str:
    """The text of a file; empty when it is not there or its group has just gone."""
    try:
        with open(path, "rb") as file:
            return file.read().decode()
    except OSError:
        return ""


def _numbers(path: str) -> list[int]:
    return [int(word) for word in _read(path).split()]


def _field(path: str, name: str) -> int:
    """The number behind a name in a file of `name number` lines; 0 when there is none."""
    for line in _read(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _remove(place: str) -> bool:
    try:
        os.rmdir(place)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _remove_empty(places: Iterable[str]) -> None:
    for place in places:
        for name in next(os.walk(place), ("", [], []))[1]:
            _remove(f"{place}/{name}")
        if _remove(place):
            _remove(os.path.dirname(place))
