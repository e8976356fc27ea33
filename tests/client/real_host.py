"""A real host with accounts on a free port of loopback, in a thread of its own."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kohakuriver.host.app import running_host
from kohakuriver.model.settings import HostSettings
from kohakuriver.system.clock import SystemClock


@dataclass
class RealHost:
    """Where it listens, and where it wrote the secret for the first admin."""

    folder: Path
    port: int = 0

    @property
    def first_secret(self) -> Path:
        return self.folder / "host" / "first_admin_secret"


@contextmanager
def real_host(folder: Path, **changed: Any) -> Iterator[RealHost]:
    """A running host until the block ends."""
    plain: dict[str, Any] = {
        "host_port": 0,
        "host_ssh_proxy_port": 0,
        "state_dir": str(folder / "host"),
        "cluster_secret_file": str(folder / "cluster_secret"),
        "auth_enabled": True,
    }
    made = RealHost(folder)
    loop = asyncio.new_event_loop()
    ready, done = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with running_host(HostSettings(**plain | changed), SystemClock()) as host:
            made.port = urlsplit(host.url).port or 0
            ready.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    try:
        assert ready.wait(20)
        yield made
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(20)
        loop.close()
