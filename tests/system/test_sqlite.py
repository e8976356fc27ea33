"""The store's engine: one writer with group commit, reads beside it, and nothing lost whatever happens to disk or process."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.model.errors import StoreUnavailable
from kohakuriver.system import sqlite
from kohakuriver.system.sqlite import Database, InUse, NewerSchema, Work

FIRST = "CREATE TABLE numbers(number INTEGER PRIMARY KEY, text TEXT NOT NULL DEFAULT '');"
SECOND = """
    CREATE TABLE seen(number INTEGER);
    CREATE TRIGGER note AFTER INSERT ON numbers BEGIN INSERT INTO seen VALUES(new.number); END;
"""
TO_NOWHERE = "INSERT INTO nowhere VALUES(1);"
Script = Callable[[Database], Awaitable[object]]


def play(path: Path, script: Script, migrations: tuple[str, ...] = (FIRST,)) -> None:
    """Run a script on an open database, and close it after."""

    async def body() -> None:
        with contextlib.closing(Database(path, migrations)) as db:
            async with asyncio.timeout(30):
                await script(db)

    asyncio.run(body())


def put(number: int, text: str = "") -> Work[int]:
    def work(tx: sqlite3.Connection) -> int:
        tx.execute("INSERT INTO numbers VALUES(?, ?)", (number, text))
        return number

    return work


def numbers(tx: sqlite3.Connection) -> list[int]:
    return [row[0] for row in tx.execute("SELECT number FROM numbers ORDER BY number")]


def on_disk(path: Path) -> list[int]:
    """What somebody else who opens the file sees."""
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        return numbers(other)


class Gate:
    """A work that holds the writer until it is let go."""

    def __init__(self) -> None:
        self.inside, self.open = threading.Event(), threading.Event()

    def __call__(self, tx: sqlite3.Connection) -> None:
        self.inside.set()
        assert self.open.wait(20)


async def queued(db: Database, works: list[Work[Any]]) -> list["asyncio.Task[Any]"]:
    tasks = [asyncio.ensure_future(db.write(work)) for work in works]
    await asyncio.sleep(0)
    return tasks


def test_a_write_answers_with_what_the_work_returns_and_is_on_disk_then(tmp_path: Path) -> None:
    async def script(db: Database) -> None:
        assert await db.write(put(1)) == 1
        assert on_disk(tmp_path / "a.db") == [1] == await db.read(numbers)

    play(tmp_path / "a.db", script)


def test_writes_that_wait_together_share_one_transaction(tmp_path: Path) -> None:
    async def script(db: Database) -> None:
        gate, last = Gate(), Gate()
        waiting = await queued(db, [gate])
        await asyncio.to_thread(gate.inside.wait)
        group = await queued(db, [*map(put, range(100)), last])
        gate.open.set()
        await asyncio.to_thread(last.inside.wait)
        assert on_disk(tmp_path / "a.db") == [], "a hundred are done but none is committed"
        assert not any(task.done() for task in group), "and none is answered"
        last.open.set()
        assert (await asyncio.gather(*group))[:100] == list(range(100))
        assert on_disk(tmp_path / "a.db") == list(range(100))
        await asyncio.gather(*waiting)

    play(tmp_path / "a.db", script)


class Look:
    """Counts how often it is read; holds the reader while it is told to."""

    def __init__(self) -> None:
        self.times = 0
        self.inside, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def __call__(self, tx: sqlite3.Connection, least: int) -> list[int]:
        self.times += 1
        found = [number for number in numbers(tx) if number >= least]
        self.inside.set()
        assert self.go_on.wait(20)
        return found


def test_what_was_looked_up_is_not_read_again_until_something_is_written(tmp_path: Path) -> None:
    async def script(db: Database) -> None:
        look = Look()
        await db.write(put(1))
        for _ in range(3):
            assert (await db.look_up(look, 0), await db.look_up(look, 2)) == ([1], [])
        assert look.times == 2
        await db.write(put(2))
        assert (await db.look_up(look, 0), await db.look_up(look, 2)) == ([1, 2], [2])
        for least in range(10 * sqlite.MOST_KEPT):
            await db.look_up(look, least)
        assert len(db._kept) <= sqlite.MOST_KEPT

    play(tmp_path / "a.db", script)


def test_a_look_that_a_write_overtakes_is_good_for_nobody_after(tmp_path: Path) -> None:
    async def script(db: Database) -> None:
        look = Look()
        look.go_on.clear()
        slow = asyncio.ensure_future(db.look_up(look, 0))
        await asyncio.to_thread(look.inside.wait)
        await db.write(put(1))
        look.go_on.set()
        assert await slow == [], "it began before"
        assert await db.look_up(look, 0) == [1]

    play(tmp_path / "a.db", script)


def test_a_look_that_fails_is_tried_again(tmp_path: Path) -> None:
    async def script(db: Database) -> None:
        answers: Iterator[int | None] = iter((None, 7))

        def work(tx: sqlite3.Connection) -> int:
            answer = next(answers)
            if answer is None:
                raise KeyError("not yet")
            return answer

        with pytest.raises(KeyError):
            await db.look_up(work)
        assert await db.look_up(work) == 7

    play(tmp_path / "a.db", script)


def stop_iteration(tx: sqlite3.Connection) -> int:
    tx.execute("INSERT INTO numbers VALUES(75, '')")
    return next(iter(()))


def refuse(tx: sqlite3.Connection) -> None:
    tx.execute("INSERT INTO numbers VALUES(70, '')")
    raise KeyError("not so")


BAD: list[tuple[Work[Any], type[BaseException]]] = [
    (refuse, KeyError),
    (put(1), sqlite3.IntegrityError),
    (lambda tx: tx.execute("INSERT INTO nowhere VALUES(1)"), sqlite3.OperationalError),
    (lambda tx: tx.execute("INSERT INTO numbers VALUES(71, '')").execute("SELEC"), sqlite3.OperationalError),
    (lambda tx: tx.execute("INSERT INTO numbers VALUES(?, ?)", (72,)), sqlite3.ProgrammingError),
    (lambda tx: tx.execute("INSERT INTO numbers VALUES(?, '')", (2**70,)), OverflowError),
    (lambda tx: tx.execute("INSERT INTO numbers VALUES(73, ?)", ("\ud800",)), UnicodeEncodeError),
    (stop_iteration, RuntimeError),
]


def test_each_work_of_a_group_stands_or_falls_alone(tmp_path: Path) -> None:
    async def script(db: Database) -> None:
        gate = Gate()
        await queued(db, [gate])
        works = [put(1)] + [work for number, (bad, _) in enumerate(BAD) for work in (bad, put(number + 2))]
        group = await queued(db, works)
        gate.open.set()
        answers = await asyncio.gather(*group, return_exceptions=True)
        assert [type(a) for a in answers[1::2]] == [kind for _, kind in BAD]
        assert answers[::2] == list(range(1, len(BAD) + 2)) == on_disk(tmp_path / "a.db")

    play(tmp_path / "a.db", script)


def test_reads_see_only_what_is_committed_and_do_not_wait_for_the_writer(tmp_path: Path) -> None:
    async def script(db: Database) -> None:
        gate = Gate()
        await db.write(put(1))
        group = await queued(db, [put(2), gate])
        await asyncio.to_thread(gate.inside.wait)
        assert await db.read(numbers) == [1]
        gate.open.set()
        await asyncio.gather(*group)
        assert await db.read(numbers) == [1, 2], "and everything that was answered"

    play(tmp_path / "a.db", script)


def test_one_read_sees_one_moment_however_many_statements_it_has(tmp_path: Path) -> None:
    async def script(db: Database) -> None:
        await db.write(put(1))
        between, go_on = threading.Event(), threading.Event()

        def twice(tx: sqlite3.Connection) -> tuple[list[int], list[int]]:
            first = numbers(tx)
            between.set()
            assert go_on.wait(20)
            return first, numbers(tx)

        reading = asyncio.ensure_future(db.read(twice))
        await asyncio.to_thread(between.wait)
        await db.write(put(2))
        go_on.set()
        assert await reading == ([1], [1])
        assert await db.read(numbers) == [1, 2]

    play(tmp_path / "a.db", script)


def test_reads_that_fail_do_so_alone(tmp_path: Path) -> None:
    async def script(db: Database) -> None:
        def wrong(tx: sqlite3.Connection) -> None:
            raise KeyError("x")

        works: list[Work[Any]] = [
            numbers,
            wrong,
            lambda tx: tx.execute("SELEC"),
            lambda _: next(iter(())),
            numbers,
        ] * 20
        answers = await asyncio.gather(*(db.read(work) for work in works), return_exceptions=True)
        for number, answer in enumerate(answers):
            kind = (list, KeyError, sqlite3.OperationalError, RuntimeError, list)[number % 5]
            assert isinstance(answer, kind), answer
        with pytest.raises(StoreUnavailable, match="readonly"):
            await db.read(put(5))
        assert await db.read(numbers) == [], "a read cannot write"

    play(tmp_path / "a.db", script)


def test_a_cancelled_writer_disturbs_nobody(tmp_path: Path) -> None:
    async def script(db: Database) -> None:
        gate = Gate()
        waiting = await queued(db, [gate, put(1), put(2), put(3)])
        await asyncio.to_thread(gate.inside.wait)
        waiting[2].cancel()
        gate.open.set()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(answers[2], asyncio.CancelledError) and answers[3] == 3
        assert await db.write(put(4)) == 4

    play(tmp_path / "a.db", script)


def test_two_event_loops_share_one_database(tmp_path: Path) -> None:
    with contextlib.closing(Database(tmp_path / "a.db", (FIRST,))) as db:

        async def many(first: int) -> list[int]:
            return list(await asyncio.gather(*(db.write(put(first + number)) for number in range(200))))

        made: list[list[int]] = []
        threads = [threading.Thread(target=lambda f=first: made.append(asyncio.run(many(f)))) for first in (0, 1000)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(made) == [list(range(200)), list(range(1000, 1200))]
        assert len(asyncio.run(db.read(numbers))) == 400


def test_a_loop_that_is_gone_takes_nobody_with_it(tmp_path: Path) -> None:
    with contextlib.closing(Database(tmp_path / "a.db", (FIRST,))) as db:
        gate = Gate()

        async def leave() -> None:
            for work in (gate, put(1)):
                asyncio.ensure_future(db.write(work))
            await asyncio.to_thread(gate.inside.wait)

        asyncio.run(leave())
        gate.open.set()
        assert asyncio.run(db.write(put(2))) == 2
        assert on_disk(tmp_path / "a.db") == [1, 2]


def test_closing_finishes_what_waits_and_refuses_what_comes_later(tmp_path: Path) -> None:
    async def body() -> None:
        db = Database(tmp_path / "a.db", (FIRST,))
        waiting = await queued(db, [put(number) for number in range(600)])
        await asyncio.to_thread(db.close)
        assert await asyncio.gather(*waiting) == list(range(600))
        with pytest.raises(StoreUnavailable):
            await db.write(put(1000))
        with pytest.raises(StoreUnavailable):
            await db.read(numbers)

    asyncio.run(body())


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    async def script(db: Database) -> None:
        await db.write(put(1))
        for file in (tmp_path / "deep").iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        assert stat.S_IMODE((tmp_path / "deep").stat().st_mode) == 0o700

    before = os.umask(0)
    try:
        play(tmp_path / "deep" / "a.db", script)
    finally:
        os.umask(before)


def test_a_file_of_a_newer_release_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    Database(path, (FIRST, SECOND)).close()
    before = path.read_bytes()
    with pytest.raises(NewerSchema, match="newer release"):
        Database(path, (FIRST,))
    assert path.read_bytes() == before and not list(tmp_path.glob("*.bak"))


def test_an_older_file_is_backed_up_before_it_is_migrated(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    play(path, lambda db: db.write(put(1)))
    assert not list(tmp_path.glob("*.bak")), "a new file needs no backup"

    async def script(db: Database) -> None:
        await db.write(put(2))
        assert await db.read(lambda tx: tx.execute("SELECT number FROM seen").fetchone()[0]) == 2

    play(path, script, (FIRST, SECOND))
    backup = tmp_path / "a.db.schema-1.bak"
    assert on_disk(backup) == [1] and on_disk(path) == [1, 2]
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    with contextlib.closing(sqlite3.connect(backup)) as old:
        assert old.execute("PRAGMA user_version").fetchone()[0] == 1


@pytest.mark.parametrize("broken", [(SECOND + TO_NOWHERE,), (SECOND, TO_NOWHERE)], ids=["one", "the last of two"])
def test_migrations_happen_whole_and_together_or_not_at_all(tmp_path: Path, broken: tuple[str, ...]) -> None:
    path = tmp_path / "a.db"
    play(path, lambda db: db.write(put(1)))
    with pytest.raises(StoreUnavailable, match="nowhere"):
        Database(path, (FIRST, *broken))
    play(path, lambda db: db.write(put(2)))
    assert on_disk(path) == [1, 2]
    play(path, lambda db: db.write(put(3)), (FIRST, SECOND))


def test_two_programs_do_not_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with (
        contextlib.closing(Database(path, (FIRST,))),
        pytest.raises(InUse, match=r"a\.db is in use by another program"),
    ):
        Database(path, (FIRST,))
    (tmp_path / "no.db").write_bytes(b"no database" * 100)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            Database(tmp_path / "no.db", (FIRST,))
    play(path, lambda db: db.write(put(1)))


def test_a_file_that_is_no_database_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"#!/bin/sh\n" * 1000)
    with pytest.raises(StoreUnavailable, match=r"a\.db"):
        Database(tmp_path / "a.db", (FIRST,))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=True)
    yield disk
    held = subprocess.run(["umount", disk], check=False).returncode != 0
    if held:
        subprocess.run(["umount", "--lazy", disk], check=True)
    assert not held, "somebody still has a file open there"


async def fill(db: Database, first: int) -> tuple[list[int], list[int]]:
    """Write until the disk is full; which numbers were answered, which refused."""
    answered: list[int] = []
    for start in range(first, first + 4000, 8):
        group = [db.write(put(number, "x" * 4000)) for number in range(start, start + 8)]
        answers = await asyncio.gather(*group, return_exceptions=True)
        answered += [a for a in answers if isinstance(a, int)]
        refused = [start + at for at, a in enumerate(answers) if isinstance(a, StoreUnavailable)]
        assert all(isinstance(a, (int, StoreUnavailable)) for a in answers), answers
        if refused:
            return answered, refused
    raise AssertionError("the disk was never full")


def test_a_full_disk_refuses_writes_breaks_nothing_and_goes_on_when_there_is_room(small_disk: Path) -> None:
    path, filler = small_disk / "a.db", small_disk / "filler"

    async def script(db: Database) -> None:
        filler.write_bytes(bytes(1_000_000))
        known, refused = await fill(db, 0)
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match="nothing was changed"):
                await db.write(put(refused[0], "x" * 100_000))
        assert await db.read(numbers) == known, "reads go on, and what was refused is not there"
        filler.unlink()
        assert await db.write(put(100_000, "x" * 4000)) == 100_000, "it goes on by itself"
        more, _ = await fill(db, 200_000)
        assert on_disk(path) == sorted([*known, 100_000, *more]) == await db.read(numbers)

    play(path, script)
    assert on_disk(path)


def test_a_disk_that_is_full_at_the_start_says_so(small_disk: Path) -> None:
    with contextlib.suppress(OSError):
        (small_disk / "filler").write_bytes(bytes(3_000_000))
    with pytest.raises(StoreUnavailable, match=r"a\.db.* full"):
        Database(small_disk / "a.db", (FIRST,))


WRITER = """
import asyncio, sys
from pathlib import Path
from kohakuriver.system import sqlite
from kohakuriver.system.sqlite import Database

async def main():
    db = Database(Path(sys.argv[1]), (sys.argv[2],))
    first = int(sys.argv[3])

    async def some(lane):
        for number in range(lane, 1_000_000, 8):
            await db.write(lambda tx: tx.execute("INSERT INTO numbers VALUES(?, ?)", (first + number, "x" * 50)))
            print(first + number, flush=True)

    await asyncio.gather(*map(some, range(8)))

asyncio.run(main())
"""


def test_a_killed_process_loses_no_answered_write(tmp_path: Path) -> None:
    path, answered = tmp_path / "a.db", list[int]()
    for life in range(4):
        arguments = [sys.executable, "-c", WRITER, str(path), FIRST, str(life * 1_000_000)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as writer:
            assert writer.stdout is not None
            for _ in range(20 + 61 * life):
                answered.append(int(writer.stdout.readline()))
            writer.send_signal(signal.SIGKILL)
            answered += [int(line) for line in writer.stdout if line.endswith("\n")]
        assert set(answered) <= set(on_disk(path))
    assert len(answered) >= 4 * 20
