"""`kohakuriver vps …`: every command about VPS, the workspaces that stay."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from kohakuriver.client.command import Command, Flag, Order, each, show_nothing, shown_now
from kohakuriver.client.commands.ssh import CONNECT
from kohakuriver.client.flags import Spelling
from kohakuriver.client.names import VPS
from kohakuriver.client.pace import Patience, Pauses
from kohakuriver.client.paging import ALL, list_pages
from kohakuriver.client.registry_login import LOGIN
from kohakuriver.client.secret_variables import ENV, UNTYPED
from kohakuriver.client.submission import submission_of
from kohakuriver.client.task_view import status_word, wish
from kohakuriver.client.vps_view import people_lines, snapshot_table, vps_detail, vps_table
from kohakuriver.model import vps_api as api
from kohakuriver.model.errors import BadRequest, EngineFailed, NotFound, RiverError, Unavailable
from kohakuriver.model.lifecycle import Status
from kohakuriver.model.units import parse_seconds
from kohakuriver.model.vps import GONE, Snapshot, SnapshotState, SshKeyMode, Vps
from kohakuriver.model.vps_api import Assignment, NewVps, VpsId

S = Status
AT_REST = GONE | {S.RUNNING, S.PAUSED, S.STOPPED, S.LOST}
MOST_KEY_CHARACTERS = 10_000
WAIT = Flag(("-w", "--wait"), "Wait until that is true, and say so.")
NO_WAIT = Flag(("--no-wait",), "Do not wait until it is saved.")
OWNED = {
    "status": Spelling(flag="s"),
    "node": Spelling(flag="n", complete="node"),
    "before": Spelling(about="Only VPS older than this one.", metavar="VPS"),
    "limit": Spelling(flag="l"),
}


def create(order: Order) -> int:
    """Make it, print its id at once, and with --wait return when it runs."""
    values = submission_of(order)
    if "ssh_public_key" in values:
        values.setdefault("ssh_key_mode", SshKeyMode.UPLOAD.value)
    place: str | None = order.parsed.save_key
    if place is not None and values.get("ssh_key_mode") != SshKeyMode.GENERATE:
        raise BadRequest("--save-key: it goes with --ssh-key-mode generate")
    request = order.request(values)
    with _place_for_key(place) as file:
        plain = order.session.ask(api.VPS_CREATE, request)
        made: NewVps = order.session.understand(api.VPS_CREATE, plain)
        if file is not None:
            file.write(made.private_key or "")
            plain["private_key"] = None
    if made.private_key and file is None and not order.as_json:
        order.notes.warn("the private key, which is shown this once and kept nowhere:")
        order.notes.err.write(made.private_key)
    order.answer(plain, lambda: order.screen.line(str(made.vps.task_id)))
    order.screen.out.flush()
    return _settled(order, plain["vps"], S.RUNNING)[1] if order.has("wait") else 0


@contextmanager
def _place_for_key(path: str | None) -> Iterator[TextIO | None]:
    """A new file that only its owner can read, there before the key is, so that none is lost; None without a path."""
    if path is None:
        yield None
        return
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as refused:
        raise BadRequest(f"--save-key: {path}: {refused.strerror}") from None
    with open(number, "w", encoding="ascii") as file:
        try:
            yield file
        except RiverError:
            os.unlink(path)
            raise


def public_key(text: str) -> str:
    """The one line of a public key's file; raises ValueError."""
    try:
        with open(text, encoding="utf-8") as file:
            return file.read(MOST_KEY_CHARACTERS).strip()
    except (OSError, UnicodeDecodeError) as refused:
        raise ValueError(f"{text}: {getattr(refused, 'strerror', None) or 'not text'}") from None


def list_vps(order: Order) -> int:
    """Print one page, or with --all every page."""
    return list_pages(order, vps_table(order.screen, order.clock.now()))


def steer(*wanted: Status) -> Callable[[Order], int]:
    """A command that asks for something, and with --wait returns when it has become one of these."""

    def act(order: Order) -> int:
        return each(order, lambda plain: _settled(order, plain, *wanted) if order.has("wait") else (plain, 0))

    return act


def _settled(order: Order, plain: Any, *wanted: Status) -> tuple[Any, int]:
    """The VPS once nothing more will become of it by itself, and whether that is what was wanted."""
    patience, pauses, told = Patience(order.clock, order.notes.warn), Pauses(order.clock), ""
    patience.well()
    while True:
        vps: Vps = order.session.understand(api.VPS_SHOW, plain)
        line = f"{vps.name or vps.task_id} {status_word(vps)}{f': {vps.reason}' if vps.reason else ''}"
        if line != told:
            order.notes.hint(line)
        told = line
        if vps.status in AT_REST and not _moves(vps):
            if vps.error_message:
                order.notes.warn(f"{vps.name or vps.task_id}: {vps.error_message}")
            return plain, 0 if vps.status in wanted else 1
        pauses.pause()
        try:
            plain = order.session.ask(api.VPS_SHOW, VpsId(task_id=vps.task_id))
            patience.well()
        except Unavailable as away:
            patience.bear(away)


