"""What a runner keeps on disk."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from kohakuriver.model.errors import Conflict
from kohakuriver.model.report import State
from kohakuriver.runner.attempt import Accepted, KillOrder, Why, preparing
from kohakuriver.runner.store import REMEMBERED_SECONDS, Kept, Store
from tests.runner.stage import key, request


def play(path: Path, script: Callable[[Store], Awaitable[None]]) -> None:
    async def whole() -> None:
        store = Store(path / "runner.db")
        try:
            await script(store)
        finally:
            store.close()

    asyncio.run(whole())


def accepted(task_id: int = 1, attempt: int = 1) -> Accepted:
    asked = request(
        "printf", "ünï ☃", "$HOME", task_id=task_id, attempt=attempt, env_vars={"A": "'\""}, gpus=[1, 2], numa_node=0
    )
    return Accepted(asked, Path(f"/logs/{task_id}/{attempt}"), 1234)


def test_an_attempt_comes_back_exactly_as_it_was_taken_on(tmp_path: Path) -> None:
    promise, order = accepted(), KillOrder(why=Why.ASKED, asked_at=5.5, grace_seconds=3.0)

    async def write(store: Store) -> None:
        assert await store.accept(promise, preparing(promise.request)) is None
        await store.order(key(), order)

    async def read(store: Store) -> None:
        assert await store.held() == [Kept(promise, preparing(promise.request), order)]

    play(tmp_path, write)
    play(tmp_path, read)


def test_the_same_attempt_again_tells_its_state(tmp_path: Path) -> None:
    async def script(store: Store) -> None:
        first = preparing(accepted().request)
        await store.accept(accepted(), first)
        assert await store.accept(accepted(), first) == first
        end = type(first)(task_id=first.task_id, attempt=1, state=State.ENDED, exit_code=3)
        await store.end(key(), end)
        assert await store.accept(accepted(), first) == end
        await store.forget([key()], now=1000.0)
        assert await store.accept(accepted(), first) == end
        assert await store.held() == []

    play(tmp_path, script)


def test_an_older_attempt_is_a_conflict_and_a_newer_one_is_not(tmp_path: Path) -> None:
    async def script(store: Store) -> None:
        await store.accept(accepted(attempt=2), preparing(accepted(attempt=2).request))
        with pytest.raises(Conflict):
            await store.accept(accepted(), preparing(accepted().request))
        await store.forget([key(attempt=2)], now=1000.0)
        with pytest.raises(Conflict):
            await store.accept(accepted(), preparing(accepted().request))
        assert await store.accept(accepted(attempt=3), preparing(accepted(attempt=3).request)) is None

    play(tmp_path, script)


def test_what_was_forgotten_long_ago_leaves_the_disk(tmp_path: Path) -> None:
    async def script(store: Store) -> None:
        for number in (1, 2):
            await store.accept(accepted(number), preparing(accepted(number).request))
        await store.forget([key(1)], now=1000.0)
        await store.forget([key(2)], now=1001.0 + REMEMBERED_SECONDS)
        assert await store.accept(accepted(1), preparing(accepted(1).request)) is None
        assert await store.accept(accepted(2), preparing(accepted(2).request)) is not None

    play(tmp_path, script)


def test_secret_values_are_erased_with_the_attempt(tmp_path: Path) -> None:
    async def script(store: Store) -> None:
        secret = Accepted(request("true", secret_env={"TOKEN": "hushhushhush"}), Path("/logs"), 1)
        await store.accept(secret, preparing(secret.request))
        assert (await store.held())[0].accepted.request.secret_env == {"TOKEN": "hushhushhush"}
        await store.forget([key()], now=1000.0)

    play(tmp_path, script)
    with closing(sqlite3.connect(tmp_path / "runner.db")) as file:
        assert "hushhushhush" not in "\n".join(file.iterdump())
    assert (tmp_path / "runner.db").stat().st_mode & 0o077 == 0


def test_facts(tmp_path: Path) -> None:
    async def script(store: Store) -> None:
        assert await store.fact("cluster_id") == ""
        await store.learn("cluster_id", "a")
        await store.learn("cluster_id", "b")
        assert await store.fact("cluster_id") == "b"
        await store.ping()

    play(tmp_path, script)
