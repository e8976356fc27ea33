"""What stock ssh needs to know of a cluster: who may be believed, and how workloads are reached."""

import hashlib
import os
import re
import shlex
import sys
from typing import NamedTuple

from kohakuriver.launcher import running_archive
from kohakuriver.model.errors import NotAllowed
from kohakuriver.model.settings import ClientSettings
from kohakuriver.model.ssh_api import SshPort

FOLDER = "~/.kohakuriver/ssh"
SUFFIX = ".kohakuriver"
JUMP = "kohakuriver-jump"
OWN_FILE = "~/.ssh/config"
ABOUT = "# Made by `kohakuriver ssh config`; it is written anew each time."


class Files(NamedTuple):
    """Of one cluster: what is pinned, what workloads' own servers have shown, and its part of the configuration."""

    pinned: str
    accepted: str
    config: str


def label_of(where: ClientSettings) -> str:
    """What stands for a cluster in names of workloads and of folders; no two clusters have the same."""
    name = where.cluster or f"{where.host}:{where.port}"
    plain = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def folder() -> str:
    """Where all of it is."""
    return os.path.expanduser(FOLDER)


def files(label: str) -> Files:
    """The paths of a cluster, whether or not anything is there."""
    names = "known_hosts", "known_hosts_accepted", "config"
    return Files(*(os.path.join(folder(), label, name) for name in names))


def workload_in(word: str, label: str) -> str:
    """The id or name in what somebody calls a workload."""
    return word.removesuffix(SUFFIX).removesuffix(f".{label}") if word.endswith(SUFFIX) else word


def known_hosts(host: str, port: SshPort) -> str:
    """Lines for ssh: the keys of the port, and the authority for workloads that have no server of their own."""
    where = host if port.port == 22 else f"[{host}]:{port.port}"
    lines = [f"{where} {key.public_key}" for key in port.host_keys] if port.port else []
    return "\n".join([ABOUT, *lines, f"@cert-authority *{SUFFIX} {port.authority.public_key}", ""])


def proxy_command(where: ClientSettings, workload: str) -> str:
    """How ssh reaches a workload: by this very program, over the host's API."""
    archive = running_archive()
    program = [sys.executable, str(archive)] if archive else [sys.executable, "-m", "kohakuriver"]
    place = ["--cluster", where.cluster] if where.cluster else ["--host", where.host, "--port", str(where.port)]
    return shlex.join([*program, *place, "ssh", "proxy"]).replace("%", "%%") + f" {workload}"


def options(where: ClientSettings, workload: str) -> dict[str, str]:
    """What ssh is told for a workload; whose key is unknown is asked for once and never believed with another."""
    at = files(label_of(where))
    return {
        "ProxyCommand": proxy_command(where, workload),
        "UserKnownHostsFile": f'"{at.pinned}" "{at.accepted}"',
        "StrictHostKeyChecking": "accept-new",
        "ForwardAgent": "no",
    }


def block(where: ClientSettings, port: SshPort, user: str, label: str = "") -> list[str]:
    """What ssh is to know of a cluster, whose workloads are called `*.LABEL.kohakuriver`, or without the label."""
    dotted, dashed = (f".{label}", f"-{label}") if label else ("", "")
    lines = [f"Host *{dotted}{SUFFIX}", "    User root"]
    lines += [f"    {name} {value}" for name, value in options(where, "%n").items()]
    if port.port:
        lines += ["", f"Host {JUMP}{dashed}", f"    HostName {where.host}", f"    Port {port.port}"]
        lines += [f"    User {user}"] if user else []
        pinned = files(label_of(where)).pinned
        lines += [f'    UserKnownHostsFile "{pinned}"', "    StrictHostKeyChecking yes", "    ForwardAgent no"]
    return [*lines, ""]


def config(where: ClientSettings, port: SshPort, user: str) -> str:
    """The part of this cluster."""
    return "\n".join([ABOUT, *block(where, port, user, label_of(where))])


def main_config(where: ClientSettings, port: SshPort, user: str) -> str:
    """The file that ssh includes: the parts of all clusters, and this one for names that name none."""
    return "\n".join([ABOUT, f'Include "{folder()}/*/config"', "", *block(where, port, user)])


def install(where: ClientSettings, port: SshPort, user: str) -> bool:
    """Put all of it where ssh finds it; whether that was news to ssh. Raises NotAllowed."""
    at = pin(where, port)
    write(at.config, config(where, port, user))
    main = os.path.join(folder(), "config")
    write(main, main_config(where, port, user))
    return include(main)


def pin(where: ClientSettings, port: SshPort) -> Files:
    """Remember what this cluster may show; raises NotAllowed."""
    at = files(label_of(where))
    write(at.pinned, known_hosts(where.host, port))
    return at


def write(path: str, text: str) -> None:
    """Put a file there that is ours alone, whole or not at all; raises NotAllowed."""
    fresh = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(text.encode("utf-8", "surrogateescape"))
        os.rename(fresh, path)
    except OSError as refused:
        raise NotAllowed(f"{path} cannot be written: {refused.strerror}") from None


def include(config_file: str) -> bool:
    """Let the person's own configuration of ssh include ours, at its top; whether that was news."""
    own = os.path.realpath(os.path.expanduser(OWN_FILE))
    line = f'Include "{config_file}"'
    try:
        with open(own, encoding="utf-8", errors="surrogateescape") as file:
            there = file.read()
    except FileNotFoundError:
        there = ""
    except OSError as refused:
        raise NotAllowed(f"{own} cannot be read: {refused.strerror}") from None
    if line in there.splitlines():
        return False
    write(own, f"{line}\n\n{there}")
    return True
