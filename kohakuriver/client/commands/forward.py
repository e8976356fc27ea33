"""`kohakuriver forward`: local ports that lead into a workload."""

from typing import Any

from kohakuriver.client.command import Command, Flag, Order
from kohakuriver.client.names import WORKLOAD
from kohakuriver.model import host_api as api
from kohakuriver.model.stream_api import OpenForward

MORE = """\
examples:
  kohakuriver forward 7205759403792794624 8888
  kohakuriver forward 7205759403792794624 9000:80 0:5432
  kohakuriver forward 7205759403792794624 0.0.0.0:6006:6006
  kohakuriver forward 7205759403792794624 5353:53 --proto udp

PORT is one inside the workload, LOCAL one here (0: any free one); it is open to this machine only unless
ADDRESS says otherwise. Nothing is needed in the workload. It goes on until Ctrl-C; when the host or the
node is away for a moment, new connections wait for it.
"""


def forward(order: Order) -> int:
    """Listen until interrupted."""
    import asyncio

    from kohakuriver.client.streams.forwarding import Address, Door
    from kohakuriver.client.streams.forwarding import forward as listen
    from kohakuriver.client.streams.mapping import Mapping, parse

    proto, mappings = order.parsed.proto, [parse(word) for word in order.parsed.ports]
    asked = order.request(order.values())
    order.session.call(api.TASK_SHOW, asked)  # there is such a thing, and one may know of it
    task_id = asked.task_id
    order.session.close()

    def opened(mapping: Mapping, address: Address) -> None:
        told = {"address": address[0], "port": address[1], "inside": mapping.inside, "proto": proto}
        line = f"{address[0]}:{address[1]} leads to {proto} port {mapping.inside} of {task_id}"
        order.answer(told, lambda: order.screen.lines([line]))
        order.screen.out.flush()

    doors = [
        (each, Door(order.session, OpenForward(task_id=task_id, port=each.inside, proto=proto), order.notes.warn))
        for each in mappings
    ]
    asyncio.run(listen(doors, opened))
    return 0


COMMANDS: tuple[Command[Any, Any], ...] = (
    Command(
        "",
        api.TASK_SHOW,
        act=forward,
        about="Reach ports of a workload by local ones.",
        spelled=WORKLOAD,
        extra=(
            Flag(("ports",), "A port of the workload.", {"nargs": "+", "metavar": "[[ADDRESS:]LOCAL:]PORT"}),
            Flag(("--proto",), "tcp (default) or udp.", {"choices": ("tcp", "udp"), "default": "tcp"}),
        ),
        more=MORE,
    ),
)
