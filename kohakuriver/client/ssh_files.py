"""What stock ssh needs to know of a cluster: who may be believed, and how workloads are reached."""

import os
import shlex
import sys
from typing import NamedTuple

from kohakuriver.launcher import running_archive
from kohakuriver.model.errors import NotAllowed
from kohakuriver.model.settings import ClientSettings
from kohakuriver.model.ssh_api import SshPort

FOLDER = "~/.kohakuriver/ssh"
PATTERN = "*.kohakuriver"
JUMP = "kohakuriver-jump"
OWN_FILE = "~/.ssh/config"
ABOUT = "# Made by `kohakuriver ssh config`; it is written anew each time."


class Files(NamedTuple):
    """Where they are: what is pinned, what workloads' own servers have shown, what ssh includes."""

    pinned: str
    accepted: str
    config: str


def files() -> Files:
    """The paths, whether or not anything is there."""
    folder = os.path.expanduser(FOLDER)
    return Files(*(os.path.join(folder, name) for name in ("known_hosts", "known_hosts_accepted", "config")))


def known_hosts(host: str, port: SshPort) -> str:
    """Lines for ssh: the keys of the port, and the authority for workloads that have no server of their own."""
    where = host if port.port == 22 else f"[{host}]:{port.port}"
    lines = [f"{where} {key.public_key}" for key in port.host_keys] if port.port else []
    return "\n".join([ABOUT, *lines, f"@cert-authority {PATTERN} {port.authority.public_key}", ""])


def proxy_command(where: ClientSettings, workload: str) -> str:
    """How ssh reaches a workload: by this very program, over the host's API."""
    archive = running_archive()
    program = [sys.executable, str(archive)] if archive else [sys.executable, "-m", "kohakuriver"]
    place = ["--cluster", where.cluster] if where.cluster else ["--host", where.host, "--port", str(where.port)]
    return shlex.join([*program, *place, "ssh", "proxy"]).replace("%", "%%") + f" {workload}"


def options(where: ClientSettings, workload: str) -> dict[str, str]:
    """What ssh is told for a workload; whose key is unknown is asked for once and never believed with another."""
    at = files()
    return {
        "ProxyCommand": proxy_command(where, workload),
        "UserKnownHostsFile": f'"{at.pinned}" "{at.accepted}"',
        "StrictHostKeyChecking": "accept-new",
        "ForwardAgent": "no",
    }


def config(where: ClientSettings, port: SshPort, user: str) -> str:
    """The file that ssh includes."""
    lines = [ABOUT, f"Host {PATTERN}", "    User root"]
    lines += [f"    {name} {value}" for name, value in options(where, "%n").items()]
    if port.port:
        lines += ["", f"Host {JUMP}", f"    HostName {where.host}", f"    Port {port.port}"]
        lines += [f"    User {user}"] if user else []
        lines += [f'    UserKnownHostsFile "{files().pinned}"', "    StrictHostKeyChecking yes", "    ForwardAgent no"]
    return "\n".join([*lines, ""])


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
