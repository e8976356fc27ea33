"""One connection, typed answers, and errors that say what to do."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from kohakuriver.client.session import Broken, Session
from kohakuriver.model import errors
from kohakuriver.model import host_api as api
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.lifecycle import Status
from kohakuriver.model.listing import ListAll
from kohakuriver.model.runner_api import Nothing, ReadOutput
from kohakuriver.model.settings import ClientSettings
from kohakuriver.model.task import SubmitTask
from tests.client.made_up_host import FIRST, MadeUpHost, task

ID = api.TaskId(task_id=Snowflake(FIRST))
SUBMIT = SubmitTask(command="true")


@pytest.fixture
def session(host: MadeUpHost) -> Iterator[Session]:
    made = Session(ClientSettings(port=host.port))
    yield made
    made.close()


def test_an_answer_is_typed(session: Session, host: MadeUpHost) -> None:
    assert session.call(api.TASK_SHOW, ID) == task()
    assert host.asked == [("task.status", ID)]


def test_a_request_arrives_as_it_was_made(session: Session, host: MadeUpHost) -> None:
    listed = ListAll(status=Status.RUNNING, owner="a b&c=d+é", before=Snowflake(5), limit=7)
    session.call(api.TASK_LIST, listed)
    submitted = SubmitTask(command="sh", arguments=["-c", "echo '$1' \"\n\t\\ é"], targets=["a:1::0,1"])
    session.call(api.TASK_SUBMIT, submitted)
    followed = ReadOutput(task_id=Snowflake(5), follow=True, lines=0)
    host.answer(api.TASK_STDOUT, errors_of(errors.NotFound("none")))
    with pytest.raises(errors.NotFound), session.stream(api.TASK_STDOUT, followed):
        pass
    assert [request for _, request in host.asked] == [listed, submitted, followed]


def errors_of(error: errors.RiverError) -> Callable[[object], object]:
    def refuse(request: object) -> object:
        raise error

    return refuse


def test_many_calls_take_one_connection(session: Session, host: MadeUpHost) -> None:
    session.call(api.TASK_SHOW, ID)
    connection = session._connection
    assert connection and connection.sock
    port = connection.sock.getsockname()[1]
    for _ in range(3):
        session.call(api.NODE_LIST, Nothing())
        host.answer(api.TASK_KILL, errors_of(errors.Conflict("no")))
        with pytest.raises(errors.Conflict):
            session.call(api.TASK_KILL, ID)
    assert session._connection and session._connection.sock.getsockname()[1] == port


@pytest.mark.parametrize("kind", [errors.NotFound, errors.Conflict, errors.NotAllowed, errors.StoreUnavailable])
def test_a_refusal_comes_back_as_the_error_it_was(
    session: Session, host: MadeUpHost, kind: type[errors.RiverError]
) -> None:
    host.answer(api.TASK_SHOW, errors_of(kind("because", {"task_id": "5"})))
    with pytest.raises(kind) as caught:
        session.call(api.TASK_SHOW, ID)
    assert (str(caught.value), caught.value.details) == ("because", {"task_id": "5"})


def test_an_answer_of_another_version_is_no_mystery(session: Session, host: MadeUpHost) -> None:
    with pytest.raises(errors.RiverError, match=r"is not understood \(required_cores: expected a whole number"):
        session.understand(api.TASK_SHOW, {"required_cores": "1"})
    newer = {"task_ids": ["1"], "batch_id": "1", "colour": "blue"}
    assert session.understand(api.TASK_SUBMIT, newer).task_ids == [1]


def test_nobody_there_is_told_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        port = taken.getsockname()[1]
        with pytest.raises(errors.HostUnreachable) as caught:
            Session(ClientSettings(port=port)).call(api.NODE_LIST, Nothing())
    assert str(caught.value) == (
        f"no host at 127.0.0.1:{port} (Connection refused): is `kohakuriver host` running there? "
        "If it is elsewhere, set KOHAKURIVER_HOST and KOHAKURIVER_PORT, or give --host and --port"
    )


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a b", "é" * 70, "x\ny", "." * 300])
def test_a_name_that_leads_nowhere_is_told_the_same_way(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(host: str, *_: object, **__: object) -> None:
        host.encode("idna")
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(errors.HostUnreachable, match="no host at"):
        Session(ClientSettings(host=name)).call(api.NODE_LIST, Nothing())


@contextmanager
def stranger(*replies: bytes) -> Iterator[tuple[Session, list[bytes]]]:
    """A server that is none of ours: on each connection it reads, answers with the next bytes and hangs up."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for reply in replies:
                connection, _ = listening.accept()
                with connection:
                    received.append(connection.recv(65536))
                    connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        session = Session(ClientSettings(port=listening.getsockname()[1]))
        yield session, received
        session.close()
        thread.join(10)


