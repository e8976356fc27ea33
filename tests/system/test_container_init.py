"""The first process of a container, really run, as the first of a process namespace of its own."""

import os
import platform
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.model.errors import EngineFailed
from kohakuriver.system.container_init import program_for, source_digest
from kohakuriver.system.container_init.__main__ import MACHINES
from kohakuriver.system.container_record import BARRED, Record
from kohakuriver.system.container_records import STAND_IN_FOR_KILL, Records, key_of_file
from kohakuriver.system.engine import ContainerSpec, Exit, WorkloadKey, cut_marker
from kohakuriver.system.inotify import Inotify

KEY = WorkloadKey(7, 2)
NOT_OURS_TO_RUN = 125
PATIENCE_SECONDS = 30.0
needs_namespaces = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a process namespace")


@dataclass
class House:
    """Records, and a container that is nothing but a process namespace."""

    records: Records
    spec: ContainerSpec

    def run(self, *command: str, **options: Any) -> "subprocess.Popen[bytes]":
        """Begin the program."""
        outputs = [str(self.spec.log_directory / name) for name in ("stdout", "stderr")]
        limit_bytes = self.spec.log_limit_bytes
        init = [str(self.records.program), str(self.records.path(KEY)), *outputs, str(limit_bytes)]
        words = ["unshare", "--pid", "--fork", *init, cut_marker(limit_bytes).decode(), *command]
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, **options)

    def ran(self, *command: str) -> int:
        """Run it to its end; the exit code."""
        return self.run(*command).wait(PATIENCE_SECONDS)

    def record(self) -> Record:
        found = self.records.look(KEY)
        assert found is not None
        return found

    def until(self, is_so: Callable[[Record], bool]) -> Record:
        """Wait until the record says so."""
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while not is_so(record := self.record()):
            assert time.monotonic() < give_up_at, record
            time.sleep(0.01)
        return record

    def output(self, name: str = "stdout") -> bytes:
        return (self.spec.log_directory / name).read_bytes()


@pytest.fixture
def house(tmp_path: Path) -> House:
    return made_house(tmp_path, tmp_path / "logs")


def made_house(folder: Path, logs: Path, limit_bytes: int = 1000) -> House:
    records = Records(folder / "records")
    records.open()
    spec = ContainerSpec(key=KEY, name="x", image="x", command=("x",), log_directory=logs, log_limit_bytes=limit_bytes)
    records.prepare(spec)
    return House(records, spec)


def test_the_programs_are_made_from_the_source_that_is_there() -> None:
    for machine in MACHINES:
        assert source_digest().encode() in program_for(machine).read_bytes(), (
            "run `python3 -m kohakuriver.system.container_init`"
        )


def test_it_refuses_to_be_anything_but_the_first_process() -> None:
    done = subprocess.run([program_for(platform.machine()), *"abcdefg"], capture_output=True, check=False)
    assert (done.returncode, done.stdout[:16]) == (NOT_OURS_TO_RUN, b"the first proces")


@needs_namespaces
def test_what_a_program_writes_and_how_it_ends_is_put_down(house: House) -> None:
    assert house.ran("sh", "-c", "echo out; echo problem >&2; exit 77") == 77
    record = house.record()
    assert (record.pid, record.exit, record.lost_errno) == (0, Exit(77), 0)
    assert record.claimed_at is not None
    assert record.began_at is not None
    assert record.ended_at is not None
    assert time.time() - 60 < record.claimed_at <= record.began_at <= record.ended_at <= time.time()
    assert (house.output(), house.output("stderr")) == (b"out\n", b"problem\n")


@needs_namespaces
def test_a_signal_that_ended_the_program_is_told_apart_from_an_exit_code(house: House) -> None:
    assert house.ran("sh", "-c", "kill -SEGV $$") == 128 + signal.SIGSEGV
    assert house.record().exit == Exit(128 + signal.SIGSEGV, signal.SIGSEGV)


@needs_namespaces
def test_a_program_runs_once_however_often_its_container_is_started(house: House) -> None:
    assert house.ran("sh", "-c", "echo once; exit 3") == 3
    assert house.ran("sh", "-c", "echo twice") == NOT_OURS_TO_RUN
    assert (house.record().exit, house.output()) == (Exit(3), b"once\n")


@needs_namespaces
def test_a_second_start_beside_a_running_one_does_nothing(house: House) -> None:
    first = house.run("sh", "-c", "echo once; sleep 60")
    running = house.until(lambda record: record.began_at is not None)
    assert house.ran("sh", "-c", "echo twice") == NOT_OURS_TO_RUN
    assert house.record() == running
    house.records.end(KEY)
    assert first.wait(PATIENCE_SECONDS) != 0
    assert house.until(lambda record: not record.pid).exit is None, "killed itself, it had no time for a word"
    assert house.output() == b"once\n"


