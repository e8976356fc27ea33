"""Calls between programs: typed both ways, honest about what the peer has seen, and deaf to whoever has not our key."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from kohakuriver.model import errors
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.lifecycle import Status
from kohakuriver.wire import call, sign
from kohakuriver.wire.call import NotDelivered, Peer
from kohakuriver.wire.serve import Identified, Incoming
from kohakuriver.wire.sign import REQUEST_HEADER, Signer
from tests.wire.rig import BYTES, FORGET, READ, WRITE, Note, Query, Server, by_signature, serving

KEY = bytes(range(32))
NOTE, QUERY = Note(key="n1", text="hello"), Query(key="n1")


class Time:
    """Seconds that a test moves."""

    def __init__(self, at: float = 1_700_000_000.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


class Rig:
    """A server that asks for signatures and counts requests, and a peer that signs."""

    def __init__(self, key: bytes = KEY, skew_seconds: float = 0.0) -> None:
        self.there, self.here = Time(), Time(1_700_000_000.0 + skew_seconds)
        self.requests, self.key = 0, key
        self.knows = by_signature({"n1": KEY}.get, self.there)

    def identify(self, incoming: Incoming) -> Identified:
        self.requests += 1
        return self.knows(incoming)

    def restart(self) -> None:
        self.knows = by_signature({"n1": KEY}.get, self.there)

    def peer(self, http: aiohttp.ClientSession, url: str) -> Peer:
        return Peer(http, url, Signer("n1", self.key, self.here))


def play(script: Callable[[Server, Peer], Awaitable[None]], rig: Rig | None = None) -> None:
    rig = rig or Rig()

    async def body() -> None:
        async with serving(rig.identify) as server, asyncio.timeout(20):
            await script(server, rig.peer(server.http, server.url))

    asyncio.run(body())


def test_a_call_is_typed_both_ways_and_signed_both_ways() -> None:
    rig = Rig()

    async def script(server: Server, peer: Peer) -> None:
        answer = await peer.call(WRITE, NOTE)
        assert (answer.caller, answer.role, answer.heard) == ("n1", "node", [NOTE])
        assert rig.requests == 2, "the first call learns whom it speaks with"
        for _ in range(3):
            await peer.call(WRITE, NOTE)
        assert rig.requests == 5, "and later ones need no more than one trip"

    play(script, rig)


@pytest.mark.parametrize("text", ["a b&c=d", "%2F", "+", "é/?#", "a;b", "=", "\n", "100%", "~!*'()", " ", "\U0001f600"])
def test_whatever_stands_in_a_query_is_signed_as_it_travels(text: str) -> None:
    async def script(server: Server, peer: Peer) -> None:
        asked = Query(
            key="n-1.x", text=text, number=3, ratio=0.25, yes=True, status=Status.RUNNING, task_id=Snowflake(9)
        )
        assert await peer.call(READ, asked) == asked

    play(script)


@pytest.mark.parametrize("skew_seconds", [3600.0, -3600.0])
def test_skewed_clocks_are_healed_by_one_more_round_trip(skew_seconds: float) -> None:
    rig = Rig(skew_seconds=skew_seconds)

    async def script(server: Server, peer: Peer) -> None:
        for _ in range(3):
            await peer.call(WRITE, NOTE)
        assert rig.requests == 4
        rig.there.at += 7200  # and when somebody steps a clock later on
        await peer.call(WRITE, NOTE)
        assert rig.requests == 6

    play(script, rig)


def test_a_restarted_program_is_learnt_anew_by_calls_at_the_same_time() -> None:
    rig = Rig()

    async def script(server: Server, peer: Peer) -> None:
        for _ in range(2):
            await asyncio.gather(*(peer.call(WRITE, NOTE) for _ in range(20)))
            rig.restart()

    play(script, rig)


def test_refusals_come_back_as_the_errors_they_were() -> None:
    async def script(server: Server, peer: Peer) -> None:
        with pytest.raises(errors.NotFound, match="there is no n1"):
            await peer.call(FORGET, QUERY)
        with pytest.raises(errors.BadRequest, match="number: 99 is not between 0 and 9"):
            await peer.call(READ, Query(key="n1", number=99))

    play(script)


def test_a_wrong_secret_is_said_to_be_one() -> None:
    async def script(server: Server, peer: Peer) -> None:
        with pytest.raises(errors.NotLoggedIn, match="same cluster secret"):
            await peer.call(WRITE, NOTE)
        with pytest.raises(errors.NotLoggedIn):
            async with peer.stream(BYTES, QUERY):
                raise AssertionError("opened")
        assert server.state.asked == []

    play(script, Rig(key=bytes(32)))


Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def stranger(answer: Answer) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """Somebody else at the address of a peer, who answers whatever he likes."""
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with aiohttp.ClientSession() as http:
            yield http, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def outcome(answer: Answer, stream: bool = False, timeout_seconds: float = 5.0) -> errors.RiverError:
    """What a call raises that meets this stranger."""

    async def body() -> errors.RiverError:
        async with stranger(answer) as (http, url):
            peer = Rig().peer(http, url)
            with pytest.raises(errors.RiverError) as raised:
                if stream:
                    async with peer.stream(BYTES, QUERY):
                        raise AssertionError("opened")
                await peer.call(WRITE, NOTE, timeout_seconds)
            return raised.value

    return asyncio.run(body())


def refusal(code: str) -> str:
    return json.dumps({"error": {"code": code, "message": "believe me", "details": {"audience": "x", "now": 1}}})


def nonce_of(request: web.Request) -> str:
    return request.headers[REQUEST_HEADER].split(";")[4]


LIES: dict[str, Callable[[web.Request], web.Response]] = {
    "unsigned success": lambda r: web.Response(text='{"caller":"n1","role":"node"}'),
    "unsigned refusal": lambda r: web.Response(status=409, text=refusal("conflict")),
    "unsigned absence": lambda r: web.Response(status=404, text=refusal("not_found")),
    "unsigned ban": lambda r: web.Response(status=403, text=refusal("not_allowed")),
    "unsigned failure": lambda r: web.Response(status=502, text=refusal("engine_failed")),
    "a lesson that is not signed": lambda r: web.Response(status=401, text=refusal("stale_signature")),
    "another error under 401": lambda r: web.Response(status=401, text=refusal("not_found")),
    "no json": lambda r: web.Response(status=500, text="<html>"),
    "json of another kind": lambda r: web.Response(status=500, text="[1]"),
    "error of another kind": lambda r: web.Response(status=500, text='{"error":"x"}'),
    "signed with another key": lambda r: _signed(r, bytes(32), nonce_of(r), 200),
    "signed for another call": lambda r: _signed(r, KEY, "0" * 24, 200),
    "signed with another status": lambda r: _signed(r, KEY, nonce_of(r), 404),
    "signed with another body": lambda r: _signed(r, KEY, nonce_of(r), 200, b"{}"),
    "a header that is no text": lambda r: web.Response(text="{}", headers={sign.ANSWER_HEADER: "\udcff"}),
}


def _signed(request: web.Request, key: bytes, nonce: str, status: int, body: bytes = b"") -> web.Response:
    sent = b'{"caller":"liar","role":"node"}'
    return web.Response(body=sent, headers={sign.ANSWER_HEADER: sign.answer_mac(key, nonce, status, body or sent)})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("lie", LIES)
def test_an_answer_without_our_signature_is_not_believed(lie: str, stream: bool) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return LIES[lie](request)

    raised = outcome(answer, stream)
    if "401" in lie or "lesson" in lie:
        assert type(raised) is errors.NotLoggedIn, "at most that we are not known there"
    else:
        assert type(raised) is errors.NodeUnreachable, "and nothing about what became of the request"
        assert "not signed with our key" in str(raised)


def test_a_signed_answer_that_is_not_understood_is_no_refusal() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        body = b'{"role":5}'
        return web.Response(body=body, headers={sign.ANSWER_HEADER: sign.answer_mac(KEY, nonce_of(request), 200, body)})

    raised = outcome(answer)
    assert type(raised) is errors.NodeUnreachable and "caller: required" in str(raised) or "role" in str(raised)


def test_a_peer_that_never_stops_teaching_is_given_up() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        body = refusal("stale_signature").encode()
        headers = {sign.ANSWER_HEADER: sign.answer_mac(KEY, nonce_of(request), 401, body)}
        return web.Response(status=401, body=body, headers=headers)

    assert isinstance(outcome(answer), errors.StaleSignature)
    assert isinstance(outcome(answer, stream=True), errors.StaleSignature)


async def _never(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    raise AssertionError


async def _hang_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def _half(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Length": "100"})
    await answer.prepare(request)
    await answer.write(b'{"caller"')
    assert request.transport is not None
    request.transport.abort()
    return answer


@pytest.mark.parametrize("answer", [_never, _hang_up, _half])
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_whose_answer_is_missing_may_have_been_done(
    answer: Answer, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call, "DEFAULT_TIMEOUT_SECONDS", 0.3)
    found = outcome(answer, stream and answer is not _half, timeout_seconds=0.3)
    assert type(found) is errors.NodeUnreachable and not str(found).endswith(": "), "it says why"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://[::1]:1"])
def test_a_request_that_found_no_connection_was_certainly_not_seen(url: str) -> None:
    async def body() -> None:
        async with aiohttp.ClientSession() as http:
            peer = Rig().peer(http, url)
            with pytest.raises(NotDelivered):
                await peer.call(WRITE, NOTE)
            with pytest.raises(NotDelivered):
                async with peer.stream(BYTES, QUERY):
                    raise AssertionError("opened")

    asyncio.run(body())


def test_a_refusal_is_cut_to_what_a_row_can_hold() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        told = {"error": {"code": "conflict", "message": "a\0\ud800" + "x" * 100_000, "details": {}}}
        body = json.dumps(told).encode()
        headers = {sign.ANSWER_HEADER: sign.answer_mac(KEY, nonce_of(request), 409, body)}
        return web.Response(status=409, body=body, headers=headers)

    for stream in (False, True):
        raised = outcome(answer, stream)
        assert isinstance(raised, errors.Conflict) and str(raised).startswith("a?x") and len(str(raised)) < 4096


def test_a_stream_comes_chunk_by_chunk_and_ends() -> None:
    async def script(server: Server, peer: Peer) -> None:
        go_on = asyncio.Event()

        async def chunks(asked: Query) -> AsyncIterator[bytes]:
            yield b"one"
            await go_on.wait()
            yield bytes(300_000)

        server.state.chunks = chunks
        async with peer.stream(BYTES, QUERY) as answer:
            assert answer.headers["X-Kohakuriver-Offset"] == "7"
            assert await answer.content.readany() == b"one", "at once, not when all is there"
            go_on.set()
            assert await answer.read() == bytes(300_000)

    play(script)


def test_a_stream_that_breaks_is_cut_and_not_ended() -> None:
    async def script(server: Server, peer: Peer) -> None:
        async def chunks(asked: Query) -> AsyncIterator[bytes]:
            yield b"one"
            raise ConnectionResetError("its source went away")

        server.state.chunks = chunks
        async with peer.stream(BYTES, QUERY) as answer:
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()

    play(script)


def test_a_reader_that_goes_away_ends_the_source() -> None:
    async def script(server: Server, peer: Peer) -> None:
        over = asyncio.Event()

        async def chunks(asked: Query) -> AsyncIterator[bytes]:
            try:
                yield b"one"
                await asyncio.sleep(60)
            finally:
                over.set()

        server.state.chunks = chunks
        async with peer.stream(BYTES, QUERY) as answer:
            await answer.content.readany()
        async with asyncio.timeout(5):
            await over.wait()

    play(script)


def test_a_caller_that_goes_away_ends_the_work_for_it() -> None:
    async def script(server: Server, peer: Peer) -> None:
        began, over = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            began.set()
            try:
                await asyncio.sleep(60)
            finally:
                over.set()

        await peer.call(WRITE, NOTE)
        server.state.hold = hold
        calling = asyncio.ensure_future(peer.call(WRITE, NOTE))
        await began.wait()
        calling.cancel()
        async with asyncio.timeout(5):
            await over.wait()

    play(script)


def test_refusals_of_a_stream_are_typed_too() -> None:
    async def script(server: Server, peer: Peer) -> None:
        with pytest.raises(errors.BadRequest, match="number"):
            async with peer.stream(BYTES, Query(key="n1", number=99)):
                raise AssertionError("opened")

    play(script)


def test_what_somebody_else_recorded_is_refused_a_second_time() -> None:
    async def script(server: Server, peer: Peer) -> None:
        recorded: dict[str, Any] = {}
        await peer.call(WRITE, NOTE)
        signer = Signer("n1", KEY, Time())
        body = b"{}"
        request = sign.Request("POST", "/api/notes/n1", "", body)
        for _ in range(3):
            recorded, _nonce = signer.sign(request)
            headers = {**recorded, "Content-Type": "application/json"}
            async with server.http.post(server.url + "/api/notes/n1", data=body, headers=headers) as answer:
                told = await answer.json()
            if answer.status == 202:
                break
            signer.learn(told["error"]["details"]["audience"], told["error"]["details"]["now"])
        before = len(server.state.asked)
        async with server.http.post(server.url + "/api/notes/n1", data=body, headers=headers) as answer:
            assert answer.status == 401 and "already" in await answer.text()
        assert len(server.state.asked) == before

    play(script)
