"""The one connection of a command to its host: typed requests out, typed answers or typed errors back."""

import http.client
import select
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar
from urllib.parse import urlencode

from kohakuriver.model import codec, errors
from kohakuriver.model.route import ByteStream, Route
from kohakuriver.model.settings import ClientSettings

if TYPE_CHECKING:
    import ssl

Q = TypeVar("Q")
R = TypeVar("R")
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60.0
UPLOAD_SECONDS = 600.0  # to take a piece of a body, or to bring all of it to the disk
CHUNK_BYTES = 65536
PERHAPS_TLS = " (if it never answers, it may speak TLS: log in with --ca-fingerprint)"
# A dead host is noticed on a silent stream after half a minute.
KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))


class Broken(errors.HostUnreachable):
    """The connection broke after the request was sent, so nobody here knows what became of it."""


class _Prepared(NamedTuple):
    """One request as it goes out; `repeatable` when sending it twice does no more than sending it once."""

    name: str
    method: str
    target: str
    body: bytes | None
    repeatable: bool


class Stream(NamedTuple):
    """An answer of raw bytes."""

    answer: http.client.HTTPResponse
    address: str

    def header(self, name: str) -> str | None:
        return self.answer.getheader(name)

    def chunks(self) -> Iterator[bytes]:
        """The bytes as they come, until the host says that this was all; raises Broken when it could not."""
        while True:
            try:
                chunk = self.answer.read1(CHUNK_BYTES)
            except (OSError, http.client.HTTPException) as broken:
                raise Broken(f"the connection to {self.address} broke: {_why(broken)}") from broken
            if not chunk:
                break
            yield chunk
        if self.answer.length:  # the library does not say so when a body of known length ends early
            raise Broken(f"the connection to {self.address} broke in the middle of an answer")
        self.answer.close()  # read to its end: the connection can be used again


