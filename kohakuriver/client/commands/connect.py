"""`kohakuriver connect`: a shell or a program in a workload that runs."""

import os
from typing import Any, TypeVar

from kohakuriver.client.command import Command, Flag, Order
from kohakuriver.client.names import WORKLOAD
from kohakuriver.model import host_api as api
from kohakuriver.model import stream_api
from kohakuriver.model.errors import BadRequest
from kohakuriver.model.route import Channel
from kohakuriver.model.stream_api import StartTerminal

Q = TypeVar("Q")
MORE = """\
examples:
  kohakuriver connect 7205759403792794624
  kohakuriver connect 7205759403792794624 -- nvidia-smi
  tar c results | kohakuriver connect 7205759403792794624 -- tar x -C /local_temp

Without a program it is the first of bash, ash and sh. `~.` at the beginning of a line leaves, and ends the
program. When the connection breaks (sleep, another network, a host that restarts) it comes back by itself,
and nothing is lost. The exit code is the program's. Without a terminal at both ends, standard input,
output and errors are handed on byte by byte.
"""


def connect(order: Order) -> int:
    """Be in it until the program ends."""
    return be_in(order, stream_api.TERMINAL, stream_api.OpenTerminal(task_id=order.request(order.values()).task_id))


def be_in(order: Order, channel: Channel[Q], opening: Q) -> int:
    """Be where the channel leads until the program there ends; its exit code."""
    if order.as_json:
        raise BadRequest("--json: what a program says is no JSON")
    from kohakuriver.client.streams import standard  # help must not wait for it
    from kohakuriver.client.streams.terminal import hold

    start = StartTerminal(
        argv=_argv(order.parsed.words),
        tty=standard.is_terminal() and not order.has("no_tty"),
        term=os.environ.get("TERM", "") if os.environ.get("TERM", "") != "dumb" else "",
        shell=order.parsed.shell or "",
        watch=order.has("watch"),
    )

    def tell(text: str) -> None:
        order.notes.hint(text)
        if start.tty:
            order.notes.err.write("\r")  # a raw terminal does not go back to the left by itself
            order.notes.err.flush()

    return hold(order.session, channel, opening, start, tell)


def _argv(words: list[str]) -> list[str]:
    if words and words[0] != "--" and words[0].startswith("-"):
        raise BadRequest(f"{words[0]}: options stand before the ID, and a program behind --")
    return words[1:] if words[:1] == ["--"] else words


LOOK_ON = "Only look on at the terminal that was opened last (operators); `~.` or Ctrl-C leaves."
PROGRAM = (
    Flag(("--shell",), "Which shell, by name or path.", {"metavar": "SHELL"}),
    Flag(
        ("-T", "--no-tty"),
        "No terminal there, even if there is one here.",
        {"action": "store_true", "dest": "no_tty"},
    ),
    Flag(("words",), "The program and its arguments.", {"nargs": "...", "metavar": "-- COMMAND [ARGUMENT…]"}),
)
COMMANDS: tuple[Command[Any, Any], ...] = (
    Command(
        "",
        api.TASK_SHOW,
        act=connect,
        about="Be in a workload: a shell there, or a program.",
        spelled=WORKLOAD,
        extra=(Flag(("--watch",), LOOK_ON), *PROGRAM),
        more=MORE,
    ),
)
