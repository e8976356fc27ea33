"""Who a request is from, and whether the thing it touches is theirs."""

import ipaddress
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kohakuriver.host.auth.bootstrap import MASTER
from kohakuriver.host.auth.parts import Auth
from kohakuriver.host.state import Host
from kohakuriver.host.store import assignments, tasks
from kohakuriver.host.store.audit import REFUSED, Deed
from kohakuriver.host.store.sessions import SessionRow
from kohakuriver.host.store.tokens import TokenRow
from kohakuriver.model.access import Caller, Ownership, Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import BadRequest, NotAllowed, NotFound, NotLoggedIn, RiverError
from kohakuriver.model.route import Entry
from kohakuriver.model.settings import HostSettings
from kohakuriver.wire.browser import Ambient, KnowsName
from kohakuriver.wire.joining import CONSOLE, join_id_of
from kohakuriver.wire.serve import Edge, Identified, Identify, Incoming
from kohakuriver.wire.sign import REQUEST_HEADER, Verifier

LOCAL = "local"  # whoever reaches the port, while accounts are off; no account can have this name
MASTER_HEADER = "X-Admin-Token"
LOG_IN = "log in first: kohakuriver auth login"
LOG_IN_AGAIN = "this login is not good any more; log in again: kohakuriver auth login"
MOST_OWNERS = 10_000


def edge_of(host: Host, verifier: Verifier) -> Edge[Host]:
    """The edge of a host."""

    def note_refusal(entry: Entry, caller: Caller, error: RiverError) -> None:
        if isinstance(error, NotAllowed) and caller.role is not Role.ANONY:
            host.auth.notes.add(caller, Deed(entry.name, "", str(error), REFUSED))

    return Edge(
        host,
        identifier(verifier, host.auth),
        Guard().check,
        knows_name=known_names(host.settings),
        watch=host.auth.accounts.watch,
        watch_use=host.auth.uses.watch,
        refused=note_refusal,
    )


def identifier(verifier: Verifier, auth: Auth) -> Identify:
    """A signed request comes from the runner it names, or from the host's own commands; any other from a person."""

    def identify(incoming: Incoming) -> Identified:
        header = incoming.headers.get(REQUEST_HEADER)
        if header is not None:
            signed = verifier.verify(header, incoming.signing)
            role = Role.ADMIN if signed.name == CONSOLE else Role.NODE
            return Identified(Caller(signed.name, role, address=incoming.remote), signed)
        if incoming.ticket:
            return _bearer(auth, incoming)
        if not auth.enabled:
            return Identified(Caller(LOCAL, Role.ADMIN, address=incoming.remote), ambient=Ambient())
        return _person(auth, incoming)

    return identify


def _bearer(auth: Auth, incoming: Incoming) -> Identified:
    """A browser that opens a socket; it comes to an address of ours, as with all that it sends by itself."""
    caller = auth.tickets.redeem(incoming.ticket, incoming.signing.path)
    return Identified(caller or _nobody(incoming), ambient=Ambient(), hint="this ticket is not good (any more)")


def _person(auth: Auth, incoming: Incoming) -> Identified:
    given = incoming.headers.get("Authorization")
    if given is not None:
        login = auth.accounts.recognize(given.removeprefix("Bearer ").strip(), TokenRow, incoming.remote)
        return Identified(login.caller) if login else Identified(_nobody(incoming), hint=LOG_IN_AGAIN)
    if MASTER_HEADER in incoming.headers:
        return Identified(_master(auth, incoming))
    if not incoming.session:
        return Identified(_nobody(incoming), hint=LOG_IN)
    login = auth.accounts.recognize(incoming.session, SessionRow, incoming.remote)
    if login is None:
        return Identified(_nobody(incoming), hint=LOG_IN_AGAIN)
    return Identified(login.caller, ambient=Ambient(login.csrf_token))


def _nobody(incoming: Incoming) -> Caller:
    return Caller("", Role.ANONY, address=incoming.remote)


def _master(auth: Auth, incoming: Incoming) -> Caller:
    """Whoever has ADMIN_SECRET; raises NotLoggedIn, or TooMany after too many wrong ones."""
    taken = auth.attempts.begin(incoming.remote)
    if not auth.bootstrap.is_master(incoming.headers[MASTER_HEADER]):
        auth.notes.add(_nobody(incoming), Deed("auth.master", "", f"wrong {MASTER_HEADER}", REFUSED))
        raise NotLoggedIn(f"the secret in {MASTER_HEADER} is wrong")
    auth.attempts.went_well(taken, incoming.remote)
    return Caller(MASTER, Role.ADMIN, address=incoming.remote)