def http(body: bytes, status: str = "200 OK", length: int | None = None) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


@pytest.mark.parametrize("reply", [http(b"<html>"), http(b"<html>", "404 Not Found"), http(b'{"error":1}', "500 Oops")])
def test_a_server_that_is_no_host_is_told(reply: bytes) -> None:
    with stranger(reply) as (session, _), pytest.raises(errors.HostUnreachable, match="not as a KohakuRiver host"):
        session.call(api.NODE_LIST, Nothing())


def test_a_question_is_asked_again_when_the_connection_breaks_before_the_answer() -> None:
    with stranger(b"", http(b"[]")) as (session, received):
        assert session.call(api.NODE_LIST, Nothing()) == []
    assert len(received) == 2


def test_a_submit_is_repeated_only_with_a_key_that_makes_it_safe() -> None:
    answer = http(b'{"task_ids":["1"],"batch_id":"1"}', "202 Accepted")
    with stranger(b"") as (session, received), pytest.raises(Broken, match="look whether it was done"):
        session.call(api.TASK_SUBMIT, SUBMIT)
    assert len(received) == 1
    with stranger(b"", answer) as (session, received):
        made = session.call(api.TASK_SUBMIT, SubmitTask(command="true", idempotency_key="k"))
    assert made.task_ids == [1] and len(received) == 2


def test_who_is_hung_up_on_learns_that_the_host_may_speak_tls() -> None:
    with stranger(b"", b"") as (session, _), pytest.raises(Broken, match="--ca-fingerprint"):
        session.call(api.NODE_LIST, Nothing())


def test_a_kill_is_never_repeated() -> None:
    with stranger(b"") as (session, received), pytest.raises(Broken):
        session.call(api.TASK_KILL, ID)
    assert len(received) == 1


def test_an_answer_that_ends_early_is_broken() -> None:
    with stranger(http(b"[", length=10)) as (session, _), pytest.raises(Broken):
        session.call(api.NODE_LIST, Nothing())
    with stranger(http(b"abc", length=10)) as (session, _), pytest.raises(Broken):
        _read_all(session)


def _read_all(session: Session) -> None:
    with session.stream(api.TASK_STDOUT, ReadOutput(task_id=Snowflake(1))) as stream:
        assert next(stream.chunks()) == b"abc"
        list(stream.chunks())


def test_a_connection_that_the_host_closed_between_two_calls_is_replaced() -> None:
    kept = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"
    with stranger(kept, http(b'{"task_ids":["1"],"batch_id":"1"}')) as (session, received):
        assert session.call(api.NODE_LIST, Nothing()) == []
        sock = session._connection.sock if session._connection else None
        assert sock is not None
        sock.recv(1, socket.MSG_PEEK)  # until the end of the connection has arrived
        assert session.call(api.TASK_SUBMIT, SUBMIT).task_ids == [1]
    assert len(received) == 2


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    assert Session(ClientSettings(host="::1", port=8000)).address == "[::1]:8000"
