"""Keeps the SSH port open, and has what stands behind it ready for those who come another way."""

import asyncio
import logging
import os
import socket
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from kohakuriver.host.auth.parts import Auth
from kohakuriver.model.settings import HostSettings
from kohakuriver.model.ssh_api import SshPort
from kohakuriver.system.loops import Loops
from kohakuriver.system.sqlite import Database

if TYPE_CHECKING:
    from kohakuriver.host.services.ssh.inside import Inside
    from kohakuriver.host.services.ssh_proxy import SshProxy

log = logging.getLogger(__name__)
TRY_AGAIN_SECONDS = 30.0
BACKLOG = 256


@dataclass(slots=True)
class SshKeeper:
    """`port` is where it listens, 0 while it does not."""

    settings: HostSettings
    auth: Auth
    db: Database
    loops: Loops
    inside: "Inside"
    port: int = 0
    _proxy: "SshProxy | None" = None
    _making: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def ready(self) -> "SshProxy":
        """What serves SSH, made when it is first asked for; raises NotAllowed, OSError when the host keys are no good."""
        async with self._making:
            if self._proxy is None:
                self._proxy = await self._make()
            return self._proxy

    async def _make(self) -> "SshProxy":
        await asyncio.to_thread(import_module, "kohakuriver.host.services.ssh_proxy")  # takes as long as many requests
        from kohakuriver.host.services.ssh.host_keys import host_keys
        from kohakuriver.host.services.ssh.limits import gate
        from kohakuriver.host.services.ssh.people import People
        from kohakuriver.host.services.ssh_proxy import SshProxy

        logging.getLogger("asyncssh").setLevel(logging.WARNING)  # it tells of each packet, and of what people typed
        return SshProxy(
            settings=self.settings,
            people=People(self.auth, self.db),
            keys=await asyncio.to_thread(host_keys, Path(self.settings.state_dir).expanduser()),
            inside=self.inside,
            spawn=self.loops.spawn,
            gate=gate(self.auth.accounts.clock.monotonic),
        )

    async def shown(self) -> SshPort:
        """What people need to know to believe the port; raises as `ready` does."""
        keys = (await self.ready()).keys
        return SshPort(port=self.port, host_keys=keys.shown, authority=keys.of_workloads)

    async def listen(self) -> None:
        """Serve the port until this is cancelled; tried again later when somebody else has the port."""
        while True:
            try:
                with closing(await _opened(self.settings)) as doors:
                    self.port = doors.port
                    log.info("ssh is ready port=%d", self.port)
                    if self._proxy is None:  # what serves it is large, and most hosts are never visited
                        await doors.first_visit()
                    proxy = await self.ready()
                    async with AsyncExitStack() as serving:
                        for door in doors.sockets:
                            await serving.enter_async_context(await proxy.listen(door))
                        await asyncio.get_running_loop().create_future()
            except OSError as refused:
                log.warning("no SSH, for now: port %d: %s", self.settings.host_ssh_proxy_port, refused)
            finally:
                self.port = 0
                if self._proxy is not None:
                    self._proxy.hang_up()
            await self.auth.accounts.clock.sleep(TRY_AGAIN_SECONDS)


@dataclass(frozen=True, slots=True)
class Doors:
    """Sockets that listen on the port, one for each address; whoever comes waits there until somebody serves."""

    sockets: tuple[socket.socket, ...]

    @property
    def port(self) -> int:
        number: int = self.sockets[0].getsockname()[1]
        return number

    async def first_visit(self) -> None:
        """Wait for somebody to come."""
        loop = asyncio.get_running_loop()
        came = asyncio.Event()
        for door in self.sockets:
            loop.add_reader(door, came.set)
        try:
            await came.wait()
        finally:
            for door in self.sockets:
                loop.remove_reader(door)

    def close(self) -> None:
        """Turn away who waits, and listen no more."""
        for door in self.sockets:
            door.close()


async def _opened(settings: HostSettings) -> Doors:
    """Bind and listen; raises OSError when the port is taken."""
    address, port = settings.host_bind_ip or None, settings.host_ssh_proxy_port
    bound = await asyncio.get_running_loop().create_server(asyncio.Protocol, address, port, start_serving=False)
    try:
        doors = Doors(tuple(socket.socket(fileno=os.dup(each.fileno())) for each in bound.sockets))
    finally:
        bound.close()
    try:
        for door in doors.sockets:
            door.setblocking(False)
            door.listen(BACKLOG)
    except OSError:
        doors.close()
        raise
    return doors
