"""Unpacking is safe: many at once, killed in the middle, after a power cut, and beside other builds that run."""

import fcntl
import itertools
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.artifact.archives import Starter, small_archive

pytestmark = pytest.mark.artifact

BUILDS = ("a" * 16, "b" * 16, "c" * 16)


def build_of(folder: str) -> str:
    return folder.split("-")[2]


@contextmanager
def running(starter: Starter, archive: Path) -> Iterator[subprocess.Popen[str]]:
    """Start an archive that holds PROBE and wait until its program runs; let it end afterwards."""
    process = starter.popen(archive, stdin=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


@pytest.fixture
def starter(tmp_path: Path) -> Starter:
    return Starter(tmp_path / "root")


@pytest.fixture
def archives(pyz: Path, tmp_path: Path) -> list[Path]:
    """Three builds of a small program."""
    return [small_archive(pyz, tmp_path / f"{build}.pyz", {"BUILD": build}) for build in BUILDS]


def test_twenty_first_starts_at_once_all_succeed_and_unpack_once(pyz: Path, starter: Starter) -> None:
    processes = [starter.popen(pyz, "version") for _ in range(20)]
    answers = {(*process.communicate(timeout=100), process.returncode) for process in processes}
    assert len(answers) == 1
    assert next(iter(answers))[1:] == ("", 0)
    assert len(starter.unpacked()) == 1


def test_a_start_killed_at_any_moment_leaves_nothing_that_hurts_the_next(pyz: Path, starter: Starter) -> None:
    caught_in_the_middle = 0
    for moment_seconds in (0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 1.2):
        process = starter.popen(pyz, "version")
        time.sleep(moment_seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        caught_in_the_middle += bool(starter.root.exists() and any(starter.root.glob(".new-*")))
    assert caught_in_the_middle > 1
    assert starter.run(pyz, "version")[0] == 0
    (folder,) = (starter.root / name for name in starter.unpacked())
    with zipfile.ZipFile(pyz) as built:
        packed = {name.removeprefix("site-packages/"): name for name in built.namelist() if "site-packages/" in name}
        whole = [path for path in folder.rglob("*") if str(path.relative_to(folder)) in packed and path.is_file()]
        assert all(path.read_bytes() == built.read(packed[str(path.relative_to(folder))]) for path in whole)
    assert {name for name in packed if ".cpython-" not in name} <= {str(path.relative_to(folder)) for path in whole}
    assert len(list(folder.rglob("*.pyc"))) == len(list(folder.rglob("*.py"))) > 400


def test_folders_of_older_builds_are_cleaned(starter: Starter, archives: list[Path]) -> None:
    for archive, build in zip(archives, BUILDS, strict=True):
        starter.probe(archive)
        assert [build_of(name) for name in starter.unpacked()] == [build]


def test_a_folder_in_use_is_not_cleaned_until_its_last_user_ends(starter: Starter, archives: list[Path]) -> None:
    with running(starter, archives[0]):
        with running(starter, archives[0]):
            starter.probe(archives[1])
        starter.probe(archives[2])
        assert {build_of(name) for name in starter.unpacked()} == {BUILDS[0], BUILDS[2]}
        # The program now imports a module that it has not needed before.
    starter.probe(archives[1])
    assert [build_of(name) for name in starter.unpacked()] == [BUILDS[1]]


def test_what_the_program_has_started_does_not_keep_its_folder(starter: Starter, archives: list[Path]) -> None:
    child: int = starter.probe(archives[0], "child")["child"]
    try:
        starter.probe(archives[1])
        assert Path(f"/proc/{child}/cmdline").read_text() == "sleep\0" + "60\0"
        assert [build_of(name) for name in starter.unpacked()] == [BUILDS[1]]
    finally:
        os.kill(child, signal.SIGKILL)


def test_what_is_not_an_older_build_for_this_machine_is_left_alone(starter: Starter, archives: list[Path]) -> None:
    first = Path(starter.probe(archives[0])["folder"]).name
    kept = {
        "kohakuriver-sparc64-" + first.split("-", 2)[2],  # a home directory shared by different machines
        "other.pyz_0123",
        first.replace(BUILDS[0], BUILDS[2]),  # a link, which leads elsewhere
        first.replace(BUILDS[0], BUILDS[1]).replace(
            sys.implementation.cache_tag or "", "cpython-399"
        ),  # another Python
    }
    for name in kept:
        (starter.root / name).mkdir() if BUILDS[2] not in name else (starter.root / name).symlink_to("/etc")
    second = Path(starter.probe(archives[1])["folder"]).name
    assert set(starter.unpacked()) == {second, *kept}


def test_starts_and_cleaning_do_not_disturb_each_other(starter: Starter, archives: list[Path]) -> None:
    dice = random.Random(7)
    order = [dice.choice(archives) for _ in range(60)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(starter.run, order))
    assert {(code, err) for code, _, err in answers} == {(0, "")}


def folder_with_mark(starter: Starter, archive: Path) -> tuple[Path, Path]:
    folder = Path(starter.probe(archive)["folder"])
    return folder, folder / ".boot"


def test_files_that_may_not_have_survived_a_power_cut_are_unpacked_again(
    starter: Starter, archives: list[Path]
) -> None:
    folder, mark = folder_with_mark(starter, archives[0])
    mark.write_text("the boot before this one")
    (folder / "kohakuriver/__main__.py").write_text("")
    assert Path(starter.probe(archives[0])["folder"]) == folder
    assert mark.read_text() == Path("/proc/sys/kernel/random/boot_id").read_text()
    assert starter.unpacked() == [folder.name]


def test_files_older_than_the_kernel_s_buffers_survive_a_power_cut(starter: Starter, archives: list[Path]) -> None:
    _, mark = folder_with_mark(starter, archives[0])
    starter.probe(archives[0])
    assert mark.exists(), "a folder is not trusted before its files have reached the disk"
    os.utime(mark, (0, time.time() - 600))
    starter.probe(archives[0])
    assert not mark.exists()


def test_a_folder_that_runs_on_another_machine_is_used_as_it_is(starter: Starter, archives: list[Path]) -> None:
    """Machines that share a home directory have different boots."""
    folder, mark = folder_with_mark(starter, archives[0])
    mark.write_text("the boot of the other machine")
    with (folder / ".in-use").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert Path(starter.probe(archives[0])["folder"]) == folder
    assert mark.read_text() == "the boot of the other machine"


@pytest.mark.parametrize("what_fails", ["unpacking", "compiling"])
def test_a_disk_that_is_full_gets_a_sentence_and_leaves_nothing(pyz: Path, tmp_path: Path, what_fails: str) -> None:
    limited = tmp_path / "limited"
    limited.write_text(f'#!/bin/sh\nexec prlimit --fsize=30000 {sys.executable} "$@"\n')
    limited.chmod(0o755)
    starter = Starter(tmp_path / "root", limited)
    if what_fails == "compiling":  # the second module is compiled by a child, if there are two processors
        more = {"a_first.py": "", "a_second.py": "x = 1\n" * 4900}
        pyz = small_archive(pyz, tmp_path / "a.pyz", more=more)
    code, out, err = starter.run(pyz)
    assert (code, out) == (1, "")
    assert err.startswith("kohakuriver.pyz does not start, because ")
    assert err.endswith("set SHIV_ROOT to a folder that this user can write to.\n")
    assert err.count("\n") == 1
    assert starter.unpacked() == []


def test_an_interrupted_start_leaves_nothing_half_done(pyz: Path, starter: Starter) -> None:
    for attempt in itertools.count():
        assert attempt < 20
        process = starter.popen(pyz, "version")
        while process.poll() is None and not any(starter.root.glob(".new-*")):
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        if process.returncode:
            assert (process.returncode, out, err) == (130, "", "")
            break
    assert not [name for name in starter.unpacked() if name.startswith(".")]
