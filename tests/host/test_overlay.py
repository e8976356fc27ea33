"""Parts of the overlay and addresses in it are given out once, for ever, and come back when nobody needs them."""

import random
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

import pytest

from kohakuriver.host.services.ip_reservation import IPReservationManager, token_key
from kohakuriver.host.services.node_registry import LiveNode, NodeRegistry
from kohakuriver.host.services.overlay import recovery, vxlan
from kohakuriver.host.services.overlay.manager import OverlayNetworkManager
from kohakuriver.host.services.overlay.models import OverlayAllocation
from kohakuriver.host.store import overlay as rows
from kohakuriver.host.store import schema, tasks
from kohakuriver.host.store.nodes import NodeRow
from kohakuriver.model.errors import BadRequest, Conflict, NotFound, TooMany
from kohakuriver.model.lifecycle import Event, Status
from kohakuriver.model.node import Machine
from kohakuriver.model.overlay import parse_ranges
from kohakuriver.model.overlay_api import Reserve
from kohakuriver.model.overlay_part import OverlayNews, OverlayWish, digest_of
from kohakuriver.model.settings import HostSettings
from kohakuriver.model.task import Task
from kohakuriver.system.network_plan import EVERYBODY, Forward, Seen, SeenDevice
from kohakuriver.system.sqlite import Database
from tests.manual_clock import ManualClock

pytestmark = pytest.mark.anyio
MACHINE = Machine(cores=4, memory_bytes=8 * 10**9)
SMALL = "10.9.0.0/24/2/6"  # three runners of 60 addresses


class House:
    """A host's overlay over a real store; its kernel is never asked to change."""

    def __init__(self, folder: Path, subnet: str) -> None:
        self.path, self.clock = folder / "host.db", ManualClock()
        self.settings = HostSettings(overlay_enabled=True, overlay_subnet=subnet, overlay_topology="mesh")
        self.registry = NodeRegistry([], 0.0)

    async def open(self) -> None:
        self.db = Database(self.path, schema.MIGRATIONS)
        self.overlay = OverlayNetworkManager(self.settings, self.db, self.registry, self.clock)
        await self.overlay.load()
        self.reservations = IPReservationManager(self.overlay, token_key(b"master"), random.Random(7).getrandbits)

    def close(self) -> None:
        self.overlay.close()
        self.db.close()

    async def restart(self) -> None:
        self.close()
        await self.open()

    async def join(self, name: str, address: str = "", subnet: str = "") -> str:
        """The subnet that a runner gets; it is online then."""
        row = NodeRow(
            hostname=name, url="", version="", engine="", engine_version="", machine=MACHINE, registered_at=""
        )
        self.registry.nodes.setdefault(name, LiveNode(row, 0.0)).online = True
        part = await self.overlay.join(name, OverlayWish(address=address or f"198.51.100.{len(name)}", subnet=subnet))
        assert part is not None
        return part.subnet

    def leave(self, name: str) -> None:
        self.registry.nodes[name].online = False

    async def reserve(self, owner: str, **asked: Any) -> tuple[str, str]:
        """An address and its token."""
        request, now = Reserve(**asked), self.clock.now()
        claim, token = await self.db.write(lambda tx: self.reservations.reserve(tx, owner, request, now))
        return claim.ip, token

    async def submit(self, owner: str, token: str, task_id: int) -> None:
        """A task that claims an address, in the transaction of its row."""

        def insert(tx: sqlite3.Connection) -> None:
            tasks.insert(tx, task_of(owner, task_id), owner)
            self.reservations.claim(tx, owner, token, cast(Any, task_id))

        await self.db.write(insert)

    async def move(self, task_id: int, *events: Event, **values: Any) -> None:
        def move(tx: sqlite3.Connection) -> None:
            for event in events:
                task = tasks.get(tx, cast(Any, task_id))
                values.setdefault("assigned_node", "n1")
                tasks.move(tx, task, tasks.Change(event, values), self.clock.now())

        await self.db.write(move)

    async def place(self, task_id: int, hostname: str) -> str | None:
        return await self.db.write(
            lambda tx: self.reservations.of_placement(tx, tasks.get(tx, cast(Any, task_id)), hostname)
        )

    async def holds(self, address: str) -> bool:
        return await self.db.read(lambda tx: rows.find_address(tx, int(IPv4Address(address)))) is not None


