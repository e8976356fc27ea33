"""Watching a tree: what happens is told, soon where the kernel helps and in the end where it does not."""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import Conflict, TooMany
from kohakuriver.model.files import Change, FileChange, FileChanges, Kind, WatchFiles
from kohakuriver.system import tree_watch
from kohakuriver.system.directory_bell import DirectoryBell
from kohakuriver.system.files import Files
from kohakuriver.system.rooted import Root
from kohakuriver.system.tree_watch import Look, Watcher, differences, watching

PATIENCE_SECONDS = 60.0
Next = Callable[[], Awaitable[dict[str, Change]]]


class Stage:
    """A tree that is being watched."""

    def __init__(self, top: Path) -> None:
        self.top, self.alive = top, True
        self.first: FileChanges | None = None
        self.watcher: Watcher | None = None


Script = Callable[[Stage, Next], Awaitable[None]]


def play(top: Path, script: Script, recursive: bool = True) -> None:
    stage = Stage(top)

    async def work() -> None:
        files = Files()
        asked = WatchFiles(task_id=Snowflake(1), path="/", recursive=recursive)
        with Root.at(top) as root, watching(files, Watcher(files, root, asked, lambda: stage.alive)) as watcher:
            stage.watcher, changes = watcher, watcher.changes()
            stage.first = await anext(changes)

            async def following() -> dict[str, Change]:
                return {each.path: each.change for each in (await anext(changes)).changes}

            await script(stage, following)
            watcher.stop()
            assert [each async for each in changes] == []
            await changes.aclose()  # type: ignore[attr-defined]
        files.close()

    asyncio.run(asyncio.wait_for(work(), PATIENCE_SECONDS))


async def gather(following: Next, wanted: dict[str, Change]) -> None:
    """Take changes until these have been told; nothing else may be."""
    missing = dict(wanted)
    while missing:
        for path, change in (await following()).items():
            assert wanted.get(path) is change, (path, change)
            missing.pop(path, None)


def test_what_is_made_changed_moved_and_taken_away_is_told(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    (tmp_path / "deep/er").mkdir(parents=True)

    async def script(stage: Stage, following: Next) -> None:
        assert stage.first == FileChanges(changes=[], polled=False)
        (tmp_path / "new").touch()
        (tmp_path / "deep/er/file").touch()
        await gather(following, {"new": Change.CREATED, "deep/er/file": Change.CREATED})
        (tmp_path / "kept").write_bytes(b"x")
        await gather(following, {"kept": Change.CHANGED})
        (tmp_path / "made").mkdir()
        await gather(following, {"made": Change.CREATED})
        (tmp_path / "made/inside").touch()  # a directory that came later is watched, too
        await gather(following, {"made/inside": Change.CREATED})
        (tmp_path / "new").rename(tmp_path / "deep/moved")
        await gather(following, {"new": Change.DELETED, "deep/moved": Change.CREATED})

    play(tmp_path, script)


def test_only_what_is_in_the_directory_itself_is_told_unless_more_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()

    async def script(stage: Stage, following: Next) -> None:
        (tmp_path / "deep/file").touch()
        (tmp_path / "file").touch()
        assert await following() == {"file": Change.CREATED}

    play(tmp_path, script, recursive=False)


def test_where_the_kernel_has_no_more_watches_it_is_polled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: DirectoryBell, directory: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def script(stage: Stage, following: Next) -> None:
        assert stage.first == FileChanges(changes=[], polled=True)
        (tmp_path / "new").touch()
        assert await following() == {"new": Change.CREATED}

    monkeypatch.setattr(DirectoryBell, "watch", full)
    monkeypatch.setattr(tree_watch, "POLL_SECONDS", 0.05)
    play(tmp_path, script)


def test_it_ends_when_there_is_nothing_to_watch_any_more(tmp_path: Path) -> None:
    async def script(stage: Stage, following: Next) -> None:
        stage.alive = False
        (tmp_path / "new").touch()
        with pytest.raises(StopAsyncIteration):
            await following()

    play(tmp_path, script)


def test_too_large_a_tree_and_too_many_watchers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(stage: Stage, following: Next) -> None:
        (tmp_path / "c").touch()
        with pytest.raises(Conflict, match="not watched at once"):
            await following()

    async def crowd() -> None:
        files = Files()
        with Root.at(tmp_path) as root:
            watcher = Watcher(files, root, WatchFiles(task_id=Snowflake(1)), lambda: True)
            with watching(files, watcher), pytest.raises(TooMany), watching(files, watcher):
                raise AssertionError("it was let in")
        files.close()

    for name in "ab":
        (tmp_path / name).touch()
    monkeypatch.setattr(tree_watch, "MAX_ENTRIES", 2)
    monkeypatch.setattr(tree_watch, "MAX_WATCHERS", 1)
    play(tmp_path, script)
    asyncio.run(crowd())


def test_links_are_not_followed_out_and_the_kernel_is_not_watched(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "root/link").symlink_to("../outside")

    async def script(stage: Stage, following: Next) -> None:
        (tmp_path / "outside/secret").touch()
        (tmp_path / "root/new").touch()
        assert await following() == {"new": Change.CREATED}

    play(tmp_path / "root", script)


def test_differences_are_by_path() -> None:
    file, later = Look("file", 1, 1, 1), Look("file", 2, 2, 1)
    before = {"same": file, "gone": file, "grown": file, "dir": Look("directory", 1, 1, 9)}
    after = {"same": file, "grown": later, "new": file, "dir": Look("directory", 1, 7, 9)}
    assert differences(before, after) == [
        FileChange(path="gone", change=Change.DELETED, kind=Kind.FILE, size_bytes=1),
        FileChange(path="grown", change=Change.CHANGED, kind=Kind.FILE, size_bytes=2),
        FileChange(path="new", change=Change.CREATED, kind=Kind.FILE, size_bytes=1),
    ]
