"""Rows of the overlay: which runner has which part, and who has which address."""

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from kohakuriver.host.services.overlay.models import OverlayAllocation
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import Conflict, TooMany
from kohakuriver.model.overlay import Ranges, Subnet

TRIES = 64  # how often luck is tried before the free places are looked for
MOST_OWNERS = 0xFFFE  # what VXLAN has room for, but for 0 and the last, which mean nobody
ADDRESS = "address, number, owner, is_reserved, task_id, expires_at"


@dataclass(frozen=True, slots=True)
class AddressRow:
    """Who has an address: a task, or whoever reserved it until it expires (UTC unix seconds)."""

    address: int
    number: int
    owner: str
    is_reserved: bool
    task_id: Snowflake | None
    expires_at: int | None


def allocations(tx: sqlite3.Connection) -> list[OverlayAllocation]:
    """All parts that runners have, by number."""
    rows = tx.execute("SELECT number, hostname, machine, used_at FROM overlay_allocations ORDER BY number")
    return [OverlayAllocation(*row) for row in rows]


def save_allocation(tx: sqlite3.Connection, allocation: OverlayAllocation) -> None:
    """Give a part to a runner, which gives up any other."""
    tx.execute(
        "DELETE FROM overlay_allocations WHERE number = ? OR hostname = ?", (allocation.number, allocation.hostname)
    )
    values = (allocation.number, allocation.hostname, allocation.machine, allocation.used_at)
    tx.execute("INSERT INTO overlay_allocations VALUES(?, ?, ?, ?)", values)


def delete_allocation(tx: sqlite3.Connection, number: int) -> None:
    """Take a part back, with all its addresses."""
    tx.execute("DELETE FROM overlay_allocations WHERE number = ?", (number,))
    tx.execute("DELETE FROM overlay_addresses WHERE number = ?", (number,))


def touch(tx: sqlite3.Connection, hostnames: Iterable[str], now: float) -> None:
    """These runners use their parts."""
    tx.executemany("UPDATE overlay_allocations SET used_at = ? WHERE hostname = ?", [(now, name) for name in hostnames])


def is_busy(tx: sqlite3.Connection, allocation: OverlayAllocation) -> bool:
    """Whether anything may still have an address of this part."""
    held = tx.execute("SELECT 1 FROM overlay_addresses WHERE number = ? LIMIT 1", (allocation.number,)).fetchone()
    live = tx.execute(
        "SELECT 1 FROM tasks WHERE node = ? AND status IN ('assigning', 'running', 'paused', 'lost') LIMIT 1",
        (allocation.hostname,),
    ).fetchone()
    return held is not None or live is not None


def forget_other_networks(tx: sqlite3.Connection, ranges: Ranges) -> None:
    """The overlay's numbers may have been changed: drop what is not of it."""
    first, last = int(ranges.network[0]), int(ranges.network[-1])
    tx.execute("DELETE FROM overlay_allocations WHERE number > ?", (ranges.most_runners,))
    tx.execute(
        "DELETE FROM overlay_addresses WHERE address NOT BETWEEN ? AND ? OR number <> (address - ?) >> ?",
        (first, last, first, ranges.subnet_bits),
    )


# ---- addresses


def find_address(tx: sqlite3.Connection, address: int) -> AddressRow | None:
    """Who has an address, if anybody."""
    row = tx.execute(f"SELECT {ADDRESS} FROM overlay_addresses WHERE address = ?", (address,)).fetchone()
    return None if row is None else _address(row)


def of_task(tx: sqlite3.Connection, task_id: Snowflake) -> AddressRow | None:
    """The address that a task has, if it has one."""
    row = tx.execute(f"SELECT {ADDRESS} FROM overlay_addresses WHERE task_id = ?", (task_id,)).fetchone()
    return None if row is None else _address(row)


def reservations(tx: sqlite3.Connection, owner: str | None) -> list[AddressRow]:
    """Addresses that were reserved, by everybody or by one person."""
    whose = "" if owner is None else "AND owner = ?"
    query = f"SELECT {ADDRESS} FROM overlay_addresses WHERE is_reserved {whose} ORDER BY address"
    return [_address(row) for row in tx.execute(query, () if owner is None else (owner,))]


def count_reserved(tx: sqlite3.Connection, owner: str) -> int:
    """How many addresses somebody has reserved."""
    query = "SELECT count(*) FROM overlay_addresses WHERE is_reserved AND owner = ?"
    return int(tx.execute(query, (owner,)).fetchone()[0])


