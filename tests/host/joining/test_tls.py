"""TLS with a CA of the host's own: who pins it is not fooled by another one, and what travels cannot be read."""

import asyncio
import json
import ssl
import stat
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kohakuriver.client.session import Session
from kohakuriver.host.console import ask_running_host
from kohakuriver.model import auth_api, join_api, runner_api
from kohakuriver.model.errors import BadRequest, HostUnreachable, NodeUnreachable, NotAllowed, NotFound, Unavailable
from kohakuriver.model.runner_api import Nothing
from kohakuriver.model.settings import ClientSettings, RunnerSettings
from kohakuriver.runner import joining as machine
from kohakuriver.runner import membership
from kohakuriver.runner.joining import Place
from kohakuriver.runner.membership import Membership
from kohakuriver.system.certificates import make_identity
from kohakuriver.system.identity import Identity, find_identity
from kohakuriver.wire.joining import parse_token
from kohakuriver.wire.pinning import fetch_ca, parse_fingerprint
from tests.host.joining.machines import Lab, in_lab, open_lab, settings_in
from tests.host.joining.test_programs import runner_in, said

NAMES = ["localhost", "127.0.0.1"]


def runner_settings(folder: Path) -> RunnerSettings:
    return RunnerSettings(runner_hostname="alpha", state_dir=str(folder / "runner"), cluster_secret_file="/nowhere")


def port_of(lab: Lab) -> int:
    return urlsplit(lab.host.url).port or 0


