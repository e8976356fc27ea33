"""Passwords are compared whole, in one time for everybody, and never by more threads than are theirs."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

import bcrypt
import pytest

from kohakuriver.host.auth.passwords import Passwords
from kohakuriver.model.errors import TooMany

QUICK = 4  # the least cost bcrypt knows


def with_passwords(work: Callable[[Passwords], Awaitable[None]], cost: int = QUICK, most_waiting: int = 64) -> None:
    async def run() -> None:
        passwords = Passwords(cost, most_waiting)
        try:
            await work(passwords)
        finally:
            passwords.close()

    asyncio.run(run())


@pytest.mark.parametrize("password", ["correct horse", "ü" * 36, "x" * 72, "x" * 73, "🐎" * 200, "\u212b" * 10])
def test_the_right_password_is_right_and_another_is_not(password: str) -> None:
    async def work(passwords: Passwords) -> None:
        stored = await passwords.hash(password)
        assert await passwords.verify(password, stored)
        assert not await passwords.verify(password + "!", stored)
        assert not await passwords.verify(password[:-1], stored)
        assert not await passwords.verify("", stored)

    with_passwords(work)


def test_what_stands_behind_the_72nd_byte_counts() -> None:
    async def work(passwords: Passwords) -> None:
        short, long = "x" * 72, "x" * 72 + "tail"
        kept_short, kept_long = await passwords.hash(short), await passwords.hash(long)
        assert kept_short.startswith("bcrypt:$2b$") and kept_long.startswith("sha384-bcrypt:$2b$")
        assert not await passwords.verify(long, kept_short)
        assert not await passwords.verify(short, kept_long)
        assert not await passwords.verify("x" * 72 + "tale", kept_long)

    with_passwords(work)


def test_the_stored_text_of_a_long_password_is_no_password() -> None:
    """Who has stolen one kind of hash must not be able to log in with it at the other."""

    async def work(passwords: Passwords) -> None:
        stored = await passwords.hash("x" * 100)
        hashed = stored.partition(":")[2]
        assert not await passwords.verify(hashed, stored)
        assert not await passwords.verify(stored, stored)

    with_passwords(work)


def test_one_password_from_two_keyboards_is_one() -> None:
    async def work(passwords: Passwords) -> None:
        assert await passwords.verify("caf\u00e9", await passwords.hash("cafe\u0301"))

    with_passwords(work)


def test_the_cost_is_the_one_asked_for() -> None:
    async def work(passwords: Passwords) -> None:
        assert (await passwords.hash("x")).startswith("bcrypt:$2b$12$")

    with_passwords(work, cost=12)


def test_nobody_can_log_in_where_no_password_is_stored() -> None:
    async def work(passwords: Passwords) -> None:
        for password in ("", "x", "." * 31):
            assert not await passwords.verify(password, "")

    with_passwords(work)


def test_an_unknown_name_costs_as_much_as_a_wrong_password() -> None:
    async def work(passwords: Passwords) -> None:
        stored = await passwords.hash("right")

        async def seconds(kept: str, password: str) -> float:
            began = time.process_time()  # of all threads, and of nothing else that the machine does
            assert not await passwords.verify(password, kept)
            return time.process_time() - began

        spans: dict[str, list[float]] = {"known": [], "unknown": [], "long": []}
        for _ in range(15):
            spans["known"].append(await seconds(stored, "wrong"))
            spans["unknown"].append(await seconds("", "wrong"))
            spans["long"].append(await seconds(stored, "wrong" * 30))
        medians = {name: statistics.median(found) for name, found in spans.items()}
        assert max(medians.values()) < 1.5 * min(medians.values()), medians

    with_passwords(work, cost=8)


def test_more_than_so_many_do_not_wait() -> None:
    async def work(passwords: Passwords) -> None:
        found = await asyncio.gather(*(passwords.hash(f"{n}") for n in range(40)), return_exceptions=True)
        refused = [error for error in found if isinstance(error, TooMany)]
        assert len(refused) == 40 - 8
        assert refused[0].details["retry_after_seconds"] > 0
        assert await passwords.hash("again")  # the places are free again

    with_passwords(work, most_waiting=8)


def test_the_event_loop_goes_on_meanwhile() -> None:
    async def work(passwords: Passwords) -> None:
        hashing = [asyncio.create_task(passwords.hash("x")) for _ in range(8)]
        turns = 0
        while not all(task.done() for task in hashing):
            await asyncio.sleep(0)
            turns += 1
        assert turns > 50 * len(hashing), "each would take a turn or two if it were done between them"

    with_passwords(work, cost=10)


def test_bcrypt_itself_would_refuse_what_we_hash_first() -> None:
    with pytest.raises(ValueError, match="72"):
        bcrypt.hashpw(b"x" * 73, bcrypt.gensalt(4))
