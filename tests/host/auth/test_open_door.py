"""Without accounts everybody is admin, so that is said aloud and kept on this machine."""

import asyncio
import logging
from pathlib import Path

import pytest

from kohakuriver.host.app import running_host
from kohakuriver.model.errors import BadRequest
from kohakuriver.system.clock import SystemClock
from tests.host.auth.house import House, in_house, settings_in


def test_without_accounts_whoever_reaches_the_port_is_admin_and_everybody_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(house: House) -> None:
        assert await house.get("/api/auth/status") == {
            "auth_enabled": False,
            "needs_first_admin": False,
            "name": "local",
            "role": "admin",
        }
        assert (await house.get("/api/health"))["auth_enabled"] is False
        me = await house.get("/api/auth/me")
        assert (me["name"], me["role"], me["by"]) == ("local", "admin", "none")
        said = await house.ask("POST", "/api/tasks", None, {"command": "true"})
        (task,) = await house.get("/api/tasks")
        assert said.status == 202 and (task["owner"], task["status"]) == ("local", "pending")

    with caplog.at_level(logging.WARNING):
        in_house(tmp_path, work, auth_enabled=False)
    assert "ACCOUNTS ARE OFF" in caplog.text
    assert not (tmp_path / "host" / "first_admin_secret").exists()


def test_with_accounts_that_is_told_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work(house: House) -> None:
        assert (await house.get("/api/auth/status"))["auth_enabled"] is True
        assert (await house.ask("GET", "/api/health")).status == 401
        assert (await house.ask("GET", "/metrics")).status == 401
        assert (await house.ask("GET", "/healthz")).body == "ok\n"

    with caplog.at_level(logging.WARNING):
        in_house(tmp_path, work)
    assert "ACCOUNTS ARE OFF" not in caplog.text


@pytest.mark.parametrize("address", ["0.0.0.0", "", "::", "10.0.0.1", "host.example"])
def test_on_a_network_it_does_not_start_without_accounts(tmp_path: Path, address: str) -> None:
    async def run() -> None:
        settings = settings_in(tmp_path, auth_enabled=False, host_bind_ip=address)
        with pytest.raises(BadRequest, match="AUTH_DISABLED_ON_NETWORK_I_UNDERSTAND"):
            async with running_host(settings, SystemClock()):
                pass
        assert not (tmp_path / "host").exists()  # nothing was begun

    asyncio.run(run())


@pytest.mark.parametrize(
    "changed",
    [
        {"host_bind_ip": "127.0.0.1"},
        {"host_bind_ip": "127.9.9.9"},
        {"host_bind_ip": "localhost"},
        {"host_bind_ip": "0.0.0.0", "auth_disabled_on_network_i_understand": True},
        {"host_bind_ip": "0.0.0.0", "auth_enabled": True},
    ],
)
def test_it_starts_where_nobody_else_comes_or_somebody_said_that_he_knows(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    async def work(house: House) -> None:
        assert (await house.ask("GET", "/healthz")).status == 200

    in_house(tmp_path, work, **{"auth_enabled": False} | changed)