@contextmanager
def serving(identity: Identity, body: bytes) -> Iterator[int]:
    """Somebody who shows a certificate, and the same answer to everything."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    loop, ready, stop, port = asyncio.new_event_loop(), threading.Event(), asyncio.Event(), [0]

    async def serve() -> None:
        loop.set_exception_handler(lambda loop, context: None)  # handshakes that the other side breaks off
        async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=identity.context()) as server:
            port[0] = server.sockets[0].getsockname()[1]
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    assert ready.wait(20)
    try:
        yield port[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()


def test_a_certificate_is_made_and_renewed_under_the_same_ca(tmp_path: Path) -> None:
    made = make_identity(tmp_path, NAMES)
    assert find_identity(tmp_path) == made
    for path in (tmp_path / "tls").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = make_identity(tmp_path, [*NAMES, "head"])
    assert again.ca_fingerprint == made.ca_fingerprint and again.own_fingerprint != made.own_fingerprint
    again.context()
    again.key_file.chmod(0o644)
    with pytest.raises(NotAllowed, match="0600"):
        again.context()


def test_a_runner_joins_over_tls_and_pins_the_ca(tmp_path: Path) -> None:
    make_identity(tmp_path / "host", NAMES)

    async def work(lab: Lab) -> None:
        assert lab.host.url.startswith("https://")
        settings = replace(lab.host.settings, host_port=port_of(lab))
        made = await ask_running_host(settings, join_api.JOIN_TOKEN_CREATE, join_api.CreateJoinToken())
        token = parse_token(made.token)
        assert lab.host.identity is not None and token.ca_fingerprint == lab.host.identity.ca_fingerprint
        agreed = await machine.join(runner_settings(tmp_path), Place("127.0.0.1", port_of(lab)), token)
        assert agreed.ca_pem == lab.host.identity.ca_pem
        assert lab.host.keys.to("alpha").hex() == agreed.key
        membership.keep(runner_settings(tmp_path), agreed)
        async with runner_in(tmp_path) as runner, asyncio.timeout(20):
            while "alpha" not in lab.host.registry.nodes:
                await asyncio.sleep(0.01)
            node = lab.host.registry.nodes["alpha"].row
            assert runner.url.startswith("https://") and node.url == runner.url
            peers = lab.host.scheduler.peers
            health = await peers.at("alpha", node.url, node.tls_fingerprint).call(runner_api.HEALTH, Nothing())
            assert health.hostname == "alpha"
            for other in ("ab" * 32, lab.host.identity.own_fingerprint):  # who shows another certificate is not asked
                with pytest.raises(NodeUnreachable):
                    await peers.at("alpha", node.url, other).call(runner_api.HEALTH, Nothing())

    in_lab(tmp_path, work)


def test_somebody_with_another_ca_in_between_learns_nothing(tmp_path: Path) -> None:
    make_identity(tmp_path / "host", NAMES)
    false = make_identity(tmp_path / "false", NAMES)

    async def work(lab: Lab) -> None:
        assert lab.host.identity is not None
        token = parse_token(await _new_token(lab))
        own = false.ca_pem.encode()
        with serving(false, own) as port, pytest.raises(NotAllowed, match="somebody stands between"):
            await machine.join(runner_settings(tmp_path), Place("127.0.0.1", port), token)
        stolen = lab.host.identity.ca_pem.encode()  # the right CA, but he cannot be it
        with serving(false, stolen) as port, pytest.raises(Unavailable):
            await machine.join(runner_settings(tmp_path), Place("127.0.0.1", port), token)
        assert not (tmp_path / "runner").exists()

    in_lab(tmp_path, work)


async def _new_token(lab: Lab) -> str:
    ssl_off = ssl.create_default_context()
    ssl_off.check_hostname, ssl_off.verify_mode = False, ssl.CERT_NONE
    headers = lab.admin | {"Content-Type": "application/json"}
    url = lab.host.url + "/api/join-tokens"
    async with lab.house.http.post(url, data="{}", headers=headers, ssl=ssl_off) as answer:
        token: str = (await answer.json())["token"]
        return token


def test_a_runner_that_pinned_the_ca_does_not_speak_with_another_host(tmp_path: Path) -> None:
    good, false = make_identity(tmp_path / "good", NAMES), make_identity(tmp_path / "false", NAMES)

    async def run(port: int) -> None:
        agreed = Membership(
            cluster_id="c", hostname="alpha", host="127.0.0.1", port=port, key="ab" * 32, ca_pem=good.ca_pem
        )
        membership.keep(runner_settings(tmp_path), agreed)
        async with runner_in(tmp_path) as runner:
            await asyncio.sleep(0.5)
            assert not runner.link.joined

    with serving(false, b"{}") as port:
        asyncio.run(run(port))


def test_a_person_logs_in_over_tls_with_the_fingerprint(tmp_path: Path) -> None:
    make_identity(tmp_path / "host", NAMES)

    async def run() -> None:
        async with open_lab(settings_in(tmp_path, admin_secret="")) as lab:
            assert lab.host.identity is not None
            where = ["--host", "127.0.0.1", "--port", str(port_of(lab)), "--cluster", "lab"]
            file = str(tmp_path / "host" / "first_admin_secret")
            words = ["auth", "register", "ada", "--bootstrap-file", file, "--password-stdin", *where]
            code, _, err = await said(words, tmp_path, {}, "correct horse\n")
            assert code == 6 and "give --ca-fingerprint" in err
            code, _, err = await said([*words, "--ca-fingerprint", "00" * 32], tmp_path, {}, "correct horse\n")
            assert code == 4 and "somebody stands between" in err
            pinned = ["--ca-fingerprint", f"SHA256:{lab.host.identity.ca_fingerprint.upper()}"]
            code, out, err = await said([*words, *pinned], tmp_path, {}, "correct horse\n")
            assert code == 0 and "logged in as ada" in out and "not encrypted" not in err, err
            code, out, err = await said(["auth", "status", "--json"], tmp_path, {})
            assert code == 0 and json.loads(out)["encrypted"] is True, err
            code, out, err = await said(["task", "list"], tmp_path, {})
            assert code == 0, err
            make_identity(tmp_path / "false", NAMES)

    asyncio.run(run())
    false = find_identity(tmp_path / "false")
    assert false is not None
    with serving(false, b"[]") as port:
        kept = json.loads((tmp_path / "home/.kohakuriver/auth.json").read_text())
        kept["clusters"]["lab"]["port"] = port
        (tmp_path / "home/.kohakuriver/auth.json").write_text(json.dumps(kept))
        code, _, err = asyncio.run(said(["task", "list"], tmp_path, {}))
        assert code == 4 and "not believed" in err and kept["clusters"]["lab"]["token"] not in err


def test_a_certificate_for_another_name_is_not_believed(tmp_path: Path) -> None:
    made = make_identity(tmp_path, ["head.example"])
    with serving(made, b"{}") as port:
        settings = ClientSettings(port=port, ca_file=str(tmp_path / "tls/ca.crt"))
        with closing(Session(settings)) as session, pytest.raises(NotAllowed, match="tls init --name"):
            session.call(auth_api.STATUS, Nothing())


def test_the_commands_make_and_show_the_certificate(tmp_path: Path) -> None:
    settings: dict[str, object] = {"state_dir": tmp_path / "host"}
    code, _, err = asyncio.run(said(["host", "tls", "show"], tmp_path, settings))
    assert code == 3 and "tls init" in err
    code, out, err = asyncio.run(said(["host", "tls", "init", "--name", "head.example"], tmp_path, settings))
    assert code == 0 and "head.example" in err and "restart the host" in err
    made = find_identity(tmp_path / "host")
    assert made is not None and out == f"{made.ca_fingerprint}\n"
    code, shown, _ = asyncio.run(said(["host", "tls", "show"], tmp_path, settings))
    assert shown == out


def test_a_certificate_that_was_brought_along_is_used(tmp_path: Path) -> None:
    brought = make_identity(tmp_path / "brought", NAMES)
    files = {"tls_cert_file": str(brought.certificate_file), "tls_key_file": str(brought.key_file)}

    async def run() -> None:
        async with open_lab(settings_in(tmp_path, **files)) as lab:
            assert lab.host.url.startswith("https://")
            token = parse_token(await _new_token(lab))
            assert token.ca_fingerprint == brought.own_fingerprint  # a chain of one is its own end
            agreed = await machine.join(runner_settings(tmp_path), Place("127.0.0.1", port_of(lab)), token)
            assert agreed.ca_pem == brought.certificate_file.read_text()

    asyncio.run(run())
    with pytest.raises(NotFound, match="no such certificate"):
        find_identity(tmp_path, "/nowhere/cert.pem", "/nowhere/key.pem")


def test_a_host_without_tls_is_told(tmp_path: Path) -> None:
    async def work(lab: Lab) -> None:
        assert (await lab.house.ask("GET", "/api/tls/ca")).status == 404
        with pytest.raises(HostUnreachable, match="does not speak TLS"):
            await asyncio.to_thread(fetch_ca, "127.0.0.1", port_of(lab), "0" * 64)

    in_lab(tmp_path, work)


@pytest.mark.parametrize("text", ["", "ab", "zz" * 32, "ab" * 33])
def test_what_is_no_fingerprint_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_fingerprint(text)
    assert parse_fingerprint("SHA256:" + ":".join(["AB"] * 32)) == "ab" * 32