@dataclass(slots=True)
class Guard:
    """Whose a thing is; the owner of a task never changes, so what was found once is kept."""

    owners: dict[Snowflake, str] = field(default_factory=dict)

    async def check(self, host: Host, caller: Caller, owns: Ownership, asked: Any) -> None:
        """Raises when the thing is somebody else's; the role was checked before."""
        if owns is Ownership.NODE:
            if asked.hostname != caller.name:
                raise NotAllowed(f"hostname: you are {caller.name}, not {asked.hostname}")
        elif owns is Ownership.JOIN:
            if join_id_of(caller.name) is None:
                raise NotAllowed(f"this needs a join token; you are {caller.name}")
        elif owns is Ownership.TASK_READ:
            if not caller.sees_all and not await self._is_assigned(host, caller, asked.task_id):
                await self._must_own(host, caller, asked.task_id)
        elif owns is Ownership.TASK_CONTROL:
            if caller.role < Role.OPERATOR:
                await self._must_steer(host, caller, asked.task_id)
        elif owns is Ownership.WORKLOAD_USE:
            await host.auth.uses.check(caller, asked.task_id)
        elif owns is Ownership.TOKEN:
            _must_have(host.auth.accounts.tokens.get, caller, asked.token_id, "token")
        elif owns is Ownership.SESSION:
            _must_have(host.auth.accounts.sessions.get, caller, asked.session_id, "session")
        elif owns is Ownership.KEY:
            _must_have(host.auth.accounts.keys.get, caller, asked.key_id, "key")
        else:
            raise NotAllowed(f"nobody can own this here ({owns})")

    async def _must_steer(self, host: Host, caller: Caller, task_id: Snowflake) -> None:
        """Raises NotAllowed when it is only assigned to him, NotFound when he does not even see it."""
        try:
            await self._must_own(host, caller, task_id)
        except NotFound:
            if await self._is_assigned(host, caller, task_id):
                raise NotAllowed("it is assigned to you: you may be in it, its owner and operators steer it") from None
            raise

    async def _is_assigned(self, host: Host, caller: Caller, task_id: Snowflake) -> bool:
        if self.owners.get(task_id) == caller.name:
            return False
        return await host.db.read(lambda tx: assignments.is_assigned(tx, task_id, caller.user_id))

    async def _must_own(self, host: Host, caller: Caller, task_id: Snowflake) -> None:
        """Raises NotFound, in the same words and by the same way for what is another's and for what is not there."""
        if self.owners.get(task_id) == caller.name:
            return
        owner = await host.db.read(lambda tx: tasks.owner_of(tx, task_id))
        if owner != caller.name:
            raise NotFound(f"there is no task {task_id}")
        if len(self.owners) >= MOST_OWNERS:
            self.owners.clear()
        self.owners[task_id] = owner


def _must_have(find: Callable[[int], Any], caller: Caller, number: int, what: str) -> None:
    row = find(number)
    if row is None or (row.user_id != caller.user_id and caller.role is not Role.ADMIN):
        raise NotFound(f"there is no {what} {number}")


def known_names(settings: HostSettings) -> KnowsName:
    """Which names in a Host header mean this host."""
    machine = platform.node().lower()
    known = {"localhost", machine, machine.partition(".")[0], settings.host_reachable_address.lower(), ""}
    known |= {name.lower() for name in settings.allowed_hosts}

    def knows(name: str) -> bool:
        return name in known or name.endswith(".localhost")

    return knows


def refuse_open_door(settings: HostSettings) -> None:
    """Raises BadRequest when everybody in the network would be admin and nobody has said that he knows."""
    if settings.auth_enabled or settings.auth_disabled_on_network_i_understand or _is_loopback(settings.host_bind_ip):
        return
    raise BadRequest(
        f"AUTH_ENABLED is off and HOST_BIND_IP is {settings.host_bind_ip or 'every address'}: everybody who reaches the "
        "port would be admin. Turn it on, bind to 127.0.0.1, or set AUTH_DISABLED_ON_NETWORK_I_UNDERSTAND"
    )


def _is_loopback(address: str) -> bool:
    try:
        return address == "localhost" or ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
