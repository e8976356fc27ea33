"""The records of a node's containers as files: made before the start, read at any time, barred before they go."""

import fcntl
import os
import platform
import signal
import struct
from contextlib import suppress
from pathlib import Path

from kohakuriver.model.errors import EngineFailed
from kohakuriver.system.container_record import AGAIN, BARRED, Record, parse
from kohakuriver.system.engine import STDERR_NAME, STDOUT_NAME, ContainerSpec, WorkloadKey

PROGRAMS = Path(__file__).parent / "container_init"
MAX_RECORD_BYTES = 4096
# A signal to the first process that means SIGKILL to the program: killed itself, it could put down no end.
STAND_IN_FOR_KILL = 64
_LOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux
_WHOLE_FILE = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
_WRITABLE_BY_ALL, _WRITABLE_BY_US = 0o666, 0o644


class Records:
    """The files below `directory`, one for each container, and the program that is a container's first process.

    All methods are for worker threads, and raise EngineFailed when the disk does not let us.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.program = directory.with_name(f"{directory.name}-init")

    def open(self) -> None:
        """Have directory and program in place."""
        source = PROGRAMS / f"init-{platform.machine()}"
        if not source.exists():
            raise EngineFailed(f"no first process of containers is made for {platform.machine()} machines")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            draft = self.program.with_suffix(f".{os.getpid()}")
            draft.write_bytes(source.read_bytes())
            draft.chmod(0o755)
            draft.replace(self.program)  # containers that run go on with the one they have
        except OSError as error:
            raise EngineFailed(f"{self.program} cannot be written: {error.strerror}", retry_elsewhere=True) from None

    def prepare(self, spec: ContainerSpec) -> Record | None:
        """Make the files that a container writes to; what the record said. One that was barred makes way for a new."""
        record, draft = self.look(spec.key), self._draft(spec.key)
        try:
            spec.log_directory.mkdir(parents=True, exist_ok=True)
            if record is None or record.is_barred:
                _make_writable(draft)
                draft.replace(self.path(spec.key))
            for output in _outputs(spec):
                _make_writable(output)
            return record
        except OSError as error:
            raise disk_failed(spec, error) from None

    def seal(self, spec: ContainerSpec) -> None:
        """Let nobody else write to them any more: the container has opened them."""
        for path in (self.path(spec.key), *_outputs(spec)):
            with suppress(OSError):
                path.chmod(_WRITABLE_BY_US)

    def look(self, key: WorkloadKey) -> Record | None:
        """What the record says now; None when there is none."""
        try:
            with self.path(key).open("rb", buffering=0) as file:
                pid = _holder(file.fileno())  # first: who is gone has put down everything by now
                return parse(file.read(MAX_RECORD_BYTES), pid)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise EngineFailed(f"cannot read {self.path(key)}: {error.strerror}", retry_elsewhere=True) from None

    def signal(self, key: WorkloadKey, number: int) -> bool:
        """Send a signal to the first process, which passes it on; whether that was possible."""
        record = self.look(key)
        if record is None or record.pid <= 0:
            return False
        with suppress(OSError):
            process = os.pidfd_open(record.pid)
            try:
                again = self.look(key)  # the number may have come to another process meanwhile
                if again is not None and again.pid == record.pid:
                    signal.pidfd_send_signal(process, number)
                    return True
            finally:
                os.close(process)
        return False

    def bar(self, key: WorkloadKey) -> bool:
        """Let the program never begin; whether it has not, and now never will."""
        try:
            with self.path(key).open("r+b", buffering=0) as file:
                fcntl.fcntl(file, fcntl.F_OFD_SETLK, _WHOLE_FILE)
                if not (text := file.read(MAX_RECORD_BYTES)):
                    file.write(BARRED)
                return text in (b"", BARRED, AGAIN)
        except FileNotFoundError:
            return True
        except OSError:
            return False  # it runs and has it locked

    def end(self, key: WorkloadKey) -> None:
        """Let the program never begin; if it runs, kill it with all of its container, as far as we may."""
        if not self.bar(key):
            self.signal(key, signal.SIGKILL)

    def renew(self, key: WorkloadKey) -> None:
        """Let a program that has ended run once more; raises OSError."""
        draft = self._draft(key)
        draft.write_bytes(AGAIN)
        _make_writable(draft)
        draft.replace(self.path(key))

    def forget(self, key: WorkloadKey) -> None:
        """The container is gone."""
        with suppress(OSError):
            self.path(key).unlink()

    def sync(self, spec: ContainerSpec) -> None:
        """Return when the output is on the disk."""
        record = self.look(spec.key)
        if record is not None and record.lost_errno:
            raise disk_failed(spec, OSError(record.lost_errno, os.strerror(record.lost_errno)))
        try:
            for path in _outputs(spec):
                with path.open("rb") as file:
                    if os.fstat(file.fileno()).st_size:
                        os.fsync(file.fileno())
        except OSError as error:
            raise disk_failed(spec, error) from None

    def _draft(self, key: WorkloadKey) -> Path:
        return self.directory / f"{key.task_id}.{key.attempt}.new"

    def path(self, key: WorkloadKey) -> Path:
        """Where the record of a container is."""
        return self.directory / f"{key.task_id}.{key.attempt}"


def key_of_file(name: str) -> WorkloadKey | None:
    """Whose record a file name is of."""
    task, _, attempt = name.partition(".")
    return WorkloadKey(int(task), int(attempt)) if task.isdecimal() and attempt.isdecimal() else None


def disk_failed(spec: ContainerSpec, error: OSError) -> EngineFailed:
    """The files of a container cannot be written."""
    return EngineFailed(f"cannot write the output to {spec.log_directory}: {error.strerror}", retry_elsewhere=True)


def _make_writable(path: Path) -> None:
    """Make a file that a container can open, whatever user its image has."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
    os.fchmod(descriptor, _WRITABLE_BY_ALL)
    os.close(descriptor)


def _outputs(spec: ContainerSpec) -> tuple[Path, Path]:
    return spec.log_directory / STDOUT_NAME, spec.log_directory / STDERR_NAME


def _holder(descriptor: int) -> int:
    """The process that has the file locked, as we see its number, -1 when we cannot see it; 0 when nobody has."""
    kind, _, _, _, pid = _LOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, _WHOLE_FILE))
    return 0 if kind == fcntl.F_UNLCK else pid or -1
