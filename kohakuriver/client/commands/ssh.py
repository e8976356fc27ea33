"""`kohakuriver ssh …`: into workloads with the ssh that everybody has."""

import os
import shlex
from typing import Any

from kohakuriver.client.command import Command, Flag, Order
from kohakuriver.client.names import id_or_name, with_id
from kohakuriver.client.output import Column, Table
from kohakuriver.model import codec
from kohakuriver.model import ssh_api as api
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.errors import BadRequest, RiverError
from kohakuriver.model.runner_api import Nothing

SUFFIX = ".kohakuriver"
NO_PORT = "the host has no SSH port (HOST_SSH_PROXY_PORT); `kohakuriver ssh ID` goes over its API all the same"
WORKLOAD = Flag(("workload",), "A task or VPS that runs: its id or name.", {"metavar": "ID"})


def fingerprint(order: Order) -> int:
    """Print what the SSH port shows; returns 0."""
    plain = order.session.ask(api.SSH_PORT, Nothing())
    told = order.session.understand(api.SSH_PORT, plain)
    columns: list[Column[api.HostKey]] = [
        Column("KIND", lambda key: key.public_key.split()[0].removeprefix("ssh-")),
        Column("FINGERPRINT", lambda key: key.fingerprint),
    ]
    if not told.port:
        order.notes.hint(NO_PORT)
    order.answer(plain, lambda: order.screen.lines(Table(columns, order.screen).lines(told.host_keys)))
    return 0


def config(order: Order) -> int:
    """Print the configuration for ssh, or with --write put it where ssh finds it; returns 0."""
    from kohakuriver.client import contexts, ssh_files

    where, told = order.session.settings, order.session.call(api.SSH_PORT, Nothing())
    known = contexts.read().clusters.get(where.cluster)
    user = known.user if known else ""
    if not order.has("write"):
        parts = ssh_files.config(where, told, user), ssh_files.main_config(where, told, user)
        order.answer(
            {"config": parts[1], "cluster": parts[0]}, lambda: order.screen.lines("\n".join(parts).split("\n"))
        )
        return 0
    is_news = ssh_files.install(where, told, user)
    how = "includes it now" if is_news else "includes it already"
    names = f"ssh WORKLOAD{SUFFIX}, or WORKLOAD.{ssh_files.label_of(where)}{SUFFIX} whichever cluster is written last"
    order.answer(
        {"config": os.path.join(ssh_files.folder(), "config"), "label": ssh_files.label_of(where)},
        lambda: order.screen.line(f"{ssh_files.FOLDER}/config is written, {ssh_files.OWN_FILE} {how}: {names}"),
    )
    return 0


def connect(order: Order) -> int:
    """Become ssh; does not return when it goes well."""
    from kohakuriver.client import ssh_files

    login, at, word = order.parsed.workload.rpartition("@")
    task_id = _id_of(order, word)
    ssh_files.pin(order.session.settings, order.session.call(api.SSH_PORT, Nothing()))
    words = ["ssh", "-l", login if at else "root"]
    for name, value in ssh_files.options(order.session.settings, str(task_id)).items():
        words += ["-o", f"{name}={value}"]
    command: list[str] = order.parsed.words
    words += ["--", f"{task_id}{SUFFIX}", *([_one_command(command)] if command else [])]
    order.session.close()
    try:
        os.execvp("ssh", words)
    except OSError as missing:
        raise RiverError(f"ssh cannot be started ({missing.strerror}): install OpenSSH's client") from None


def _one_command(words: list[str]) -> str:
    """One word is for the shell as it is; several are a program and its arguments."""
    return words[0] if len(words) == 1 else shlex.join(words)


def proxy(order: Order) -> int:
    """Carry standard input and output to the SSH server of a workload; returns 0."""
    import asyncio

    from kohakuriver.client.channel import carry_standard_streams, open_channel
    from kohakuriver.client.ssh_files import label_of, workload_in

    word = order.parsed.workload
    task_id = _id_of(order, workload_in(word, label_of(order.session.settings)))
    wanted = api.SshTo(task_id=task_id, shown_as=word if word.endswith(SUFFIX) else "")

    async def run() -> None:
        await carry_standard_streams(await open_channel(order.session, api.SSH_TO, wanted))

    order.session.close()
    asyncio.run(run())
    return 0


def _id_of(order: Order, word: str) -> Snowflake:
    """The id that somebody means by an id or a name; raises NotFound, Conflict."""
    try:
        plain = with_id(order.session, {"task_id": id_or_name(word)})
    except ValueError as wrong:
        raise BadRequest(f"ID: {wrong}") from None
    return codec.decode(api.SshTo, plain).task_id


CONNECT_MORE = """\
It runs your own ssh, through the host's API, so nothing but the login is needed: no key, no further port.
The workload need not have an SSH server, nor anything else.
  kohakuriver ssh lab                          a shell in the VPS lab, as root
  kohakuriver ssh ada@1234 -- nvidia-smi -l    a command, as ada, in the task 1234
  kohakuriver ssh config --write               then also: ssh, scp, rsync, VS Code … with lab.kohakuriver
"""
CONNECT: Command[Any, Any] = Command(
    "to",
    api.SSH_PORT,
    act=connect,
    about="Be in a workload; the word `to` may be left out.",
    extra=(
        Flag(("workload",), "A task or VPS that runs: its id or name, and before an @ as whom.", {"metavar": "ID"}),
        Flag(("words",), "A command, instead of a shell.", {"nargs": "*", "metavar": "CMD"}),
    ),
    more=CONNECT_MORE,
)
COMMANDS: tuple[Command[Any, Any], ...] = (
    CONNECT,
    Command(
        "config",
        api.SSH_PORT,
        act=config,
        about="What ssh, scp and editors need to reach workloads.",
        extra=(Flag(("--write",), "Put it into ~/.kohakuriver/ssh, and have ~/.ssh/config include it."),),
    ),
    Command("fingerprint", api.SSH_PORT, act=fingerprint, about="The fingerprints of the host's SSH keys."),
    Command(
        "proxy",
        api.SSH_PORT,
        act=proxy,
        about="The way to a workload's SSH server, as a ProxyCommand.",
        extra=(WORKLOAD,),
    ),
)