@needs_namespaces
def test_what_is_barred_never_begins(house: House) -> None:
    house.records.end(KEY)
    assert house.ran("sh", "-c", "echo begun") == NOT_OURS_TO_RUN
    assert (house.records.path(KEY).read_bytes(), house.output()) == (BARRED, b"")


@needs_namespaces
@pytest.mark.parametrize(("program", "code", "number"), [("no-such-program", 127, 2), ("/etc/passwd", 126, 13)])
def test_a_program_that_cannot_be_run_is_told_by_its_reason(house: House, program: str, code: int, number: int) -> None:
    assert house.ran(program) == code
    record = house.record()
    assert (record.exit, record.errno, record.began_at) == (Exit(code), number, None)


@needs_namespaces
def test_signals_reach_the_program_and_a_kill_leaves_an_end(house: House) -> None:
    container = house.run("sh", "-c", "trap 'echo deaf' TERM; echo ready; while :; do sleep 0.1; done")
    house.until(lambda record: b"ready" in house.output())
    assert house.records.signal(KEY, signal.SIGTERM)
    house.until(lambda record: b"deaf" in house.output())
    assert house.records.signal(KEY, STAND_IN_FOR_KILL)
    assert container.wait(PATIENCE_SECONDS) == 137
    assert house.record().exit == Exit(137, signal.SIGKILL)
    assert not house.records.signal(KEY, signal.SIGTERM), "it is over"


@needs_namespaces
def test_everything_ends_with_the_program_and_all_that_was_written_is_there(house: House) -> None:
    assert house.ran("sh", "-c", "(while :; do sleep 0.01; done) & setsid sleep 60 & echo last; exit 4") == 4
    assert house.output() == b"last\n"


@needs_namespaces
@pytest.mark.parametrize("size", [0, 999, 1000, 1001, 70_000, 1_000_000])
def test_output_is_cut_at_the_limit_with_a_marker(house: House, size: int) -> None:
    assert house.ran("sh", "-c", f"head -c {size} /dev/zero; echo problem >&2") == 0
    assert house.output() == bytes(min(size, 1000)) + (cut_marker(1000) if size > 1000 else b"")
    assert house.output("stderr") == b"problem\n"


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@needs_namespaces
def test_a_full_disk_holds_the_output_up_until_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        house = made_house(tmp_path, disk, limit_bytes=10**6)
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(40_000))
        container = house.run("sh", "-c", "seq 1 8000; exit 6")  # 38,893 bytes
        house.until(lambda record: record.began_at is not None and len(house.output()) > 10_000)
        time.sleep(0.5)
        assert house.record().exit is None
        ballast.unlink()
        assert container.wait(PATIENCE_SECONDS) == 6
        assert house.output() == b"".join(b"%d\n" % number for number in range(1, 8001))
        house.records.sync(house.spec)


def test_output_that_the_disk_did_not_take_is_said_to_be_missing(house: House) -> None:
    house.records.path(KEY).write_bytes(b"claimed 1\nbegan 1\nexited 0 0 0 28 2\n")
    with pytest.raises(EngineFailed, match="No space left"):
        house.records.sync(house.spec)


def test_only_we_may_write_once_a_container_has_opened_its_files(house: House) -> None:
    paths = [house.records.path(KEY), *house.spec.log_directory.iterdir()]
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o666}
    house.records.seal(house.spec)
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o644}


def test_a_record_that_is_gone_is_none(house: House) -> None:
    house.records.forget(KEY)
    house.records.forget(KEY)
    house.records.end(KEY)
    assert house.records.look(KEY) is None
    assert not house.records.signal(KEY, signal.SIGTERM)


def test_writes_into_a_directory_are_heard(house: House) -> None:
    ears = Inotify(house.records.directory)
    try:
        assert ears.read() == []
        for _ in range(3):
            house.records.path(KEY).write_bytes(b"claimed 1\n")
        assert [key_of_file(name) for name in ears.read()] == [KEY]
        assert ears.read() == []
    finally:
        ears.close()


def test_files_that_are_no_records_are_nobodys() -> None:
    assert [key_of_file(name) for name in ("", "7", "7.x", "7.2.new", "x.2")] == [None] * 5


@needs_namespaces
def test_a_program_that_may_run_again_goes_on_where_its_output_ended(house: House) -> None:
    assert house.ran("sh", "-c", "head -c 995 /dev/zero; exit 3") == 3
    house.records.renew(KEY)
    assert house.record() == Record(is_again=True)
    assert house.ran("sh", "-c", "echo twice; exit 4") == 4
    assert house.record().exit == Exit(4)
    assert house.output() == bytes(995) + b"twice" + cut_marker(1000)
    house.records.renew(KEY)
    assert house.records.bar(KEY), "it has ended before: there is nothing to bar"
    assert house.ran("sh", "-c", "echo more") == 0
    assert house.output() == bytes(995) + b"twice" + cut_marker(1000)