def _moves(vps: Vps) -> bool:
    return vps.again or (wish(vps) != "" and vps.status is not S.LOST)


def extend(order: Order) -> int:
    """Have its lease end later."""
    plain = order.session.ask(api.VPS_EXTEND, order.request({**order.values(), "seconds": order.parsed.long}))
    vps: Vps = order.session.understand(api.VPS_EXTEND, plain)
    until = f"until {vps.expires_at}" if vps.expires_at else "has no lease"
    order.answer(plain, lambda: order.screen.line(f"{vps.task_id}  {until}"))
    return 0


def take_snapshot(order: Order) -> int:
    """Have it saved, and return when it is."""
    request = order.request(order.values())
    plain = order.session.ask(order.command.route, request)
    taken: Snapshot = order.session.understand(api.VPS_SNAPSHOT_TAKE, plain)
    if not order.has("no_wait"):
        order.notes.hint("it is being saved, and stands still meanwhile")
        plain = _saved(order, taken)
    order.answer(plain, lambda: order.screen.line(str(taken.timestamp)))
    return 0


def _saved(order: Order, taken: Snapshot) -> Any:
    """The host's answer about a snapshot that is whole; raises EngineFailed when it cannot become so."""
    patience, pauses = Patience(order.clock, order.notes.warn), Pauses(order.clock)
    patience.well()
    while True:
        try:
            every = order.session.ask(api.VPS_SNAPSHOTS, VpsId(task_id=taken.task_id))
            patience.well()
        except Unavailable as away:
            patience.bear(away)
            continue
        found = next((each for each in every if each["timestamp"] == taken.timestamp), None)
        if found is None:
            raise EngineFailed("it was not saved: its runner, or Docker, was restarted meanwhile; try again")
        seen: Snapshot = order.session.understand(api.VPS_SNAPSHOT_TAKE, found)
        if seen.state is SnapshotState.FAILED:
            raise EngineFailed(f"it was not saved: {seen.error}")
        if seen.state is SnapshotState.READY:
            return found
        pauses.pause()


def assign(order: Order) -> int:
    """Let somebody use it."""
    request = order.request({**order.values(), "user": order.parsed.who})
    return _show_people(order, order.session.ask(api.VPS_ASSIGN, request))


def unassign(order: Order) -> int:
    """Let somebody use it no longer, by his name or id."""
    vps = order.request({**order.values(), "user_id": 1}).task_id
    plain = order.session.ask(api.VPS_ASSIGNMENTS, VpsId(task_id=vps))
    people: list[Assignment] = order.session.understand(api.VPS_ASSIGNMENTS, plain)
    who = order.parsed.who
    user_id = next((each.user_id for each in people if who in (each.user, str(each.user_id))), None)
    if user_id is None:
        raise NotFound(f"{who} may not use VPS {vps}")
    request = api.Unassign(task_id=vps, user_id=user_id)
    return _show_people(order, order.session.ask(api.VPS_UNASSIGN, request))


def _show_people(order: Order, plain: Any) -> int:
    people = order.session.understand(api.VPS_ASSIGNMENTS, plain)
    order.answer(plain, lambda: order.screen.lines(people_lines(order.screen, people, order.clock.now())))
    return 0


def show_change(order: Order, vps: Vps) -> Iterator[str]:
    """What became, or is about to become, of a VPS that was told something."""
    yield f"{vps.task_id}  {status_word(vps)}{', to start again' if vps.again else ''}"


def show_snapshots(order: Order, found: list[Snapshot]) -> Iterator[str]:
    return snapshot_table(order.screen, order.clock.now()).lines(found)