def task_of(owner: str, task_id: int) -> Task:
    return Task(
        command="true",
        task_id=cast(Any, task_id),
        batch_id=cast(Any, task_id),
        owner=owner,
        status=Status.PENDING,
        submitted_at="2026-01-01T00:00:00Z",
    )


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path, SMALL)
    await made.open()
    yield made
    made.close()


async def test_a_runner_gets_its_own_part_back_for_ever(house: House) -> None:
    first, second = await house.join("n1"), await house.join("n2x")
    assert first != second
    await house.restart()
    assert (await house.join("n2x"), await house.join("n1", "198.51.100.99")) == (second, first)
    assert house.overlay.allocations["n1"].machine == "198.51.100.99"


async def test_idle_parts_are_taken_back_only_when_no_other_is_free_the_longest_unused_first(house: House) -> None:
    for name in ("a", "bb", "ccc"):
        await house.join(name)
        await house.clock.advance(10)
    with pytest.raises(TooMany, match="room for 3 runners"):
        await house.join("dddd")
    house.leave("bb")
    house.leave("ccc")
    given = house.overlay.ranges.subnet(house.overlay.number_of("bb")).network
    assert await house.join("dddd") == str(given)
    with pytest.raises(NotFound):
        house.overlay.number_of("bb")


async def test_a_part_with_reserved_addresses_or_live_tasks_is_never_taken_back(house: House) -> None:
    for name in ("a", "bb", "ccc"):
        await house.join(name)
        house.leave(name)
    await house.reserve("eve", runner="a", ttl_seconds=60)
    await house.db.write(lambda tx: tasks.insert(tx, task_of("eve", 5), "eve"))
    await house.move(5, Event.PLACED, Event.STARTED, Event.NODE_LOST, assigned_node="bb")
    with pytest.raises(Conflict, match="may still have tasks"):
        await house.overlay.release("bb")
    assert await house.overlay.cleanup() == ["ccc"]
    assert set(house.overlay.allocations) == {"a", "bb"}


async def test_of_two_runners_that_claim_one_subnet_one_gets_it(house: House) -> None:
    claimed = "10.9.0.128/26"
    assert await house.join("n1", subnet=claimed) == claimed
    assert await house.join("n22", subnet=claimed) != claimed


@pytest.mark.parametrize("claimed", ["", "10.9.0.0/26", "10.9.0.64/27", "10.8.0.64/26", "0.0.0.0/0", "10.9.0.70/26"])
async def test_a_subnet_that_is_no_runners_part_is_claimed_in_vain(house: House, claimed: str) -> None:
    assert await house.join("n1", subnet=claimed) in {str(s.network) for s in house.overlay.ranges.subnets()}


async def test_63_runners_join_quickly_and_each_has_its_own(tmp_path: Path) -> None:
    house = House(tmp_path, "10.128.0.0/12/6/14")
    await house.open()
    began = time.process_time()
    subnets = {await house.join(f"n{number}", f"198.51.100.{number}") for number in range(63)}
    took = time.process_time() - began
    assert len(subnets) == 63 and took < 3
    part = house.overlay.part_of("n5")
    assert part is not None and len(part.peers) == 62
    with pytest.raises(TooMany):
        await house.join("one-more")
    house.close()


async def test_a_runner_is_told_its_part_again_only_when_it_has_another(house: House) -> None:
    await house.join("n1")
    part = house.overlay.part_of("n1")
    assert await house.overlay.take_news("n1", OverlayNews(has=digest_of(part), ready=True)) is None
    assert house.overlay.is_ready("n1")
    await house.join("n22")
    again = await house.overlay.take_news("n1", OverlayNews(has=digest_of(part), ready=True))
    assert again is not None and [peer.address for peer in again.peers] == ["198.51.100.3"]


