"""What the host's own commands ask of the host that runs on this machine, signed by what only its user can read."""

import asyncio
from pathlib import Path
from typing import TypeVar

from kohakuriver.model.errors import HostUnreachable, NotAllowed, NotFound
from kohakuriver.model.route import Route
from kohakuriver.model.settings import HostSettings
from kohakuriver.system.identity import Identity, find_identity
from kohakuriver.system.secrets import load_secret
from kohakuriver.wire import errand
from kohakuriver.wire.call import NotDelivered
from kohakuriver.wire.joining import CONSOLE, MASTER_FILE, console_key
from kohakuriver.wire.sign import Signer, SteadyTime

Q = TypeVar("Q")
R = TypeVar("R")


def identity_of(settings: HostSettings) -> Identity | None:
    """The certificate of a host, None when it does not speak TLS; raises as `find_identity` does. May block."""
    return find_identity(Path(settings.state_dir).expanduser(), settings.tls_cert_file, settings.tls_key_file)


def url_on_this_machine(settings: HostSettings, port: int, identity: Identity | None) -> str:
    """Where a host is reached from its own machine."""
    address = settings.host_bind_ip
    if address in ("0.0.0.0", "", "::"):
        address = "127.0.0.1"
    return f"{'https' if identity else 'http'}://{f'[{address}]' if ':' in address else address}:{port}"


async def ask_running_host(settings: HostSettings, route: Route[Q, R], request: Q) -> R:
    """The answer to an admin; raises NotFound where no host has ever run, HostUnreachable when it does not run now."""
    path = Path(settings.state_dir).expanduser() / MASTER_FILE
    try:
        master = await asyncio.to_thread(load_secret, path)
    except FileNotFoundError:
        raise NotFound(f"{path}: no host has run here; is this its machine, its user, and its STATE_DIR?") from None
    except PermissionError:
        raise NotAllowed(f"{path} cannot be read: only the host's own user and root may do this") from None
    identity = await asyncio.to_thread(identity_of, settings)
    url = url_on_this_machine(settings, settings.host_port, identity)
    signer = Signer(CONSOLE, console_key(master), SteadyTime())
    try:
        return await errand.call(
            errand.At(url, own_fingerprint=identity.own_fingerprint if identity else ""), signer, route, request
        )
    except NotDelivered as nobody:
        raise HostUnreachable(f"the host does not run at {url}: start it first ({nobody})") from None
