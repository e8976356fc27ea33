"""Parts of files that a death left are found by the notes about them, and swept when nobody goes on with them."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.model.errors import EngineFailed, NotFound
from kohakuriver.model.files import part_name
from kohakuriver.system.files import Files
from kohakuriver.system.rooted import Root
from kohakuriver.system.unfinished import KEPT_SECONDS, Note, Unfinished
from tests.manual_clock import ManualClock

NAMED, DRAWN = part_name("a" * 16), part_name("0123456789abcdef")


class Stand:
    """A root with a directory, and the notes about it."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.files, self.inside = ManualClock(), Files(), folder / "root/work/deep"
        self.inside.mkdir(parents=True)
        self.root = folder / "root"
        self.notes = folder / "notes"
        self.unfinished = Unfinished(self.notes, self.clock)
        self.trouble: Exception | None = None

    @asynccontextmanager
    async def open_root(self, place: str) -> AsyncIterator[Root]:
        assert place == "7/1"
        if self.trouble is not None:
            raise self.trouble
        with Root.at(self.root) as root:
            yield root

    def leave(self, name: str, age_seconds: float) -> None:
        """What a writer that died leaves."""
        path = self.inside / name
        path.write_bytes(b"half")
        os.utime(path, (self.clock.now() - age_seconds,) * 2)

    async def die(self, note: Note, age_seconds: float) -> None:
        """Begin to write and never come to the end."""
        await asyncio.to_thread(self.unfinished._write, note)
        for path in self.notes.iterdir():
            os.utime(path, (self.clock.now() - age_seconds,) * 2)

    async def sweep(self) -> list[str]:
        """What is left in the directory, and how many notes."""
        await self.unfinished.sweep(self.files, self.open_root)
        return sorted(os.listdir(self.inside)) + [str(len(list(self.notes.iterdir())))]


def play(folder: Path, script: Callable[[Stand], Coroutine[Any, Any, None]]) -> None:
    stand = Stand(folder)
    try:
        asyncio.run(script(stand))
    finally:
        stand.files.close()


@pytest.mark.parametrize("note", [Note("7/1", "/work/deep"), Note("7/1", "/work", deep=True)], ids=["file", "tree"])
def test_what_a_death_left_is_swept_when_nobody_has_gone_on_for_a_while(tmp_path: Path, note: Note) -> None:
    async def script(stand: Stand) -> None:
        stand.leave(NAMED, KEPT_SECONDS + 1)
        stand.leave(DRAWN, KEPT_SECONDS - 1)
        stand.leave("data.part", KEPT_SECONDS * 9)
        await stand.die(note, KEPT_SECONDS - 1)
        assert await stand.sweep() == [DRAWN, NAMED, "data.part", "1"]
        await stand.die(note, KEPT_SECONDS + 1)
        assert await stand.sweep() == [DRAWN, "data.part", "2"], "somebody may still go on with the younger one"
        stand.leave(DRAWN, KEPT_SECONDS + 1)
        assert await stand.sweep() == ["data.part", "0"]

    play(tmp_path, script)


def test_a_root_that_cannot_be_opened_is_looked_at_again_and_one_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    async def script(stand: Stand) -> None:
        await stand.die(Note("7/1", "/work"), KEPT_SECONDS + 1)
        stand.trouble = EngineFailed("away")
        assert await stand.sweep() == ["1"]
        stand.trouble = NotFound("gone")
        assert await stand.sweep() == ["0"]

    play(tmp_path, script)


def test_a_note_ends_with_the_writing_but_for_who_was_cut_off_and_may_go_on(tmp_path: Path) -> None:
    async def script(stand: Stand) -> None:
        for goes_on, cut, left in ((True, False, 0), (False, True, 0), (True, True, 1)):
            try:
                async with stand.unfinished.noted(Note("7/1", "/work"), goes_on):
                    assert len(list(stand.notes.iterdir())) == 1
                    if cut:
                        raise ConnectionResetError
            except ConnectionResetError:
                pass
            assert len(list(stand.notes.iterdir())) == left

    play(tmp_path, script)
