"""Images between a Docker daemon and files: saved, loaded, at full speed and in a thread, with progress."""

import hashlib
import http.client
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from kohakuriver.system.docker_errors import ApiRefused, unreachable

CHUNK_BYTES, FEED_BYTES = 1 << 20, 1 << 23
CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 900.0  # a daemon under load may unpack a large layer for long without a word


class Stopped(Exception):
    """Whoever wanted the copy has given it up."""


class Transfer:
    """How far a copy is, readable at any time from any thread; `stop` makes the thread that copies give up."""

    def __init__(self, total_bytes: int = 0) -> None:
        self.total_bytes, self.done_bytes, self.step = total_bytes, 0, ""
        self._stopped = threading.Event()
        self._hang_up: Callable[[], None] = lambda: None

    def moved(self, count: int) -> None:
        """So many bytes more; raises Stopped when nobody wants them any longer."""
        self.done_bytes += count
        self.check()

    def check(self) -> None:
        """Raises Stopped when it was given up."""
        if self._stopped.is_set():
            raise Stopped

    def stop(self) -> None:
        """Give up, also what waits for a silent daemon."""
        self._stopped.set()
        self._hang_up()

    @contextmanager
    def over(self, connection: socket.socket) -> Iterator[None]:
        """While the block runs, giving up cuts this connection."""

        def hang_up() -> None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

        self._hang_up = hang_up
        try:
            self.check()
            yield
        finally:
            self._hang_up = lambda: None


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=CONNECT_SECONDS, blocksize=CHUNK_BYTES)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CONNECT_SECONDS)
        self.sock.connect(self._path)
        self.sock.settimeout(SILENCE_SECONDS)


def save_image(daemon: str, image: str, path: Path, transfer: Transfer) -> str:
    """Write an image's archive to a new file, on disk when this returns; its SHA-256 in hex.

    Raises ApiRefused, EngineFailed, Stopped, OSError of the file.
    """
    with _asking(daemon, transfer) as connection:
        connection.request("GET", f"/images/{quote(image, safe='')}/get")
        answer = _answer(connection)
        with ExitStack() as unless_well:
            unless_well.callback(path.unlink, missing_ok=True)
            with path.open("xb") as file:
                digest = _write(answer, file, transfer)
            unless_well.pop_all()
            return digest


def _write(answer: http.client.HTTPResponse, file: BinaryIO, transfer: Transfer) -> str:
    digest = hashlib.sha256()
    while chunk := answer.read(CHUNK_BYTES):
        digest.update(chunk)
        file.write(chunk)
        transfer.moved(len(chunk))
    file.flush()
    os.fsync(file.fileno())
    return digest.hexdigest()


def load_image(daemon: str, path: Path, transfer: Transfer) -> None:
    """Give a daemon the archive in a file; raises ApiRefused, EngineFailed, Stopped, OSError of the file."""
    with path.open("rb") as file, _asking(daemon, transfer) as connection:
        connection.putrequest("POST", "/images/load?quiet=0")
        connection.putheader("Content-Type", "application/x-tar")
        connection.putheader("Content-Length", str(path.stat().st_size))
        connection.endheaders()
        fed = 0
        try:
            while sent := connection.sock.sendfile(file, fed, FEED_BYTES):
                fed += sent
                transfer.moved(sent)
        except BrokenPipeError:
            pass  # it has said why before it hung up
        answer = _answer(connection)
        for line in answer:
            transfer.check()
            _check_line(line)


@contextmanager
def _asking(daemon: str, transfer: Transfer) -> Iterator[_Connection]:
    connection = _Connection(daemon)
    try:
        connection.connect()
        with transfer.over(connection.sock):
            yield connection
    except (ConnectionError, TimeoutError, FileNotFoundError, http.client.HTTPException) as broken:
        transfer.check()
        raise unreachable(daemon, broken) from None
    finally:
        connection.close()


def _answer(connection: _Connection) -> http.client.HTTPResponse:
    answer = connection.getresponse()
    if answer.status >= HTTPStatus.BAD_REQUEST:
        text = answer.read(CHUNK_BYTES)
        try:
            raise ApiRefused(answer.status, str(json.loads(text)["message"]))
        except (ValueError, KeyError, TypeError):
            raise ApiRefused(answer.status, text.decode(errors="replace")) from None
    return answer


def _check_line(line: bytes) -> None:
    """Raises ApiRefused for an error told in the middle of an answer that had begun well."""
    try:
        told = json.loads(line)
    except ValueError:
        return
    if isinstance(told, dict) and "error" in told:
        raise ApiRefused(HTTPStatus.BAD_REQUEST, str(told["error"]))
