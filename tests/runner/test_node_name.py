"""How a node is called and reached."""

import socket

import pytest

from kohakuriver.model.errors import BadRequest
from kohakuriver.model.settings import RunnerSettings
from kohakuriver.runner.node_name import Place, hostname_of, place_of, url_of


def test_the_name_is_the_configured_one_else_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hostname_of(RunnerSettings(runner_hostname="alpha")) == "alpha"
    monkeypatch.setattr(socket, "gethostname", lambda: "node-7.lab.example")
    assert hostname_of(RunnerSettings()) == "node-7.lab.example"
    monkeypatch.setattr(socket, "gethostname", lambda: "bad name!")
    with pytest.raises(BadRequest, match="RUNNER_HOSTNAME"):
        hostname_of(RunnerSettings())


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"runner_address": "10.0.0.7", "runner_bind_ip": "127.0.0.1"}, Place("127.0.0.1", "10.0.0.7")),
        ({"runner_bind_ip": "127.0.0.3"}, Place("127.0.0.3", "127.0.0.3")),
        ({"runner_bind_ip": "0.0.0.0", "host_address": "127.0.0.1"}, Place("0.0.0.0", "127.0.0.1")),
        ({"host_address": "127.0.0.1"}, Place("127.0.0.1", "127.0.0.1")),
        ({"host_address": "no.such.host.invalid"}, Place("", "")),
    ],
)
def test_the_place_is_configured_or_found_out(settings: dict[str, str], place: Place) -> None:
    assert place_of(RunnerSettings(**settings)) == place  # type: ignore[arg-type]


def test_an_url_of_either_family() -> None:
    assert url_of("10.0.0.7", 8001) == "http://10.0.0.7:8001"
    assert url_of("fd00::7", 8001) == "http://[fd00::7]:8001"
