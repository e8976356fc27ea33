"""What the host's own commands ask of the host that runs on this machine, signed by what only its user can read."""

import asyncio
from pathlib import Path
from typing import TypeVar

from kohakuriver.model.errors import HostUnreachable, NotAllowed, NotFound
from kohakuriver.model.route import Route
from kohakuriver.model.settings import HostSettings
from kohakuriver.system.secrets import load_secret
from kohakuriver.wire import errand
from kohakuriver.wire.call import NotDelivered
from kohakuriver.wire.joining import CONSOLE, MASTER_FILE, console_key
from kohakuriver.wire.sign import Signer, SteadyTime

Q = TypeVar("Q")
R = TypeVar("R")


def local_address(bind_ip: str) -> str:
    """Where a host that listens there is reached from its own machine, ready for a URL."""
    if bind_ip in ("0.0.0.0", "", "::"):
        return "127.0.0.1"
    return f"[{bind_ip}]" if ":" in bind_ip else bind_ip


async def ask_running_host(settings: HostSettings, route: Route[Q, R], request: Q) -> R:
    """The answer to an admin; raises NotFound where no host has ever run, HostUnreachable when it does not run now."""
    path = Path(settings.state_dir).expanduser() / MASTER_FILE
    try:
        master = await asyncio.to_thread(load_secret, path)
    except FileNotFoundError:
        raise NotFound(f"{path}: no host has run here; is this its machine, its user, and its STATE_DIR?") from None
    except PermissionError:
        raise NotAllowed(f"{path} cannot be read: only the host's own user and root may do this") from None
    url = f"http://{local_address(settings.host_bind_ip)}:{settings.host_port}"
    try:
        return await errand.call(url, Signer(CONSOLE, console_key(master), SteadyTime()), route, request)
    except NotDelivered as nobody:
        raise HostUnreachable(f"the host does not run at {url}: start it first ({nobody})") from None
