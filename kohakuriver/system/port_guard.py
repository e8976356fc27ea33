"""What may come out of the ports of a bridge, and into them, as nftables has it: pure.

Who is no member may neither send under an address of the network nor take part in it: deny by default. Where owners
are kept apart, what a member sends is marked with its owner's tag, VXLAN devices carry the mark from machine to machine
(its group policy extension), and a port lets in what has the tag of its own owner, or none: that comes from outside, or
from a machine itself.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

NOBODY = 0xFFFF  # the tag of what is in the bridge without an owner; VXLAN has room for 16 bits
COMMENT = "kohakuriver:"


@dataclass(frozen=True, slots=True, order=True)
class Guarded:
    """A member: the port behind which it is, and the hardware address, address and tag under which it may send.

    `device` is empty while it is only about to start, and nobody knows its port.
    """

    device: str
    mac: str
    address: str
    tag: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """One bridge: its network, the port that leads to other machines, who is in it, and whether owners are kept apart."""

    network: str
    trunk: str
    is_isolated: bool
    members: tuple[Guarded, ...]


def chains(guard: Guard) -> str:
    """The chains of a table of the family `bridge`; each rule bears a comment made of its own text."""
    known = sorted(member for member in guard.members if member.device)
    coming = sorted(member for member in guard.members if not member.device)
    sent = [*_each(_sent, guard, known), *_each(_sent, guard, coming), *_sent_by_others(guard)]
    got = [*_each(_got, guard, known), *_each(_got, guard, coming), *_got_by_others(guard)]
    return _chain("sent", "prerouting", sent) + _chain("got", "postrouting", got)


def _each(say: Callable[[Guard, Guarded], Iterable[str]], guard: Guard, members: Iterable[Guarded]) -> list[str]:
    return [line for member in members for line in say(guard, member)]


def _sent(guard: Guard, member: Guarded) -> Iterator[str]:
    port = f'iifname "{member.device}"' if member.device else f'iifname != "{guard.trunk}"'
    verdict = f"meta mark set {member.tag} accept" if guard.is_isolated else "accept"
    for what in ("ip saddr", "arp saddr ip"):
        yield f"{port} ether saddr {member.mac} {what} {member.address} {verdict}"
    if member.device:
        yield f"{port} drop"


def _sent_by_others(guard: Guard) -> Iterator[str]:
    for what in ("ip saddr", "arp saddr ip"):
        yield f'iifname != "{guard.trunk}" {what} {guard.network} drop'


def _got(guard: Guard, member: Guarded) -> Iterator[str]:
    marked = f" meta mark {{ 0, {member.tag} }}" if guard.is_isolated else ""
    if member.device:
        yield f'oifname "{member.device}" ether type {{ ip, arp }}{marked} accept'
        yield f'oifname "{member.device}" drop'
    elif guard.is_isolated:
        for what in (f"ether daddr {member.mac} ether type {{ ip, arp }}", f"arp daddr ip {member.address}"):
            yield f"{what}{marked} accept"


def _got_by_others(guard: Guard) -> Iterator[str]:
    if guard.is_isolated:
        for what in ("ip daddr", "arp daddr ip"):
            yield f'oifname != "{guard.trunk}" {what} {guard.network} meta mark != 0 drop'


def _chain(name: str, hook: str, rules: list[str]) -> str:
    body = "".join(f'    {rule} comment "{_comment(hook, rule)}"\n' for rule in rules)
    return f"  chain {name} {{\n    type filter hook {hook} priority -300;\n{body}  }}\n"


def _comment(hook: str, rule: str) -> str:
    return COMMENT + hashlib.sha256(f"{hook} {rule}".encode()).hexdigest()[:16]