async def test_a_change_of_the_setting_forgets_what_lies_outside(house: House) -> None:
    await house.join("n1")
    address, _ = await house.reserve("eve", runner="n1")
    house.settings = HostSettings(overlay_enabled=True, overlay_subnet="10.77.0.0/24/2/6")
    await house.restart()
    assert not await house.holds(address) and house.overlay.number_of("n1") == 1


def test_what_only_the_kernel_remembers_is_found_again() -> None:
    ranges, mark = parse_ranges("10.128.0.0/12/6/14"), vxlan.MARK

    def device(name: str, alias: str) -> SeenDevice:
        return SeenDevice(name, "vxlan", 1450, 105, 4789, False, "", "", alias, True)

    devices = {name: device(name, mark.alias) for name in ("vxkr5", "vxkr7", "vxkr1z")} | {"vxkr8": device("vxkr8", "")}
    seen = Seen(devices=devices, things=frozenset(Forward(name, EVERYBODY, "198.51.100.9") for name in devices))
    known = [OverlayAllocation(7, "n7", "198.51.100.7", 0.0)]
    found = recovery.recovered(ranges, seen, mark, known)
    assert [(orphan.number, orphan.machine) for orphan in found] == [(5, "198.51.100.9")]


# ---- reservations


async def test_a_reserved_address_survives_a_restart_and_is_its_owners_alone(house: House) -> None:
    await house.join("n1")
    address, token = await house.reserve("eve", runner="n1")
    await house.restart()
    with pytest.raises(Conflict, match="not yours"):
        await house.submit("mallory", token, 1)
    await house.submit("eve", token, 2)
    assert await house.place(2, "n1") == address


async def test_of_two_tasks_that_claim_one_address_one_gets_it(house: House) -> None:
    await house.join("n1")
    _, token = await house.reserve("eve", runner="n1")
    await house.submit("eve", token, 1)
    with pytest.raises(Conflict):
        await house.submit("eve", token, 2)
    with pytest.raises(NotFound):  # nothing of the refused task is left
        await house.db.read(lambda tx: tasks.get(tx, cast(Any, 2)))


async def test_an_address_is_held_by_its_task_through_retries_and_free_when_it_has_ended(house: House) -> None:
    await house.join("n1")
    address, token = await house.reserve("eve", runner="n1", ttl_seconds=60)
    await house.submit("eve", token, 1)
    await house.move(1, Event.PLACED, Event.STARTED, Event.NODE_LOST, Event.RETRIED)
    await house.clock.advance(10_000)
    now = house.clock.now()
    assert await house.db.write(lambda tx: rows.expire(tx, now)) == 0
    assert await house.place(1, "n1") == address
    await house.move(1, Event.PLACED, Event.STARTED, Event.EXITED_OK)
    assert not await house.holds(address)


async def test_an_unclaimed_reservation_expires(house: House) -> None:
    await house.join("n1")
    address, token = await house.reserve("eve", runner="n1", ttl_seconds=60)
    await house.clock.advance(61)
    with pytest.raises(Conflict, match="expired"):
        await house.submit("eve", token, 1)
    now = house.clock.now()
    assert await house.db.write(lambda tx: rows.expire(tx, now)) == 1
    assert not await house.holds(address)


async def test_a_released_reservation_is_nobodys_and_its_token_is_worth_nothing(house: House) -> None:
    await house.join("n1")
    address, token = await house.reserve("eve", runner="n1")
    with pytest.raises(Conflict):
        await house.db.write(lambda tx: house.reservations.release(tx, "mallory", token))
    await house.db.write(lambda tx: house.reservations.release(tx, "eve", token))
    assert not await house.holds(address)
    await house.clock.advance(1)
    assert (await house.reserve("bob", ip=address))[0] == address
    assert not (await house.db.read(lambda tx: house.reservations.validate(tx, "bob", token))).valid


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"ip": "10.9.0.65"}, BadRequest),  # the gateway
        ({"ip": "10.9.0.126"}, BadRequest),  # the host's
        ({"ip": "10.9.0.64"}, BadRequest),
        ({"ip": "10.9.0.127"}, BadRequest),
        ({"ip": "10.9.0.1"}, Conflict),  # the host's own part
        ({"ip": "10.9.0.200"}, Conflict),  # no runner has that part
        ({"ip": "198.51.100.1"}, BadRequest),
        ({"runner": "n9"}, NotFound),
        ({"runner": "n22", "ip": "10.9.0.70"}, BadRequest),
        ({}, BadRequest),
    ],
)
async def test_what_no_container_can_have_cannot_be_reserved(
    house: House, asked: dict[str, str], error: type[Exception]
) -> None:
    await house.join("n1")
    await house.join("n22")
    with pytest.raises(error):
        await house.reserve("eve", **asked)


