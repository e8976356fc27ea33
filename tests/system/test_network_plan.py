"""Whatever the kernel holds, the changes make it what is wanted, and touch nothing of others."""

from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kohakuriver.model.overlay_part import OverlayPart, OverlayPeer
from kohakuriver.runner import overlay_plan
from kohakuriver.system.network_plan import (
    Address,
    Change,
    Device,
    Forward,
    Mark,
    Neighbor,
    Port,
    Route,
    Seen,
    SeenDevice,
    SeenRoute,
    Thing,
    Wanted,
    changes,
    clashes,
    strangers,
)

MARK = Mark("ours", 107)
DEVICES = {
    "br": Device(name="br", mtu=1450, mac="02:00:00:00:00:01"),
    "vx": Device(name="vx", mtu=1450, vni=101, port=4789, master="br"),
}
THINGS: tuple[Thing, ...] = (
    Address("br", "10.0.0.1", 24),
    Address("br", "10.9.9.9", 24),
    Forward("vx", "00:00:00:00:00:00", "192.0.2.1"),
    Forward("vx", "00:00:00:00:00:00", "192.0.2.2"),
    Neighbor("vx", "10.0.0.9", "02:00:00:00:00:09"),
    Route("10.0.0.0/8", "10.0.0.254", "br", "10.0.0.1"),
    Address("theirs", "10.7.7.7", 24),
)


WRONG: tuple[dict[str, Any], ...] = (
    {},
    {"mtu": 9000},
    {"is_up": False},
    {"vni": 7},
    {"learning": True},
    {"master": ""},
)


def standing(device: Device, alias: str = MARK.alias) -> SeenDevice:
    return SeenDevice(
        device.name, device.kind, device.mtu, device.vni, device.port, False, device.mac, device.master, alias, True
    )


@st.composite
def kernels(draw: st.DrawFn) -> Seen:
    """A kernel in which devices of ours are missing, wrong, or of others, among things of both."""
    devices = {"theirs": SeenDevice("theirs", "bridge", 1500, 0, 0, False, "", "", "", True)}
    for device in DEVICES.values():
        seen = standing(device, draw(st.sampled_from([MARK.alias, MARK.alias, ""])))
        wrong = draw(st.sampled_from(WRONG))
        if draw(st.booleans()):
            devices[device.name] = replace(seen, **wrong)
    there = draw(st.frozensets(st.sampled_from(THINGS)))
    return Seen(devices=devices, things=frozenset(thing for thing in there if thing.device in devices))


@st.composite
def wishes(draw: st.DrawFn) -> Wanted:
    names = draw(st.sampled_from([(), ("br",), ("br", "vx")]))
    things = draw(st.frozensets(st.sampled_from(THINGS[:-1])))
    return Wanted(
        mark=MARK,
        devices=tuple(DEVICES[name] for name in names),
        things=frozenset(thing for thing in things if thing.device in names),
        settings=draw(st.sampled_from([{}, {"ip_forward": "1"}])),
    )


def made(seen: Seen, todo: list[Change]) -> Seen:
    """The kernel after the changes, with the little that it does by itself."""
    devices, things, values = dict(seen.devices), set(seen.things), dict(seen.settings)
    for change in todo:
        what = change.what
        if isinstance(what, Device):
            if change.verb == "remove":
                del devices[what.name]
                things = {thing for thing in things if thing.device != what.name}
            else:
                assert (change.verb == "add") == (what.name not in devices)
                devices[what.name] = standing(what)
        elif isinstance(what, tuple) and len(what) == 2 and isinstance(what[1], str) and not isinstance(what, Port):
            values[what[0]] = what[1]
        elif change.verb == "remove":
            things.remove(what)
        else:
            assert what.device in devices
            things.add(what)
    return Seen(devices=devices, things=frozenset(things), settings=values)


@settings(max_examples=400, deadline=None)
@given(seen=kernels(), wanted=wishes())
def test_after_the_changes_all_is_as_wanted_and_nothing_is_left_to_do(seen: Seen, wanted: Wanted) -> None:
    after = made(seen, changes(wanted, seen))
    alien = set(strangers(wanted, seen))
    assert changes(wanted, after) == []
    assert {thing for thing in wanted.things if thing.device not in alien} <= after.things
    assert {d.name for d in wanted.devices} <= set(after.devices)


@settings(max_examples=400, deadline=None)
@given(seen=kernels(), wanted=wishes())
def test_nothing_of_others_is_touched(seen: Seen, wanted: Wanted) -> None:
    after = made(seen, changes(wanted, seen))
    others = {name for name, device in seen.devices.items() if device.alias != MARK.alias}
    assert all(after.devices[name] == seen.devices[name] for name in others)
    kept = {thing for thing in seen.things if thing.device in others and not isinstance(thing, Route)}
    assert kept <= after.things
    assert not {thing for thing in after.things - seen.things if thing.device in others}


@settings(max_examples=100, deadline=None)
@given(seen=kernels())
def test_who_wants_nothing_leaves_nothing_of_ours(seen: Seen) -> None:
    after = made(seen, changes(Wanted(mark=MARK), seen))
    assert all(device.alias != MARK.alias for device in after.devices.values())
    assert not any(isinstance(thing, Route) for thing in after.things)


@pytest.mark.parametrize("mesh", [False, True])
def test_the_plan_of_a_runner_settles_at_once(mesh: bool) -> None:
    peers = [OverlayPeer(subnet="10.128.128.0/18", address="192.0.2.3")] if mesh else []
    part = OverlayPart(
        number=1, network="10.128.0.0/12", subnet="10.128.64.0/18", host_machine="192.0.2.1", vni=101,
        mesh_vni=100 if mesh else 0, port=4789, mtu=1450, peers=peers,
    )  # fmt: skip
    wanted = overlay_plan.wanted(part)
    after = made(Seen(), changes(wanted, Seen()))
    assert [change for change in changes(wanted, after) if not isinstance(change.what, tuple)] == []
    ways = {thing.network: thing.device for thing in after.things if isinstance(thing, Route)}
    assert ways == {"10.128.0.0/12": "kohaku-overlay"} | ({"10.128.128.0/18": "kohaku-mesh"} if mesh else {})


@pytest.mark.parametrize(
    ("network", "device", "is_told"),
    [("10.130.0.0/16", "docker0", True), ("10.0.0.0/8", "eth0", True), ("10.130.0.0/16", "vxkr3", False),
     ("10.112.0.0/12", "eth0", False), ("0.0.0.0/0", "eth0", False), ("172.17.0.0/16", "docker0", False)],
)  # fmt: skip
def test_what_others_have_in_the_range_is_told(network: str, device: str, is_told: bool) -> None:
    seen = Seen(routes=(SeenRoute(network, device, 2),))
    assert bool(clashes(IPv4Network("10.128.0.0/12"), seen, overlay_plan.OWN_SIDE)) == is_told
