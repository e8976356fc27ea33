"""What a store deleted goes from the log beside its file, too, and that is over before the store is closed."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.system.sqlite import Database

Connect = Callable[..., sqlite3.Connection]


def test_who_closes_it_waits_for_the_emptying_of_its_log_and_none_comes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, goes_on, order = threading.Event(), threading.Event(), list[str]()
    db = Database(tmp_path / "db", ("CREATE TABLE numbers(number INTEGER);",))
    connect: Connect = sqlite3.connect

    def slow(*given: Any, **options: Any) -> sqlite3.Connection:
        begun.set()
        assert goes_on.wait(60)
        order.append("emptied")
        return connect(*given, **options)

    def close() -> None:
        db.close()
        order.append("closed")

    monkeypatch.setattr(sqlite3, "connect", slow)
    emptying, closing = threading.Thread(target=lambda: asyncio.run(db.scrub())), threading.Thread(target=close)
    emptying.start()
    assert begun.wait(60)
    closing.start()
    closing.join(0.2)  # who does not wait has done it by now
    goes_on.set()
    for thread in (emptying, closing):
        thread.join()
    asyncio.run(db.scrub())
    assert order == ["emptied", "closed"] and sorted(os.listdir(tmp_path)) == ["db", "db.lock"]
