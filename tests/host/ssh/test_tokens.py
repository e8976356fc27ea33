"""API tokens typed where SSH asks for them: only where the setting allows it, and never guessed at for long."""

from pathlib import Path

import asyncssh
import pytest

from kohakuriver.model.access import Role
from tests.host.ssh.doors import Door, at_the_door


class Typist(asyncssh.SSHClient):
    """Somebody who types one thing at whatever is asked."""

    def __init__(self, typed: str) -> None:
        self.typed: list[str] = [typed]

    def kbdint_auth_requested(self) -> str | None:
        return "" if self.typed else None

    def kbdint_challenge_received(self, name: str, instructions: str, lang: str, prompts: object) -> list[str]:
        return [self.typed.pop()]


async def type_in(door: Door, user: str, typed: str) -> str:
    """What a command gives for somebody without a key."""
    proxy = await door.keeper.ready()
    connecting = asyncssh.connect(
        "127.0.0.1",
        door.keeper.port,
        username=user,
        client_factory=lambda: Typist(typed),
        known_hosts=([proxy.keys.ed25519.convert_to_public()], [], []),
        client_keys=None,
        config=[],
    )
    async with connecting as connection:
        return str((await connection.run("echo in")).stdout)


def token_of(door: Door, headers: dict[str, str]) -> str:
    return headers["Authorization"].removeprefix("Bearer ")


def test_a_token_lets_in_where_it_may(tmp_path: Path) -> None:
    async def work(door: Door) -> None:
        bob, eve = await door.house.person("bob", Role.USER), await door.house.person("eve", Role.USER)
        task = await door.house.task(bob)
        assert await type_in(door, task, token_of(door, bob.headers)) == "in\n"
        for typed in (token_of(door, eve.headers), "krt_1_wrong", ""):
            with pytest.raises(asyncssh.PermissionDenied):
                await type_in(door, task, typed)

    at_the_door(tmp_path, work, ssh_token_login_allowed=True)


def test_a_token_lets_nobody_in_where_it_may_not(tmp_path: Path) -> None:
    async def work(door: Door) -> None:
        bob = await door.house.person("bob", Role.USER)
        task = await door.house.task(bob)
        with pytest.raises(asyncssh.PermissionDenied):
            await type_in(door, task, token_of(door, bob.headers))

    at_the_door(tmp_path, work)


def test_guesses_run_out_for_the_api_too(tmp_path: Path) -> None:
    async def work(door: Door) -> None:
        bob = await door.house.person("bob", Role.USER)
        task = await door.house.task(bob)
        attempts = door.house.host.auth.attempts
        for _ in range(20):
            attempts.begin("127.0.0.1")
        with pytest.raises(asyncssh.PermissionDenied):
            await type_in(door, task, token_of(door, bob.headers))

    at_the_door(tmp_path, work, ssh_token_login_allowed=True)
