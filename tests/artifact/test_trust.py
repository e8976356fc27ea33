"""Nobody runs code that somebody else could have changed: above all not root."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.artifact.archives import NOBODY, SERVED, Starter, small_archive, system_pythons

ROOTS_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
pytestmark = [pytest.mark.artifact, ROOTS_ONLY]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of root's own that everybody can look into."""
    path = Path(tempfile.mkdtemp(prefix="kohakuriver-trust-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def archive(pyz: Path, place: Path) -> Path:
    return small_archive(pyz, place / "small.pyz")


def refused(starter: Starter, archive: Path) -> str:
    """Start an archive that must not run and return the sentence that it says instead."""
    code, out, err = starter.run(archive)
    assert (code, out) == (1, "")
    assert err.startswith("kohakuriver.pyz does not start, because ")
    assert err.endswith(".\n")
    assert err.count("\n") == 1
    return err


def everything_below(path: Path) -> list[Path]:
    return sorted(path.rglob("*"))


def test_root_unpacks_into_a_place_that_only_root_can_write(place: Path, archive: Path) -> None:
    said = Starter(place / "new" / "root", umask=0).probe(archive)
    for path in [Path(said["folder"]), *everything_below(place / "new")]:
        assert (path.stat().st_uid, path.stat().st_mode & 0o022) == (0, 0), path


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_root_refuses_a_place_that_somebody_else_owns(place: Path, archive: Path, depth: int) -> None:
    root = place / "a/b/c"
    root.mkdir(parents=True)
    owned = [root, *root.parents][depth]
    os.chown(owned, NOBODY, NOBODY)
    assert f"{owned} belongs to user id {NOBODY}" in refused(Starter(root), archive)
    assert everything_below(root) == []


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_root_refuses_a_place_that_others_can_write(place: Path, archive: Path, mode: int) -> None:
    root = place / "root"
    root.mkdir()
    root.chmod(mode)
    assert f"other users can write to {root}" in refused(Starter(root), archive)
    assert everything_below(root) == []


def test_root_refuses_a_place_below_a_folder_that_others_can_write(place: Path, archive: Path) -> None:
    (place / "open/root").mkdir(parents=True)
    (place / "open").chmod(0o777)
    assert f"other users can write to {place / 'open'}" in refused(Starter(place / "open/root"), archive)
    (place / "open").chmod(0o1777)  # like /tmp, where nobody can replace what root has made
    Starter(place / "open/root").probe(archive)


def test_root_refuses_a_link_into_a_place_of_somebody_else(place: Path, archive: Path) -> None:
    (place / "theirs").mkdir()
    os.chown(place / "theirs", NOBODY, NOBODY)
    (place / "root").symlink_to(place / "theirs")
    assert f"{place / 'theirs'} belongs to" in refused(Starter(place / "root"), archive)


def test_root_refuses_the_home_directory_of_somebody_else(place: Path, archive: Path) -> None:
    home = place / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    starter = Starter(place / "unused", env={"HOME": str(home), "SHIV_ROOT": ""})
    assert f"{home} belongs to user id {NOBODY}" in refused(starter, archive)
    assert everything_below(home) == []


@pytest.mark.parametrize("user", [None, NOBODY - 1], ids=["root", "a user"])
def test_an_unpacked_folder_that_somebody_else_has_made_is_not_run(
    place: Path, archive: Path, user: int | None
) -> None:
    starter = reachable_starter(place, user)
    folder = Path(starter.probe(archive)["folder"])
    (folder / "kohakuriver/__main__.py").write_text("raise SystemExit('hostile code has run')")
    shutil.rmtree(folder / "kohakuriver/__pycache__")
    os.chown(folder, NOBODY, NOBODY)
    assert f"{folder} belongs to user id {NOBODY}" in refused(starter, archive)
    os.chown(folder, user or 0, user or 0)
    folder.chmod(0o777)
    assert f"other users can write to {folder}" in refused(starter, archive)


def test_an_unpacked_folder_that_is_a_link_is_not_run(place: Path, archive: Path) -> None:
    starter = Starter(place / "root")
    folder = Path(starter.probe(archive)["folder"])
    folder.rename(place / "elsewhere")
    folder.symlink_to(place / "elsewhere")
    assert str(folder) in refused(starter, archive)


def reachable_starter(place: Path, user: int | None) -> Starter:
    """A starter as a user, with a Python that this user may run, and a place of his own."""
    (place / "home").mkdir()
    os.chown(place / "home", user or 0, user or 0)
    pythons = [python for version, python in system_pythons().items() if version in SERVED]
    assert pythons, "no Python on this machine can be run by an ordinary user"
    return Starter(place / "home/root", pythons[0], user)


def test_a_user_runs_from_his_own_place(place: Path, archive: Path) -> None:
    starter = reachable_starter(place, NOBODY)
    assert starter.probe(archive)["folder"] == starter.probe(archive)["folder"]


def test_a_user_whose_group_is_his_own_may_let_it_write(place: Path, archive: Path) -> None:
    """Debian's umask of 002 makes ~/.shiv writable by the user's own group."""
    starter = reachable_starter(place, NOBODY)
    starter.root.mkdir()
    os.chown(starter.root, NOBODY, NOBODY)
    starter.root.chmod(0o775)
    starter.probe(archive)
    starter.root.chmod(0o777)
    assert f"other users can write to {starter.root}" in refused(starter, archive)


def test_a_user_who_cannot_write_there_is_told_what_to_do(place: Path, archive: Path) -> None:
    starter = reachable_starter(place, NOBODY)
    os.chown(place / "home", 0, 0)
    sentence = refused(starter, archive)
    assert "Permission denied" in sentence
    assert "set SHIV_ROOT to a folder that this user can write to" in sentence


def test_a_user_s_own_folder_runs_when_it_has_become_read_only(place: Path, archive: Path) -> None:
    starter = reachable_starter(place, NOBODY)
    folder = Path(starter.probe(archive)["folder"])
    os.utime(folder / ".boot", (0, 0))  # old enough for the mark to be removed, which now fails
    folder.chmod(0o555)
    starter.probe(archive)
    assert (folder / ".boot").exists()