class Session:
    """One host; keeps one connection for all calls."""

    def __init__(self, settings: ClientSettings, connect_seconds: float = CONNECT_SECONDS) -> None:
        self._connect_seconds = connect_seconds
        self.address = (
            f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"
        )
        self.settings = settings
        self._connection: http.client.HTTPConnection | None = None

    @property
    def encrypted(self) -> bool:
        """Whether nobody on the way can listen."""
        return self.settings.tls or bool(self.settings.ca_file)

    def another(self) -> "Session":
        """A second connection to the same host, for what goes on at the same time."""
        return Session(self.settings, self._connect_seconds)

    def ask(self, route: Route[Q, R], request: Q) -> Any:
        """The answer as plain JSON values; raises what the host refused with, or HostUnreachable."""
        with self._answered(route, request) as answer:
            try:
                return codec.loads(answer.read())
            except (OSError, http.client.HTTPException) as broken:
                self._lost(route.name, broken)
            except errors.BadRequest:
                raise self._not_ours(answer.status) from None

    def call(self, route: Route[Q, R], request: Q) -> R:
        """The typed answer; raises as `ask` does."""
        return self.understand(route, self.ask(route, request))

    def understand(self, route: Route[Q, R], answer: Any) -> R:
        """Plain JSON values as the route's answer; raises RiverError when host and client speak differently."""
        try:
            return codec.decode(route.gives, answer, strict=False)
        except errors.BadRequest as differs:
            told = f"the answer of {self.address} is not understood ({differs}): host and client differ in version"
            raise errors.RiverError(told) from None

    @contextmanager
    def stream(self, route: Route[Q, ByteStream], request: Q) -> Iterator[Stream]:
        """An open answer of raw bytes; raises as `ask` does, and Broken when it is cut off."""
        with self._answered(route, request) as answer:
            assert self._connection is not None
            if self._connection.sock:
                self._connection.sock.settimeout(None)
            yield Stream(answer, self.address)

    def upload(self, route: Route[Q, R], request: Q, chunks: Iterator[bytes], size: int | None = None) -> Any:
        """Send raw bytes (`size` of them, if that is known); the answer as plain JSON values.

        Raises as `ask` does, and what `chunks` raises.
        """
        connection = self._connected()
        try:
            self._send_body(connection, _prepare(route, request), chunks, size)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as broken:
            self._lost(route.name, broken)
        finally:
            self.close()
        if answer.status >= 400:
            raise self._refusal(answer.status, body)
        try:
            return codec.loads(body)
        except errors.BadRequest:
            raise self._not_ours(answer.status) from None

    def _send_body(
        self, connection: http.client.HTTPConnection, prepared: _Prepared, chunks: Iterator[bytes], size: int | None
    ) -> None:
        """Send all of it, unless the host answers meanwhile: then it has refused."""
        connection.putrequest(prepared.method, prepared.target)
        length = ("Transfer-Encoding", "chunked") if size is None else ("Content-Length", str(size))
        for name, value in (*self._headers(prepared).items(), ("Content-Type", "application/octet-stream"), length):
            connection.putheader(name, value)
        connection.endheaders()
        connection.sock.settimeout(UPLOAD_SECONDS)
        with suppress(BrokenPipeError, ConnectionResetError):  # the answer may say why
            for chunk in chunks:
                if not self.encrypted and _closed_by_peer(connection.sock):
                    return
                connection.send(chunk if size is not None else b"%x\r\n%b\r\n" % (len(chunk), chunk))
            if size is None:
                connection.send(b"0\r\n\r\n")

    def close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None

    @contextmanager
    def _answered(self, route: Route[Q, R], request: Q) -> Iterator[http.client.HTTPResponse]:
        answer = self._send(_prepare(route, request))
        try:
            if answer.status >= 400:
                raise self._error(answer)
            yield answer
        finally:
            if not answer.isclosed():  # what is unread would be taken for the next answer
                self.close()

    def _send(self, prepared: _Prepared) -> http.client.HTTPResponse:
        for last in (False, True):
            connection = self._connected()
            try:
                connection.request(prepared.method, prepared.target, prepared.body, self._headers(prepared))
                return connection.getresponse()
            except (OSError, http.client.HTTPException) as broken:
                self.close()
                if last or not prepared.repeatable or isinstance(broken, TimeoutError):
                    self._lost(prepared.name, broken)
        raise AssertionError("unreachable")

    def _headers(self, prepared: _Prepared) -> dict[str, str]:
        content = {"Content-Type": "application/json"} if prepared.body is not None else {}
        return content | self.authorization()

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection and self._connection.sock and not _closed_by_peer(self._connection.sock):
            self._connection.sock.settimeout(ANSWER_SECONDS)
            return self._connection
        self.close()
        host, port = self.settings.host, self.settings.port
        try:
            connection = self._new_connection(host, port)
            connection.connect()
        except (OSError, ValueError, http.client.InvalidURL) as refused:
            raise self.unreachable(refused) from refused
        connection.sock.settimeout(ANSWER_SECONDS)
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE:
            connection.sock.setsockopt(socket.IPPROTO_TCP, option, value)
        self._connection = connection
        return connection

    def _new_connection(self, host: str, port: int) -> http.client.HTTPConnection:
        context = self.tls_context()
        if context is None:
            return http.client.HTTPConnection(host, port, timeout=self._connect_seconds)
        return http.client.HTTPSConnection(host, port, timeout=self._connect_seconds, context=context)

    def tls_context(self) -> "ssl.SSLContext | None":
        """Whom TLS believes; None when there is none. Raises NotAllowed for a CA file that cannot be read."""
        if not self.encrypted:
            return None
        from kohakuriver.wire.pinning import context_for

        return context_for(content_of(self.settings.ca_file) if self.settings.ca_file else "")

    def authorization(self) -> dict[str, str]:
        """The header that says who is asking; empty when nobody is logged in."""
        return {"Authorization": f"Bearer {self.settings.token}"} if self.settings.token else {}

    def unreachable(self, broken: Exception) -> errors.RiverError:
        """What it means that no connection could be made."""
        return self._distrusted(broken) or self._nobody(broken)

    def _distrusted(self, refused: Exception) -> errors.RiverError | None:
        """What is wrong with the certificate, if it is that."""
        reason = getattr(refused, "verify_message", None)
        if reason is None:
            return None
        return errors.NotAllowed(
            f"the certificate of {self.address} is not believed ({reason}): it is another host's, or somebody stands "
            "between, or it is not for this name (kohakuriver host tls init --name NAME)"
        )

    def _nobody(self, refused: Exception) -> errors.HostUnreachable:
        return errors.HostUnreachable(
            f"no host at {self.address} ({_why(refused)}): is `kohakuriver host` running there? "
            "If it is elsewhere, set KOHAKURIVER_HOST and KOHAKURIVER_PORT, or give --host and --port"
        )

    def _lost(self, name: str, broken: Exception) -> NoReturn:
        raise Broken(
            f"the host at {self.address} was asked ({name}) but did not answer ({_why(broken)}): "
            f"look whether it was done before asking again{'' if self.encrypted else PERHAPS_TLS}"
        ) from broken

    def _error(self, answer: http.client.HTTPResponse) -> errors.RiverError:
        try:
            return self._refusal(answer.status, answer.read())
        except (OSError, http.client.HTTPException):
            return self._not_ours(answer.status)

    def _refusal(self, status: int, body: bytes) -> errors.RiverError:
        try:
            told = codec.loads(body)["error"]
            return errors.from_wire(str(told["code"]), str(told["message"]), told.get("details"))
        except (errors.BadRequest, KeyError, TypeError, AttributeError):
            return self._not_ours(status)

    def _not_ours(self, status: int) -> errors.HostUnreachable:
        return errors.HostUnreachable(
            f"{self.address} answers (status {status}), but not as a KohakuRiver host: check --host and --port"
        )


def content_of(ca_file: str) -> str:
    try:
        with open(ca_file, encoding="ascii") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as wrong:
        raise errors.NotAllowed(f"{ca_file}: {wrong}: log in again, or set KOHAKURIVER_CA_FILE") from None


def _prepare(route: Route[Q, R], request: Q) -> _Prepared:
    path, rest = route.split(codec.encoder(route.takes)(request))
    if route.has_body:
        repeatable = bool(rest.get("idempotency_key"))
        return _Prepared(route.name, route.method, path, codec.dumps(rest).encode(), repeatable)
    query = query_of(rest)
    return _Prepared(route.name, route.method, f"{path}?{query}" if query else path, None, route.method == "GET")


def query_of(members: Mapping[str, Any]) -> str:
    """Plain values as the query of a URL."""
    return urlencode({name: _plain(value) for name, value in members.items()})


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_plain, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _closed_by_peer(sock: socket.socket) -> bool:
    """Between two requests nothing may come but the end."""
    return bool(select.select([sock], [], [], 0)[0])


def _why(broken: Exception) -> str:
    if isinstance(broken, TimeoutError):
        return "no answer in time"
    if isinstance(broken, http.client.HTTPException) and not isinstance(broken, http.client.InvalidURL):
        return "the connection was closed"
    return getattr(broken, "strerror", None) or str(broken) or type(broken).__name__
