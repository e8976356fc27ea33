"""The edge: whatever a caller sends, it is answered in one shape, and only what is whole and allowed gets through."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kohakuriver.model.access import Role
from kohakuriver.wire import listen, serve
from kohakuriver.wire.serve import Edge, build_app
from tests.wire.rig import ANSWERS, LIMIT_BYTES, TABLE, Server, State, by_header, guard, serving

Script = Callable[[Server], Awaitable[None]]
CLOSE = b"Connection: close\r\n"


def play(script: Script) -> None:
    async def body() -> None:
        async with serving() as server, asyncio.timeout(20):
            await script(server)

    asyncio.run(body())


def told(answer: tuple[int, Any, Any]) -> tuple[int, str, str]:
    """Status, code and message of a refusal, which has exactly one shape."""
    status, body, _ = answer
    assert body.keys() == {"error"} and body["error"].keys() == {"code", "message", "details"}, body
    return status, body["error"]["code"], body["error"]["message"]


def post(text: str | bytes, path: str = "/n1") -> bytes:
    body = text.encode() if isinstance(text, str) else text
    head = f"POST /api/notes{path} HTTP/1.1\r\nHost: x\r\nX-Role: node\r\nContent-Type: application/json\r\n"
    return head.encode() + CLOSE + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


def parsed(answer: bytes) -> tuple[int, Any, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body), head


def test_a_request_gets_through_whole() -> None:
    async def script(server: Server) -> None:
        sent = {
            "text": "é\n",
            "number": 3,
            "yes": True,
            "words": ["a"],
            "status": "pending",
            "task_id": "5",
            "deep": {"a": "b"},
        }
        status, body, _ = await server.ask("POST", "/api/notes/n-1.x", json=sent)
        assert status == 202 and body["heard"] == [{"key": "n-1.x", **sent}] and body["role"] == "node"
        status, body, _ = await server.ask(
            "GET", "/api/notes/n1?text=a%20b%26c%3Dd&number=3&ratio=1&yes=true&words=a,b&status=running&task_id=77"
        )
        assert status == 200 and body == {
            "key": "n1", "text": "a b&c=d", "number": 3, "ratio": 1.0, "yes": True, "words": ["a", "b"],
            "status": "running", "task_id": "77",
        }  # fmt: skip
        assert (await server.ask("GET", "/api/notes/mine"))[1]["role"] == "node", "a fixed path wins over a parameter"
        async with server.http.get(server.url + "/text") as answer:
            assert (answer.content_type, await answer.text()) == ("text/plain", "ok é\n")

    play(script)


@pytest.mark.parametrize("needs", list(Role))
def test_each_role_gets_in_where_it_may_and_nowhere_else(needs: Role) -> None:
    async def script(server: Server) -> None:
        for role in (None, *Role):
            answer = await server.ask("GET", f"/api/needs/{needs.label}", role=role.label if role else "")
            held = role or Role.ANONY
            if needs is Role.ANONY or held is needs or (held > needs and Role.NODE not in (held, needs)):
                assert answer[0] == 200
            elif held is Role.ANONY:
                assert told(answer)[:2] == (401, "not_logged_in")
            else:
                assert told(answer)[:2] == (403, "not_allowed")

    play(script)


def test_a_guarded_thing_is_asked_for_after_decoding_and_before_the_answer() -> None:
    async def script(server: Server) -> None:
        assert (await server.ask("GET", "/api/owned/mine"))[0] == 200
        assert told(await server.ask("GET", "/api/owned/other")) == (404, "not_found", "there is no other")
        assert told(await server.ask("GET", "/api/owned/other?number=x"))[0] == 400
        assert len(server.state.asked) == 1

    play(script)


BAD_BODIES: list[tuple[str | bytes, str]] = [
    ('{"text":', "body: not JSON"),
    ("[1]", "body: expected an object"),
    ('"text"', "body: expected an object"),
    ('{"surprise":1}', "surprise: unknown field"),
    ('{"text":"a","text":"b"}', "text: given twice"),
    ('{"key":"n1"}', "key: given twice"),
    ('{"number":NaN}', "number: expected a whole number, got NaN"),
    ('{"number":1e400}', "number: expected a whole number"),
    ('{"number":-1}', "number: -1 is not between 0 and 9"),
    ('{"words":["a","b","c","d"]}', "words: more than 3 items"),
    ('{"words":["a",null]}', "words[1]: expected text"),
    ('{"text":"' + "x" * 101 + '"}', "text: longer than 100 characters"),
    ('{"text":"\\u0000"}', "text: must not hold a NUL"),
    ('{"text":"\\ud800"}', "text: holds half of a surrogate pair"),
    ('{"\\ud800":1}', "'\\ud800': unknown field"),
    (b'{"text":"\xff"}', "body: not UTF-8"),
    ('{"deep":' + '{"a":' * 1500 + "1" + "}" * 1501, "body: nested too deeply"),
    ("[" * 9000, "body: nested too deeply"),
    ('{"status":"lucky"}', "status: 'lucky' is not one of"),
    ('{"task_id":"12x"}', "task_id: expected an id"),
]


@pytest.mark.parametrize(("body", "message"), BAD_BODIES, ids=[str(message) for _, message in BAD_BODIES])
def test_a_bad_body_is_refused_by_name_and_reaches_nobody(body: str | bytes, message: str) -> None:
    async def script(server: Server) -> None:
        answer = parsed(await server.raw(post(body)))
        assert told(answer)[:2] == (400, "bad_request") and told(answer)[2].startswith(message), told(answer)
        assert server.state.asked == []

    play(script)


BAD_QUERIES = [
    ("?surprise=1", "surprise: unknown field"),
    ("?number=1&number=2", "number: given twice"),
    ("?key=n2", "key: given twice"),
    ("?number=one", "number: expected a whole number, got text"),
    ("?number=", "number: expected a whole number, got text"),
    ("?number=1.5", "number: expected a whole number, got a number"),
    ("?number=true", "number: expected a whole number, got text"),
    ("?number=[1]", "number: expected a whole number, got text"),
    ("?number=%D9%A3", "number: expected a whole number, got text"),
    ("?number=10", "number: 10 is not between 0 and 9"),
    ("?ratio=NaN", "ratio: nan is not between 0 and 1"),
    ("?ratio=1e999", "ratio: inf is not between 0 and 1"),
    ("?yes=1", "yes: expected true or false, got text"),
    ("?yes=True", "yes: expected true or false, got text"),
    ("?words=a,b,c,d", "words: more than 3 items"),
    ("?text=%00", "text: must not hold a NUL"),
    ("?%00=1", "'\\x00': unknown field"),
    ("?a%0Ab=1", "'a\\nb': unknown field"),
    ("?status=lucky", "status: 'lucky' is not one of"),
    ("?task_id=-5", "task_id: expected an id"),
]  # fmt: skip


@pytest.mark.parametrize(("query", "message"), BAD_QUERIES, ids=[query for query, _ in BAD_QUERIES])
def test_a_bad_query_is_refused_by_name_and_reaches_nobody(query: str, message: str) -> None:
    async def script(server: Server) -> None:
        head = f"GET /api/notes/n1{query} HTTP/1.1\r\nHost: x\r\nX-Role: node\r\n".encode()
        answer = parsed(await server.raw(head + CLOSE + b"\r\n"))
        assert told(answer)[:2] == (400, "bad_request") and told(answer)[2].startswith(message), told(answer)
        assert server.state.asked == []

    play(script)


def test_a_parameter_of_the_body_does_not_belong_into_the_query() -> None:
    async def script(server: Server) -> None:
        answer = await server.ask("POST", "/api/notes/n1?number=3", json={})
        assert told(answer) == (400, "bad_request", "number: belongs into the body, not into the query")

    play(script)


BAD_NAMES = ["../x", "%2e%2e%2fx", "a%00b", "a%0ab", "a%2fb", "x" * 7000, "%ff", "%ed%a0%80", "a%20b", "%C3%A9"]


@pytest.mark.parametrize("name", BAD_NAMES, ids=[name[:12] for name in BAD_NAMES])
def test_a_bad_name_in_the_path_is_refused(name: str) -> None:
    async def script(server: Server) -> None:
        head = f"GET /api/notes/{name} HTTP/1.1\r\nHost: x\r\nX-Role: node\r\n".encode()
        answer = await server.raw(head + CLOSE + b"\r\n")
        status = int(answer.split()[1])
        assert status in (400, 404) and server.state.asked == []
        assert told(parsed(answer))[2].startswith("key: " if status == 400 else "there is nothing at ")

    play(script)


def test_a_huge_body_is_refused_by_its_declared_length_and_by_its_real_one() -> None:
    async def script(server: Server) -> None:
        huge = json.dumps({"deep": {"a": "x" * LIMIT_BYTES}})
        assert told(parsed(await server.raw(post(huge)))) == (
            413,
            "too_large",
            f"body: larger than {LIMIT_BYTES} bytes",
        )

        async def forever() -> Any:
            for _ in range(100_000):
                yield b"x" * 1000

        headers = {"Content-Type": "application/json"}
        assert told(await server.ask("POST", "/api/notes/n1", data=forever(), headers=headers))[:2] == (
            413,
            "too_large",
        )
        head = b"POST /api/notes/n1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        only_head = head + b"X-Role: node\r\nContent-Length: 999999999999\r\n" + CLOSE + b"\r\n"
        assert told(parsed(await server.raw(only_head)))[0] == 413, "told before it is sent"
        assert server.state.asked == []

    play(script)


@pytest.mark.parametrize("encoding", ["deflate", "gzip", "br", "identity, gzip"])
def test_a_packed_body_is_refused_unread(encoding: str) -> None:
    async def script(server: Server) -> None:
        import zlib

        packed = zlib.compress(b'{"text":"' + b"x" * 5_000_000 + b'"}')
        headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
        answer = told(await server.ask("POST", "/api/notes/n1", data=packed, headers=headers))
        assert answer[:2] == (415, "wrong_content_type") and "Content-Encoding" in answer[2]
        assert server.state.asked == []

    play(script)


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "json"]
)
def test_a_body_that_is_not_declared_as_json_is_refused(content_type: str) -> None:
    async def script(server: Server) -> None:
        headers = {"Content-Type": content_type}
        answer = await server.ask("POST", "/api/notes/n1", data=b"{}", headers=headers)
        assert told(answer)[:2] == (415, "wrong_content_type") and server.state.asked == []

    play(script)


def test_json_with_a_charset_is_json() -> None:
    async def script(server: Server) -> None:
        headers = {"Content-Type": "application/json; charset=utf-8"}
        assert (await server.ask("POST", "/api/notes/n1", data=b"{}", headers=headers))[0] == 202
        assert (await server.ask("POST", "/api/notes/n1"))[0] == 202, "and no body at all needs no type"

    play(script)


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1", "file://", "http://127.0.0.1:1", ""]
)
def test_a_page_of_another_site_is_refused(origin: str) -> None:
    async def script(server: Server) -> None:
        for method, path in (("POST", "/api/notes/n1"), ("GET", "/api/needs/anony")):
            answer = await server.ask(method, path, headers={"Origin": origin})
            assert told(answer)[:2] == (403, "not_allowed") and server.state.asked == []

    play(script)


def test_a_page_of_our_own_gets_through() -> None:
    async def script(server: Server) -> None:
        assert (await server.ask("POST", "/api/notes/n1", json={}, headers={"Origin": server.url}))[0] == 202

    play(script)


def test_what_is_not_there_and_what_is_not_possible_is_said_in_the_same_shape() -> None:
    async def script(server: Server) -> None:
        assert told(await server.ask("GET", "/api/nowhere"))[:2] == (404, "not_found")
        assert told(await server.ask("GET", "/"))[:2] == (404, "not_found")
        answer = await server.ask("PATCH", "/api/notes/n1", json={})
        assert told(answer)[:2] == (405, "method_not_allowed")
        assert answer[2]["Allow"] == "DELETE, GET, POST, PUT"
        assert told(await server.ask("PURGE", "/api/notes/n1"))[0] == 405
        assert told(await server.ask("DELETE", "/api/notes/n1")) == (404, "not_found", "there is no n1")
        for path in (b"/%ff", b"/%ed%a0%80", b"/%00", b"/a%0d%0ab"):
            answer = parsed(await server.raw(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n"))
            assert told(answer)[:2] == (404, "not_found") and "\n" not in told(answer)[2]

    play(script)


def test_a_bug_is_a_500_that_tells_nothing_and_a_log_entry_that_tells_all(caplog: pytest.LogCaptureFixture) -> None:
    async def script(server: Server) -> None:
        with caplog.at_level(logging.ERROR):
            answer = told(await server.ask("GET", "/api/break"))
        assert answer[:2] == (500, "internal") and "secret" not in answer[2]
        assert "a bug with a secret in it" in caplog.text and "/api/break" in caplog.text

    play(script)


def test_a_body_that_does_not_arrive_in_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "BODY_TIMEOUT_SECONDS", 0.2)

    async def script(server: Server) -> None:
        whole = post('{"text":"' + "x" * 90 + '"}')
        answer = parsed(await server.raw(whole[:-50]))
        assert told(answer)[:2] == (400, "bad_request") and "did not arrive" in told(answer)[2]
        drops = [whole[:-50], *(bytes([b]) for b in whole[-50:-40])]
        assert told(parsed(await server.raw(*drops, pause_seconds=0.03)))[0] == 400, "not even drop by drop"
        assert server.state.asked == []

    play(script)


def test_a_connection_that_does_not_finish_its_head_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "IDLE_SECONDS", 0.3)

    async def script(server: Server) -> None:
        whole = b"GET /text HTTP/1.1\r\nHost: x\r\n\r\n"
        begun = (b"", b"GET / HT", b"GET /text HTTP/1.1\r\nX-A: b", whole, whole + b"GET /te")
        await asyncio.gather(*(server.raw(each, until_closed=True) for each in begun))
        drops = [bytes([b]) for b in b"GET /text HTTP/1.1\r\nX-Slow: " + b"x" * 10]
        try:
            await server.raw(*drops, pause_seconds=0.03, until_closed=True)
        except (ConnectionResetError, BrokenPipeError):
            pass

    play(script)


def test_broken_http_is_refused_in_the_usual_shape_and_costs_a_line_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    async def script(server: Server) -> None:
        for rubbish in (b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\r\n" * 50 + b"x\r\n\r\n",
                        b"GET /text HTTP/1.1\r\n" + b"A: " + b"x" * 100_000 + b"\r\n\r\n",
                        b"POST /api/notes/n1 HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                        b"POST /api/notes/n1 HTTP/1.1\r\nContent-Length: -1\r\n\r\n"):  # fmt: skip
            answer = await server.raw(rubbish, until_closed=True)
            assert answer == b"" or told(parsed(answer))[:2] == (400, "bad_request"), answer
        assert (await server.ask("GET", "/api/needs/anony"))[0] == 200
        assert "not HTTP" in caplog.text and "Traceback" not in caplog.text

    play(script)


def test_a_table_and_answers_that_differ_do_not_start() -> None:
    edge = Edge(State(), by_header, guard)
    for routes, answers in ((TABLE, ANSWERS[1:]), (TABLE, [*ANSWERS, ANSWERS[0]]), (TABLE[1:], ANSWERS)):
        with pytest.raises(RuntimeError, match="write"):
            build_app(routes, answers, edge)
