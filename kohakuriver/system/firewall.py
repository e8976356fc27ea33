"""Our part of the firewall: rules as values, put where the machine keeps its rules (iptables, else nftables).

Every rule carries a comment made of its own text, so one look tells whether all of ours stand there in their order.
They stand in chains and tables of our own; in others' chains we have one jump, to be found by the chain's name. With
Docker it stands where Docker wants the rules of others (DOCKER-USER), before its own, which may drop what we let pass.
"""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from kohakuriver.model.errors import Unavailable
from kohakuriver.system.port_guard import COMMENT, Guard, chains

COMMAND_SECONDS = 30.0
FIND_COMMENT = re.compile(rf'comment "?({COMMENT}[0-9a-f]+)')


class Hook(StrEnum):
    """Where packets are looked at."""

    FORWARD = "forward"
    INPUT = "input"
    POSTROUTING = "postrouting"


class Verdict(StrEnum):
    """What becomes of a packet that a rule fits."""

    ACCEPT = "accept"
    DROP = "drop"
    MASQUERADE = "masquerade"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule; what is empty fits everything. A device may end with `*`, a network begin with `!` (not in it).

    `vnis` (first and last) fits VXLAN packets to `udp_port` with such an id.
    """

    hook: Hook
    verdict: Verdict
    in_device: str = ""
    out_device: str = ""
    source: str = ""
    destination: str = ""
    udp_port: int = 0
    vnis: tuple[int, int] | None = None
    established: bool = False

    @property
    def comment(self) -> str:
        return COMMENT + hashlib.sha256(repr(self).encode()).hexdigest()[:16]


class Firewall:
    """Our rules under one name, of up to 12 letters; every method may block and raises Unavailable."""

    def __init__(self, name: str) -> None:
        self._name = name

    def set_rules(self, rules: Sequence[Rule]) -> bool:
        """Have just these rules; whether anything had to be changed."""
        rules = sorted(rules, key=lambda rule: list(Hook).index(rule.hook))
        if shutil.which("iptables"):
            changed = [self._set_iptables(hook, [r for r in rules if r.hook is hook]) for hook in Hook]
            return any(changed)
        return self._set_nft("inet", _nft_chains(rules))

    def set_guard(self, guard: Guard | None) -> bool:
        """Let each port of a bridge send only as who it is; whether anything had to be changed."""
        return self._set_nft("bridge", chains(guard) if guard else "")

    # ---- iptables

    def _set_iptables(self, hook: Hook, rules: Sequence[Rule]) -> bool:
        chain, call = f"{self._name}-{hook}".upper(), ["iptables", "-w", "-t", _TABLES[hook]]
        seen = _run([*call, "-S"]).splitlines()
        parent = "DOCKER-USER" if hook is Hook.FORWARD and "-N DOCKER-USER" in seen else hook.upper()
        jumps = [line.split()[1] for line in seen if line.endswith(f" -j {chain}")]
        own = "\n".join(line for line in seen if line.startswith(f"-A {chain} "))
        stands, right = f"-N {chain}" in seen, FIND_COMMENT.findall(own) == [rule.comment for rule in rules]
        wanted = [parent] if rules else []
        if right and jumps == wanted and stands == bool(rules):
            return False
        if rules and not right:
            lines = [f"*{_TABLES[hook]}", f":{chain} - [0:0]", *(f"-A {chain} {_iptables(r)}" for r in rules), "COMMIT"]
            _run(["iptables-restore", "-w", "--noflush"], "\n".join([*lines, ""]))
        if parent in wanted and parent not in jumps:
            _run([*call, "-I", parent, "-j", chain])
        for stray in [place for place in jumps if place not in wanted]:
            _run([*call, "-D", stray, "-j", chain])
        if stands and not rules:
            _run([*call, "-F", chain])
            _run([*call, "-X", chain])
        return True

    # ---- nftables

    def _set_nft(self, family: str, body: str) -> bool:
        """Have a table of ours with these chains; empty text: have none."""
        if not shutil.which("nft"):
            if body:
                raise Unavailable("neither iptables nor nft is there: install nftables")
            return False
        table = f"{family} {self._name}"
        listed = _run(["nft", "list", "table", family, self._name], fine=(1,))
        if FIND_COMMENT.findall(listed) == FIND_COMMENT.findall(body) and bool(listed) == bool(body):
            return False
        text = f"table {table} {{}}\ndelete table {table}\n"
        _run(["nft", "-f", "-"], text + (f"table {table} {{\n{body}}}\n" if body else ""))
        return True


def has_guard() -> bool:
    """Whether this machine can watch what comes out of the ports of a bridge."""
    return shutil.which("nft") is not None


_TABLES = {Hook.FORWARD: "filter", Hook.INPUT: "filter", Hook.POSTROUTING: "nat"}
_NFT_HOOKS = {
    Hook.FORWARD: "type filter hook forward priority -5;",
    Hook.INPUT: "type filter hook input priority -5;",
    Hook.POSTROUTING: "type nat hook postrouting priority 95;",
}


def _iptables(rule: Rule) -> str:
    words = []
    for option, value in (("-i", rule.in_device), ("-o", rule.out_device)):
        words += [option, value.replace("*", "+")] if value else []
    for option, value in (("-s", rule.source), ("-d", rule.destination)):
        words += [*(["!"] if value.startswith("!") else []), option, value.lstrip("!")] if value else []
    if rule.udp_port:
        words += ["-p", "udp", "--dport", str(rule.udp_port)]
    if rule.vnis:  # behind the IP header (of a length that it tells), 8 bytes of UDP and 4 of VXLAN
        words += ["-m", "u32", "--u32", f'"0>>22&0x3C@12>>8={rule.vnis[0]}:{rule.vnis[1]}"']
    if rule.established:
        words += ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"]
    return " ".join([*words, "-m", "comment", "--comment", rule.comment, "-j", rule.verdict.upper()])


def _nft_chains(rules: Sequence[Rule]) -> str:
    chains = []
    for hook in dict.fromkeys(rule.hook for rule in rules):
        lines = [f"    {_nft(rule)}\n" for rule in rules if rule.hook is hook]
        chains.append(f"  chain {hook} {{\n    {_NFT_HOOKS[hook]}\n{''.join(lines)}  }}\n")
    return "".join(chains)


def _nft(rule: Rule) -> str:
    words = []
    for option, value in (("iifname", rule.in_device), ("oifname", rule.out_device)):
        words += [option, f'"{value}"'] if value else []
    for option, value in (("ip saddr", rule.source), ("ip daddr", rule.destination)):
        words += [option, value.replace("!", "!= ")] if value else []
    if rule.udp_port:
        words += ["udp dport", str(rule.udp_port)]
    if rule.vnis:
        words += ["@th,96,24", f"{rule.vnis[0]}-{rule.vnis[1]}"]
    if rule.established:
        words += ["ct state established,related"]
    return " ".join([*words, rule.verdict, f'comment "{rule.comment}"'])


def _run(command: list[str], text: str = "", fine: tuple[int, ...] = ()) -> str:
    """What a command says; empty text when it ends with an exit code that is fine. Raises Unavailable."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as failed:
        raise Unavailable(f"`{command[0]}` cannot be run: {failed}") from None
    if done.returncode in fine:
        return ""
    if done.returncode:
        raise Unavailable(f"`{' '.join(command)}`: {done.stderr.strip()[:300]}")
    return done.stdout
