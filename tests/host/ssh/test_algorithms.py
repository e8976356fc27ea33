"""The algorithms of the SSH port, as an auditor sees them, and its keys, as its owner keeps them."""

import asyncio
import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.host.services.ssh import sntrup
from kohakuriver.host.services.ssh.host_keys import host_keys
from kohakuriver.model.access import Role
from kohakuriver.model.errors import NotAllowed
from tests.host.ssh.doors import Door, at_the_door


async def audited(door: Door) -> dict[str, Any]:
    """What `ssh-audit` says of the port."""
    command = [str(Path(sys.executable).parent / "ssh-audit"), "-j", "--skip-rate-test", "-p", str(door.keeper.port)]
    process = await asyncio.create_subprocess_exec(*command, "127.0.0.1", stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    found: dict[str, Any] = json.loads(out)
    return found | {"exit": process.returncode}


def complaints(found: dict[str, Any]) -> set[tuple[str, str]]:
    return {
        (one["algorithm"], word)
        for kind in ("kex", "key", "enc", "mac")
        for one in found[kind]
        for word in ("fail", "warn")
        if one["notes"].get(word)
    }


def test_an_auditor_finds_neither_failure_nor_warning(tmp_path: Path) -> None:
    async def work(door: Door) -> None:
        found = await audited(door)
        assert found["exit"] == 0 and complaints(found) == set() and found["cves"] == []
        assert {one["algorithm"] for one in found["key"]} == {"ssh-ed25519", "rsa-sha2-256", "rsa-sha2-512"}
        assert found["compression"] == ["none"]

    at_the_door(tmp_path, work)


def test_older_clients_come_only_where_they_may(tmp_path: Path) -> None:
    async def work(door: Door) -> None:
        bob = await door.house.person("bob", Role.USER)
        await door.admit(bob)
        task = await door.house.task(bob)
        old = ("-o", "KexAlgorithms=curve25519-sha256", task + "@127.0.0.1", "true")
        allowed = door.keeper.settings.ssh_older_clients_allowed
        done = await door.run("ssh", "bob", "-p", str(door.keeper.port), *old)
        assert (done.code == 0) is allowed
        assert (await door.ssh("bob", task, "true")).code == 0

    at_the_door(tmp_path / "strict", work)
    at_the_door(tmp_path / "mild", work, ssh_older_clients_allowed=True)


def test_keys_are_made_once_and_are_the_hosts_alone(tmp_path: Path) -> None:
    first, again = host_keys(tmp_path), host_keys(tmp_path)
    assert first.shown == again.shown and first.authority.public_data == again.authority.public_data
    files = list((tmp_path / "ssh").iterdir())
    assert len(files) == 3 and all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)


@pytest.mark.parametrize("what", ["readable", "garbage", "another kind"])
def test_a_key_that_is_no_good_is_refused_and_named(tmp_path: Path, what: str) -> None:
    host_keys(tmp_path)
    file = tmp_path / "ssh/host_rsa_key"
    if what == "readable":
        file.chmod(0o644)
    elif what == "garbage":
        file.write_text("no key")
    else:
        file.write_bytes((tmp_path / "ssh/host_ed25519_key").read_bytes())
    with pytest.raises(NotAllowed, match="host_rsa_key"):
        host_keys(tmp_path)


def test_packing_loses_nothing() -> None:
    limits = [sntrup.Q] * sntrup.P
    numbers = [(7 * place * place + 3) % sntrup.Q for place in range(sntrup.P)]
    packed = sntrup.pack(numbers, limits)
    assert len(packed) == sntrup.PUBLIC_BYTES and sntrup.unpack(packed, limits) == numbers


def test_polynomials_are_multiplied_as_by_hand() -> None:
    h = [(5 * place + 1) % sntrup.Q for place in range(sntrup.P)]
    r = [0] * sntrup.P
    r[0], r[1], r[760] = 1, -1, 1
    by_hand = [0] * (2 * sntrup.P)
    for place, c in enumerate(h):
        for other, sign in ((0, 1), (1, -1), (760, 1)):
            by_hand[place + other] += c * sign
    for place in range(2 * sntrup.P - 1, sntrup.P - 1, -1):  # x^p = x + 1
        by_hand[place - sntrup.P] += by_hand[place]
        by_hand[place - sntrup.P + 1] += by_hand[place]
    assert [(c - d) % sntrup.Q for c, d in zip(sntrup.multiply(h, r), by_hand, strict=False)] == [0] * sntrup.P


def test_short_polynomials_have_the_weight_they_must_have() -> None:
    for _ in range(20):
        drawn = sntrup.draw_short()
        assert len(drawn) == sntrup.P and set(drawn) == {-1, 0, 1} and sum(map(abs, drawn)) == sntrup.WEIGHT


def test_a_public_key_of_another_size_is_none() -> None:
    with pytest.raises(ValueError, match="1158 bytes"):
        sntrup.encapsulate(bytes(1157))
