"""Every runner has a part of the overlay of its own, whatever the settings are."""

from ipaddress import IPv4Address, IPv4Network, collapse_addresses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kohakuriver.model.errors import BadRequest
from kohakuriver.model.overlay import Ranges, device_number, host_device, mac_of, parse_ranges
from kohakuriver.model.reservation import Claim, make_token, read_token

USUAL = "10.128.0.0/12/6/14"
KEY = b"k" * 32


@st.composite
def subnet_settings(draw: st.DrawFn) -> str:
    """Every valid OVERLAY_SUBNET with few enough runners to look at each."""
    node_bits = draw(st.integers(1, 8))
    subnet_bits = draw(st.integers(3, 31 - node_bits))
    network_bits = 32 - node_bits - subnet_bits
    base = IPv4Address(draw(st.integers(0, 2**network_bits - 1)) << (32 - network_bits))
    return f"{base}/{network_bits}/{node_bits}/{subnet_bits}"


def parsed(text: str) -> Ranges | None:
    try:
        return parse_ranges(text)
    except ValueError as refused:
        assert "containers cannot have addresses" in str(refused)
        return None


@settings(max_examples=60, deadline=None)
@given(text=subnet_settings())
def test_the_parts_of_all_runners_and_of_the_host_are_disjoint_and_fill_the_overlay(text: str) -> None:
    ranges = parsed(text)
    if ranges is None:
        return
    parts = [subnet.network for subnet in ranges.subnets()]
    assert len(parts) == ranges.most_runners
    hosts_own = IPv4Network((int(ranges.network.network_address), 32 - ranges.subnet_bits))
    assert list(collapse_addresses([hosts_own, *parts])) == [ranges.network]
    assert sum(part.num_addresses for part in [hosts_own, *parts]) == ranges.network.num_addresses
    assert ranges.host in hosts_own and not any(ranges.host in part for part in parts)
    for subnet in (ranges.subnet(1), ranges.subnet(ranges.most_runners)):
        assert ranges.number_of(subnet.gateway) == ranges.number_of(subnet.host) == subnet.number
        edges = {subnet.network.network_address, subnet.network.broadcast_address}
        assert len(edges | {subnet.gateway, subnet.host}) == 4


@settings(max_examples=100, deadline=None)
@given(text=subnet_settings(), data=st.data())
def test_container_addresses_are_usable_different_and_nobody_elses(text: str, data: st.DataObject) -> None:
    ranges = parsed(text)
    if ranges is None:
        return
    subnet = ranges.subnet(data.draw(st.integers(1, ranges.most_runners)))
    some = data.draw(st.sets(st.integers(0, subnet.capacity - 1), max_size=20)) | {0, subnet.capacity - 1}
    addresses = {subnet.container(index) for index in some}
    assert len(addresses) == len(some) and all(map(subnet.is_container, addresses))


def test_a_small_subnet_gives_out_all_that_it_has() -> None:
    subnet = parse_ranges("192.168.0.0/16/10/6").subnet(5)
    assert subnet.host == subnet.network[62]
    given = {subnet.container(index) for index in range(subnet.capacity)}
    assert given == set(subnet.network.hosts()) - {subnet.gateway, subnet.host}


def test_the_usual_overlay_has_63_runners_of_16380_containers() -> None:
    ranges = parse_ranges(USUAL)
    second = ranges.subnet(2)
    assert (ranges.most_runners, second.capacity, str(ranges.host)) == (63, 16380, "10.128.0.1")
    assert (str(second.network), str(second.gateway), str(second.host)) == (
        "10.128.128.0/18", "10.128.128.1", "10.128.128.254",
    )  # fmt: skip
    assert str(second.container(251)) == "10.128.128.253" and str(second.container(252)) == "10.128.128.255"


@pytest.mark.parametrize(
    "text",
    ["", "10.128.0.0/12", "10.128.0.0/12/6/13", "10.128.0.1/12/6/14", "10.0.0.0/0/16/16", "10.0.0.0/8/22/2", "10.0.0.0/24/0/8",
     "127.0.0.0/12/6/14", "224.0.0.0/12/6/14", "10.0.0.0/8/17/7", "10.128.0.0/12/6/١٤", "10.128.0.0/12/6/-14", "x/12/6/14"],
)  # fmt: skip
def test_what_is_no_overlay_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="."):
        parse_ranges(text)


@given(number=st.integers(1, 2**16))
def test_a_device_of_the_host_names_its_runner(number: int) -> None:
    assert device_number(host_device(number)) == number and len(host_device(number)) <= 15


@pytest.mark.parametrize("name", ["vxkr", "vxkr0", "vxkr-1", "vxkrA", "vxlan0", "eth0", "vxkr01"])
def test_other_devices_name_no_runner(name: str) -> None:
    assert device_number(name) is None


def test_a_hardware_address_is_locally_administered_and_tells_the_address() -> None:
    assert mac_of(IPv4Address("10.128.64.1")) == "02:6b:0a:80:40:01"


@given(
    ip=st.ip_addresses(v=4).map(str),
    runner=st.from_regex(r"[a-z0-9-]{1,20}", fullmatch=True),
    exp=st.integers(0, 2**40),
)
def test_a_token_says_what_was_put_in(ip: str, runner: str, exp: int) -> None:
    claim = Claim(ip, runner, exp)
    assert read_token(make_token(claim, KEY), KEY) == claim


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_changed_token_is_believed(place: int, bit: int) -> None:
    token = bytearray(make_token(Claim("10.128.64.2", "n1", 1_800_000_000), KEY).encode())
    original = bytes(token)
    token[place % len(token)] ^= 1 << bit
    if bytes(token).rstrip(b"=") == original.rstrip(b"="):
        return
    with pytest.raises(BadRequest):
        read_token(token.decode("latin-1"), KEY)


@pytest.mark.parametrize(
    "token", ["", "a", "e30=", "e30.", "\u00e9", "=" * 10, make_token(Claim("1.2.3.4", "n", 1), b"other")]
)
def test_what_the_host_did_not_sign_is_no_token(token: str) -> None:
    with pytest.raises(BadRequest):
        read_token(token, KEY)
