"""Addresses of containers: reserved by people for tasks to come, and given to tasks when they are placed.

Every function that takes a transaction belongs into the one that writes the row which the address is for.
"""

import hashlib
import hmac
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from kohakuriver.host.services.overlay.manager import OverlayNetworkManager
from kohakuriver.host.store import overlay as rows
from kohakuriver.host.store.overlay import AddressRow
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import BadRequest, Conflict, RiverError, TooMany
from kohakuriver.model.overlay_api import Reserve, Validity
from kohakuriver.model.reservation import Claim, make_token, read_token
from kohakuriver.model.task import Task

MOST_OF_ONE_PERSON = 1000
LUCK_BITS = 64
NOT_GOOD = "ip_reservation_token: this reservation is not good (any more): it expired, is in use, or is not yours"


def token_key(master: bytes) -> bytes:
    """The key that signs reservation tokens, made from the host's master key."""
    return hmac.new(master, b"kohakuriver ip reservation", hashlib.sha256).digest()


@dataclass(frozen=True, slots=True)
class IPReservationManager:
    """Gives addresses out; `random_bits` draws a number of so many bits."""

    overlay: OverlayNetworkManager
    key: bytes = field(repr=False)
    random_bits: Callable[[int], int]

    def reserve(self, tx: sqlite3.Connection, owner: str, asked: Reserve, now: float) -> tuple[Claim, str]:
        """Hold an address for somebody; what his token says, and the token. Raises Conflict, NotFound, TooMany."""
        number, address = self._choose(tx, asked)
        if rows.count_reserved(tx, owner) >= MOST_OF_ONE_PERSON:
            raise TooMany(f"you hold {MOST_OF_ONE_PERSON} addresses, which is as many as anybody may")
        expires_at = int(now) + asked.ttl_seconds
        rows.take(tx, AddressRow(int(address), number, owner, True, None, expires_at))
        claim = Claim(str(address), self.overlay.hostname_of(number), expires_at)
        return claim, make_token(claim, self.key)

    def release(self, tx: sqlite3.Connection, owner: str, token: str) -> Claim:
        """Let a held address go; raises Conflict for a token that is not good."""
        claim = self._good(tx, owner, token)
        rows.free(tx, int(IPv4Address(claim.ip)))
        return claim

    def validate(self, tx: sqlite3.Connection, owner: str, token: str) -> Validity:
        """Whether a task of this person could claim the address now."""
        try:
            claim = self._good(tx, owner, token)
        except RiverError as bad:
            return Validity(valid=False, reason=str(bad).removeprefix("ip_reservation_token: "))
        return Validity(valid=True, ip=claim.ip, runner=claim.runner)

    def check_target(self, token: str, hostname: str | None) -> str:
        """The node that a token ties a task to; raises BadRequest, also when it is tied to another."""
        runner = read_token(token, self.key).runner
        if hostname not in (None, runner):
            raise BadRequest(f"ip_reservation_token: the address is on {runner}, and the target is {hostname}")
        return runner

    def claim(self, tx: sqlite3.Connection, owner: str, token: str, task_id: Snowflake) -> None:
        """The address is a new task's from now on, and its alone; raises Conflict for a token that is not good."""
        rows.claim(tx, int(IPv4Address(self._good(tx, owner, token).ip)), task_id)

    def of_placement(self, tx: sqlite3.Connection, task: Task, hostname: str) -> str | None:
        """The address for a task that goes to this node now; None where there is no overlay."""
        address = self._address_there(tx, task, hostname)
        if address is not None:
            rows.give_tag(tx, task.owner)
        return address

    def _address_there(self, tx: sqlite3.Connection, task: Task, hostname: str) -> str | None:
        held = rows.of_task(tx, task.task_id)
        if held is not None:
            if held.is_reserved or self._is_on(held.number, hostname):
                return str(IPv4Address(held.address))
            rows.free(tx, held.address)
        if not self.overlay.is_ready(hostname):
            return None
        number = self.overlay.number_of(hostname)
        address = rows.choose(tx, self.overlay.ranges.subnet(number), self._luck)
        rows.take(tx, AddressRow(int(address), number, task.owner, False, task.task_id, None))
        return str(address)

    def _luck(self) -> int:
        return self.random_bits(LUCK_BITS)

    def _is_on(self, number: int, hostname: str) -> bool:
        own = self.overlay.allocations.get(hostname)
        return own is not None and own.number == number

    def _choose(self, tx: sqlite3.Connection, asked: Reserve) -> tuple[int, IPv4Address]:
        ranges = self.overlay.ranges
        if not asked.ip:
            if not asked.runner:
                raise BadRequest("runner: name a node, or an ip")
            number = self.overlay.number_of(asked.runner)
            return number, rows.choose(tx, ranges.subnet(number), self._luck)
        address = IPv4Address(asked.ip)
        number = _number_of(self.overlay, address)
        if asked.runner and self.overlay.number_of(asked.runner) != number:
            raise BadRequest(f"ip: {address} is on {self.overlay.hostname_of(number)}, not on {asked.runner}")
        if not ranges.subnet(number).is_container(address):
            raise BadRequest(f"ip: no container can have {address}")
        return number, address

    def _good(self, tx: sqlite3.Connection, owner: str, token: str) -> Claim:
        claim = read_token(token, self.key)
        row = rows.find_address(tx, int(IPv4Address(claim.ip)))
        if row is None or row.owner != owner or row.task_id is not None or row.expires_at != claim.exp:
            raise Conflict(NOT_GOOD)
        if row.expires_at <= self.overlay.clock.now():
            raise Conflict(NOT_GOOD)
        return claim


def _number_of(overlay: OverlayNetworkManager, address: IPv4Address) -> int:
    try:
        number = overlay.ranges.number_of(address)
    except ValueError as stray:
        raise BadRequest(f"ip: {stray}") from None
    if not any(allocation.number == number for allocation in overlay.allocations.values()):
        raise Conflict(f"ip: no node has {address} in its part of the overlay")
    return number
