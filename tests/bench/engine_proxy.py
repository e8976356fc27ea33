"""A relay before the Docker daemon's socket that notes when which call went by."""

import os
import re
import socket
import threading
import time
from types import TracebackType
from typing import Self

CALL = re.compile(rb"(GET|POST|DELETE) (?:/v[\d.]+)?(/[^ ?]*)")


class EngineProxy:
    """Relays bytes both ways, untouched; `calls` holds (monotonic seconds, method and path) of each request."""

    def __init__(self, upstream: str, path: str) -> None:
        self._upstream, self._path = upstream, path
        self.calls: list[tuple[float, str]] = []
        self.answers: list[tuple[float, str]] = []
        self._listener = socket.socket(socket.AF_UNIX)

    def __enter__(self) -> Self:
        self._listener.bind(self._path)
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        os.unlink(self._path)

    def started_at(self) -> float:
        """When the last start was asked for."""
        return next(at for at, call in reversed(self.calls) if call.endswith("/start"))

    def create_seconds(self) -> float:
        """How long the daemon took for the last create."""
        asked = next(at for at, call in reversed(self.calls) if call.endswith("/containers/create"))
        return next(at for at, call in reversed(self.answers) if call.endswith("/containers/create")) - asked

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            upstream = socket.socket(socket.AF_UNIX)
            upstream.connect(self._upstream)
            last: list[str] = [""]
            threading.Thread(target=self._relay, args=(client, upstream, last, True), daemon=True).start()
            threading.Thread(target=self._relay, args=(upstream, client, last, False), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, last: list[str], asks: bool) -> None:
        try:
            while data := source.recv(65536):
                found = CALL.match(data) if asks else None
                if found:
                    last[0] = (found[1] + b" " + found[2]).decode()
                    self.calls.append((time.monotonic(), last[0]))
                elif not asks and data.startswith(b"HTTP/1."):
                    self.answers.append((time.monotonic(), last[0]))
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()