CREATE_MORE = """\
examples:
  kohakuriver vps create --name box -c 4 -m 16G -g 1 --container torch --wait
  kohakuriver vps create --name box --image debian:12 -t alpha --key ~/.ssh/id_ed25519.pub
  kohakuriver vps create --ssh-key-mode generate --save-key ~/.ssh/box
  kohakuriver vps create --lease 12h --idle-stop 2h

A VPS stays until it is deleted. When it is stopped, its files stay on its node, and it goes on with
them when it is restarted. Its name is good wherever its id is.

Secrets: -e KEY=@FILE is what FILE holds (@- standard input), -e KEY=@secret your own variable KEY.
"""
RESTART_MORE = """\
Without --snapshot it goes on with its files as they were when it stopped. With one it goes back to
that snapshot; what it was until then is saved before. One that runs is stopped first.
"""
SNAPSHOT_MORE = """\
Snapshots are kept on the node of the VPS. Besides these, one is taken whenever a VPS stops. When
there are more than the node keeps (MAX_SNAPSHOTS_PER_VPS), automatic ones make room first.
"""
EXTEND_MORE = """\
A VPS that was made with --lease is stopped when its time is over, one with --idle-stop when nobody was
in it and nothing worked in it for so long. `vps status` warns before. What is stopped can be restarted.
"""
WHO = Flag(("who",), "Who, by the name of the account.", {"metavar": "USER"})
COMMANDS: tuple[Command[Any, Any], ...] = (
    Command(
        "create",
        api.VPS_CREATE,
        act=create,
        about="Make a VPS; prints its id.",
        spelled={
            "name": Spelling(),
            "target": Spelling(metavar="HOST[:NUMA][::GPU,GPU]", complete="node"),
            "required_cores": Spelling(metavar="CORES"),
            "required_memory_bytes": Spelling(),
            "required_gpus": Spelling(metavar="GPUS"),
            "container_name": Spelling("container", metavar="NAME", complete="environment"),
            "registry_image": Spelling("image", metavar="NAME"),
            "ssh_key_mode": Spelling(),
            "ssh_public_key": Spelling(
                "key", about="The file of a public key that lets in by SSH.", metavar="FILE", parse=public_key
            ),
            "lease_seconds": Spelling(),
            "idle_stop_seconds": Spelling(),
            "env_vars": ENV,
            "working_dir": Spelling("workdir", metavar="DIR"),
            "additional_mounts": Spelling("mount", metavar="SOURCE:TARGET[:ro]"),
            "ip_reservation_token": Spelling("reserve-ip", metavar="TOKEN"),
            "vps_backend": Spelling("backend", metavar="docker"),
            "idempotency_key": Spelling(metavar="KEY"),
        },
        hidden=UNTYPED,
        extra=(
            WAIT,
            LOGIN,
            Flag(("--save-key",), "Write a generated private key to this new file.", {"metavar": "FILE"}),
        ),
        also=(api.VPS_SHOW,),
        more=CREATE_MORE,
    ),
    Command("list", api.VPS_LIST, act=list_vps, spelled=OWNED, extra=(ALL,)),
    Command("my", api.VPS_MY, act=list_vps, about="VPS that you own or may use.", spelled=OWNED, extra=(ALL,)),
    Command(
        "status",
        api.VPS_SHOW,
        show=shown_now(vps_detail),
        about="All about a VPS.",
        many=True,
        spelled=VPS,
        also=(api.VPS_FIND,),
    ),
    CONNECT._replace(verb="connect", about="Be in it, by ssh."),
    Command("stop", api.VPS_STOP, show=show_change, act=steer(S.STOPPED), many=True, spelled=VPS, extra=(WAIT,)),
    Command(
        "restart",
        api.VPS_RESTART,
        show=show_change,
        act=steer(S.RUNNING),
        many=True,
        spelled={**VPS, "snapshot": Spelling(metavar="SNAPSHOT")},
        extra=(WAIT,),
        more=RESTART_MORE,
    ),
    Command("pause", api.VPS_PAUSE, show=show_change, act=steer(S.PAUSED), many=True, spelled=VPS, extra=(WAIT,)),
    Command("resume", api.VPS_RESUME, show=show_change, act=steer(S.RUNNING), many=True, spelled=VPS, extra=(WAIT,)),
    Command(
        "extend",
        api.VPS_EXTEND,
        act=extend,
        hidden=frozenset({"seconds"}),
        spelled=VPS,
        extra=(
            Flag(("long",), "How long it may go on from now, such as 12h.", {"metavar": "TIME", "type": parse_seconds}),
        ),
        more=EXTEND_MORE,
    ),
    Command("delete", api.VPS_DELETE, show=show_change, act=steer(S.KILLED), many=True, spelled=VPS, extra=(WAIT,)),
    Command(
        "snapshot create",
        api.VPS_SNAPSHOT_TAKE,
        act=take_snapshot,
        about="Save a VPS as it is; prints the snapshot's name.",
        spelled={**VPS, "message": Spelling(flag="m")},
        extra=(NO_WAIT,),
        also=(api.VPS_SNAPSHOTS,),
        more=SNAPSHOT_MORE,
    ),
    Command("snapshot list", api.VPS_SNAPSHOTS, show=show_snapshots, about="The snapshots of a VPS.", spelled=VPS),
    Command(
        "snapshot delete",
        api.VPS_SNAPSHOT_DELETE,
        show=show_nothing,
        spelled={**VPS, "timestamp": Spelling(metavar="SNAPSHOT")},
    ),
    Command(
        "key delete",
        api.VPS_KEY_DELETE,
        show=show_change,
        about="Take away the SSH key of its own; who is in by it is cut off.",
        many=True,
        spelled=VPS,
    ),
    Command("assigned", api.VPS_ASSIGNMENTS, show=shown_now(people_lines), about="Who may use a VPS.", spelled=VPS),
    Command("assign", api.VPS_ASSIGN, act=assign, hidden=frozenset({"user"}), spelled=VPS, extra=(WHO,)),
    Command(
        "unassign",
        api.VPS_UNASSIGN,
        act=unassign,
        hidden=frozenset({"user_id"}),
        spelled=VPS,
        extra=(WHO,),
        also=(api.VPS_ASSIGNMENTS,),
    ),
)