async def test_every_address_is_given_once_and_then_no_more(house: House) -> None:
    await house.join("n1")
    given = {(await house.reserve("eve", runner="n1"))[0] for _ in range(60)}
    assert len(given) == 60
    with pytest.raises(TooMany, match="all 60 addresses"):
        await house.reserve("eve", runner="n1")


async def test_a_task_takes_another_address_on_another_node(house: House) -> None:
    for name in ("n1", "n22"):
        await house.join(name)
        await house.overlay.take_news(name, OverlayNews(ready=True))
    await house.db.write(lambda tx: tasks.insert(tx, task_of("eve", 1), "eve"))
    first = await house.place(1, "n1")
    assert first == await house.place(1, "n1")
    second = await house.place(1, "n22")
    assert first and second and first != second and not await house.holds(first)
    await house.overlay.take_news("n1", OverlayNews(trouble="no root"))
    assert await house.place(1, "n1") is None


async def test_an_owner_whose_tasks_have_addresses_has_a_tag_of_its_own_for_ever(house: House) -> None:
    await house.join("n1")
    for task_id, owner in enumerate(("eve", "bob", "eve"), 1):
        await house.db.write(lambda tx, id=task_id, owner=owner: tasks.insert(tx, task_of(owner, id), owner))  # type: ignore[misc]
        assert await house.place(task_id, "n1")
    tags = await house.db.read(lambda tx: [rows.tag_of(tx, owner) for owner in ("eve", "bob", "nobody")])
    await house.restart()
    assert tags == [1, 2, 0] and await house.db.read(lambda tx: rows.tag_of(tx, "eve")) == 1


async def test_when_no_tag_is_left_owners_without_addresses_lose_theirs(house: House) -> None:
    await house.join("n1")
    await house.reserve("owner7", runner="n1")

    def fill(tx: sqlite3.Connection) -> int:
        made = [(number, f"owner{number}") for number in range(1, rows.MOST_OWNERS + 1)]
        tx.executemany("INSERT INTO overlay_owners VALUES(?, ?)", made)
        rows.give_tag(tx, "late")
        rows.give_tag(tx, "later")
        return rows.tag_of(tx, "owner7")

    assert await house.db.write(fill) == 7
    assert await house.db.read(lambda tx: (rows.tag_of(tx, "late"), rows.tag_of(tx, "owner8"))) == (1, 0)


async def test_reserving_costs_the_same_however_many_are_taken(tmp_path: Path) -> None:
    house = House(tmp_path, "10.128.0.0/12/6/14")
    await house.open()
    await house.join("n1")
    subnet = house.overlay.ranges.subnet(1)

    def fill(tx: sqlite3.Connection) -> None:
        for index in range(0, subnet.capacity, 2):
            rows.take(tx, rows.AddressRow(int(subnet.container(index)), 1, "bob", True, None, None))

    await house.db.write(fill)
    took = await house.db.write(
        lambda tx: seconds_of(lambda: house.reservations.reserve(tx, "eve", Reserve(runner="n1"), 0))
    )
    assert took < 0.001
    house.close()


def seconds_of(work: Callable[[], object], times: int = 50) -> float:
    """Processor time that it takes, the median of several."""
    found = []
    for _ in range(times):
        began = time.thread_time()
        work()
        found.append(time.thread_time() - began)
    return sorted(found)[times // 2]