def take(tx: sqlite3.Connection, row: AddressRow) -> None:
    """Give an address to somebody; raises Conflict when somebody has it."""
    values = (row.address, row.number, row.owner, row.is_reserved, row.task_id, row.expires_at)
    try:
        tx.execute(f"INSERT INTO overlay_addresses({ADDRESS}) VALUES(?, ?, ?, ?, ?, ?)", values)
    except sqlite3.IntegrityError:
        raise Conflict(f"ip: {IPv4Address(row.address)} is taken") from None


def claim(tx: sqlite3.Connection, address: int, task_id: Snowflake) -> None:
    """A reserved address is a task's from now on; it no longer expires."""
    tx.execute("UPDATE overlay_addresses SET task_id = ?, expires_at = NULL WHERE address = ?", (task_id, address))


def free(tx: sqlite3.Connection, address: int) -> None:
    """Nobody has it any more."""
    tx.execute("DELETE FROM overlay_addresses WHERE address = ?", (address,))


def expire(tx: sqlite3.Connection, now: float) -> int:
    """Free the reservations that nobody claimed in time; how many there were."""
    return tx.execute("DELETE FROM overlay_addresses WHERE expires_at <= ?", (now,)).rowcount


def reserved_tasks(tx: sqlite3.Connection) -> list[Snowflake]:
    """The tasks that have claimed a reserved address."""
    query = "SELECT task_id FROM overlay_addresses WHERE task_id IS NOT NULL AND is_reserved"
    return [Snowflake(row[0]) for row in tx.execute(query)]


def used(tx: sqlite3.Connection) -> dict[int, tuple[int, int]]:
    """For each part how many addresses are reserved and not in use, and how many are in use."""
    query = "SELECT number, sum(task_id IS NULL), sum(task_id IS NOT NULL) FROM overlay_addresses GROUP BY number"
    return {row[0]: (row[1], row[2]) for row in tx.execute(query)}


def choose(tx: sqlite3.Connection, subnet: Subnet, luck: Callable[[], int]) -> IPv4Address:
    """A free address: by luck (which draws large random numbers) while there is room, so that it costs the same however many are taken.

    Freed ones come again late: what still has one and was given up must not meet its successor. Raises TooMany.
    """
    for _ in range(TRIES):
        address = subnet.container(luck() % subnet.capacity)
        if find_address(tx, int(address)) is None:
            return address
    found = first_free(tx, subnet, 1)
    if not found:
        raise TooMany(f"all {subnet.capacity} addresses of {subnet.network} are taken")
    return found[0]


def first_free(tx: sqlite3.Connection, subnet: Subnet, count: int) -> list[IPv4Address]:
    """The lowest free addresses."""
    taken = {row[0] for row in tx.execute("SELECT address FROM overlay_addresses WHERE number = ?", (subnet.number,))}
    found: list[IPv4Address] = []
    for index in range(subnet.capacity):
        if len(found) == count:
            break
        address = subnet.container(index)
        if int(address) not in taken:
            found.append(address)
    return found


# ---- owners


def tag_of(tx: sqlite3.Connection, owner: str) -> int:
    """By what an owner is known in the overlay, 0 when it is not known there."""
    row = tx.execute("SELECT tag FROM overlay_owners WHERE owner = ?", (owner,)).fetchone()
    return int(row[0]) if row else 0


def give_tag(tx: sqlite3.Connection, owner: str) -> None:
    """Have a tag for an owner, for ever; when none is left, owners without any address lose theirs."""
    if tag_of(tx, owner):
        return
    if tx.execute("SELECT count(*) FROM overlay_owners").fetchone()[0] >= MOST_OWNERS:
        tx.execute("DELETE FROM overlay_owners WHERE owner NOT IN (SELECT owner FROM overlay_addresses)")
    free = """SELECT tag + 1 AS free FROM (SELECT 0 AS tag UNION SELECT tag FROM overlay_owners)
              EXCEPT SELECT tag FROM overlay_owners"""
    tx.execute(f"INSERT INTO overlay_owners SELECT min(free), ? FROM ({free})", (owner,))


def _address(row: sqlite3.Row) -> AddressRow:
    task_id = None if row[4] is None else Snowflake(row[4])
    return AddressRow(row[0], row[1], row[2], bool(row[3]), task_id, row[5])
