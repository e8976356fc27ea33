"""Sockets in the network of a process: nothing is needed inside, and the event loop uses them as any other.

A thread enters the process's network namespace, makes the socket there, and ends without coming back; a socket stays
in the namespace in which it was made. (setns(2))
"""

import asyncio
import ctypes
import errno
import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TypeVar

from kohakuriver.model.errors import EngineFailed, NotFound
from kohakuriver.system.listeners import LOOPBACK, Place, places_of

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


async def connect_anywhere(pid: int, port: int, kind: socket.SocketKind, limit_seconds: float) -> socket.socket:
    """As `connect`, to loopback, else to whatever other address of that network somebody listens on.

    In the network of this machine only loopback counts: its other addresses are not the workload's.
    """
    if not await asyncio.to_thread(_is_ours, pid):
        found = await asyncio.to_thread(places_of, pid, port, kind)
        return await connect(pid, port, kind, limit_seconds, found or LOOPBACK)
    return await connect(pid, port, kind, limit_seconds)


async def connect(
    pid: int, port: int, kind: socket.SocketKind, limit_seconds: float, places: Sequence[Place] = LOOPBACK
) -> socket.socket:
    """A non-blocking socket, connected to a port from within the network of the process: the first place that answers.

    Raises NotFound when the process is gone or nothing listens there, EngineFailed when its network cannot be entered.
    """
    why = ""
    for family, address in places:
        try:
            made = await _made(pid, family, kind)
        except OSError:
            continue  # no IPv6 here
        with ExitStack() as unless_connected:
            unless_connected.enter_context(made)
            made.setblocking(False)
            try:
                async with asyncio.timeout(limit_seconds):
                    await asyncio.get_running_loop().sock_connect(made, (address, port))
                unless_connected.pop_all()
                return made
            except TimeoutError:
                why = why or "it does not answer"
            except OSError as refused:
                why = why or os.strerror(refused.errno or errno.ECONNREFUSED)  # what IPv4 says is what people know
    raise NotFound(f"port {port}: {why or 'no loopback in there'}")


async def _made(pid: int, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
    """A new socket in that network, which is closed again if nobody waits for it any more when it is made."""
    loop = asyncio.get_running_loop()
    making = loop.run_in_executor(None, in_network_of, pid, lambda: socket.socket(family, kind))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(_let_go)
        raise


def _let_go(making: "asyncio.Future[socket.socket]") -> None:
    if not making.cancelled() and making.exception() is None:
        making.result().close()


def in_network_of(pid: int, make: Callable[[], T]) -> T:
    """What `make` makes in that network; raises NotFound, EngineFailed, and OSError of `make` itself."""
    try:
        if _is_ours(pid):
            return make()
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound("the workload has ended") from None
    except PermissionError:
        raise EngineFailed("the network of the workload cannot be entered: the runner is not root") from None
    try:
        return _in_a_thread(namespace, make)
    finally:
        os.close(namespace)


def _is_ours(pid: int) -> bool:
    """Whether it is the network of this very process; raises NotFound, EngineFailed."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino
    except FileNotFoundError:
        raise NotFound("the workload has ended") from None
    except PermissionError:
        raise EngineFailed("the network of the workload cannot be entered: the runner is not root") from None


def _in_a_thread(namespace: int, make: Callable[[], T]) -> T:
    made: list[T] = []
    raised: list[OSError | EngineFailed] = []

    def enter() -> None:
        if _LIBC.setns(namespace, _CLONE_NEWNET):
            reason = os.strerror(ctypes.get_errno())
            raised.append(EngineFailed(f"the network of the workload cannot be entered: {reason}"))
            return
        try:
            made.append(make())
        except OSError as error:
            raised.append(error)

    thread = threading.Thread(target=enter, name="netns", daemon=True)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return made[0]
