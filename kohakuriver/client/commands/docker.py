"""`kohakuriver docker …`: every command about environments, tarballs and the images of nodes."""

from collections.abc import Iterator
from typing import Any

from kohakuriver.client import docker_view as view
from kohakuriver.client.command import Command, Flag, Order, show_nothing, shown_now
from kohakuriver.client.commands.connect import PROGRAM, be_in
from kohakuriver.client.flags import Spelling
from kohakuriver.client.pace import Patience, Pauses
from kohakuriver.client.progress import ProgressLine
from kohakuriver.client.registry_login import LOGIN, login_of
from kohakuriver.model import docker_api as api
from kohakuriver.model.errors import EngineFailed, Unavailable
from kohakuriver.model.image import SyncPhase, Tarball

ENVIRONMENT = {"name": Spelling(metavar="NAME", complete="environment")}
TARBALL = {"name": Spelling(metavar="TARBALL", complete="tarball")}
NO_WAIT = Flag(("--no-wait",), "Do not wait until it is done; `docker jobs` tells how far it is.")
UNDER_WAY = (api.JobState.WAITING, api.JobState.RUNNING)
MOVING = (SyncPhase.FETCHING, SyncPhase.LOADING)


def begin_job(order: Order) -> int:
    """Have the host do it, and show how far it is until it is done."""
    plain = order.session.ask(order.command.route, order.request(order.values() | login_of(order)))
    job: api.Job = order.session.understand(order.command.route, plain)
    if not order.has("no_wait"):
        try:
            plain = _followed(order, job)
        except KeyboardInterrupt:
            order.notes.hint("nobody waits any more, but the host goes on: kohakuriver docker jobs")
            raise
        job = order.session.understand(api.JOB_SHOW, plain)
    order.answer(plain, lambda: order.screen.line(f"{job.environment}  {job.state}  {job.message}".rstrip()))
    return 0


def _followed(order: Order, job: api.Job) -> Any:
    """The host's answer about a job that is done; raises EngineFailed when it failed."""
    patience, pauses = Patience(order.clock, order.notes.warn), Pauses(order.clock)
    with ProgressLine(order.notes, order.screen) as line:
        while True:
            try:
                plain = order.session.ask(api.JOB_SHOW, api.JobId(job_id=job.job_id))
            except Unavailable as away:
                patience.bear(away)
                continue
            patience.well()
            seen = order.session.understand(api.JOB_SHOW, plain)
            if seen.state is api.JobState.FAILED:
                raise EngineFailed(seen.message)
            if seen.state not in UNDER_WAY:
                return plain
            line.show(seen.message or str(seen.state), seen.done_bytes, seen.total_bytes)
            pauses.pause()


def sync(order: Order) -> int:
    """Have nodes fetch an environment, and show how far they are until all have it."""
    request = order.request(order.values())
    plain = order.session.ask(api.SYNC, request)
    patience, pauses = Patience(order.clock, order.notes.warn), Pauses(order.clock)
    patience.well()
    with ProgressLine(order.notes, order.screen) as line:
        while not order.has("no_wait") and (moving := _moving(order, plain)):
            sizes = [(node.sync.done_bytes, node.sync.total_bytes) for node in moving]
            done, total = (sum(column) for column in zip(*sizes, strict=True))
            line.show(f"{moving[0].node}: {moving[0].sync.message} ({len(moving)} left)", done, total)
            pauses.pause()
            try:
                plain = order.session.ask(api.SYNC_SHOW, request)
            except Unavailable as away:
                patience.bear(away)
    nodes = order.session.understand(api.SYNC, plain)
    order.answer(plain, lambda: order.screen.lines(view.sync_lines(order.screen, nodes)))
    return EngineFailed.exit_code if any(node.sync.phase is SyncPhase.FAILED for node in nodes) else 0


def _moving(order: Order, plain: Any) -> list[api.NodeSync]:
    return [node for node in order.session.understand(api.SYNC, plain) if node.sync.phase in MOVING]


def shell(order: Order) -> int:
    """Be in an environment's container until the program there ends."""
    return be_in(order, api.ENV_TERMINAL, api.OpenShell(name=order.values()["name"]))


def get_tarball(order: Order) -> int:
    """Download one, going on where an earlier try broke off."""
    from kohakuriver.client.download import download  # help must not wait for the network's modules

    return download(order)


def show_deleted(order: Order, gone: Tarball) -> Iterator[str]:
    yield f"{gone.stem}  deleted"


def show_environment(order: Order, changed: api.Environment) -> Iterator[str]:
    yield f"{changed.name}  {changed.status}"


CREATE_MORE = """\
examples:
  kohakuriver docker env create lab --image python:3.12
  kohakuriver docker env create lab --image registry.lab/torch:2 --registry-login-file ~/.registry-login
  kohakuriver docker env create lab --tarball lab-1764100000    (a file below kohakuriver-containers on the host)

Prepare it, then give it to the nodes:
  kohakuriver docker tarball create lab
  kohakuriver docker sync lab                                   (or let the first task bring it)
  kohakuriver task submit --container lab -- python train.py
"""
SHELL_MORE = """\
examples:
  kohakuriver docker env shell lab
  kohakuriver docker env shell lab -- apt-get install -y rsync
  tar c data | kohakuriver docker env shell lab -- tar x -C /srv

What is installed stays in the environment; nodes get it with the next `docker tarball create`.
"""
SYNC_MORE = """\
A node that has the newest tarball already does nothing. Tasks bring what they need by themselves: this is for
those who do not want the first one to wait.
"""
COMMANDS: tuple[Command[Any, Any], ...] = (
    Command("env list", api.ENV_LIST, show=shown_now(view.environment_lines)),
    Command(
        "env create",
        api.ENV_CREATE,
        act=begin_job,
        about="Make an environment of an image or a tarball.",
        spelled={"name": Spelling(metavar="NAME"), "tarball": Spelling(complete="tarball")},
        hidden=frozenset({"registry_login"}),
        words=frozenset({"name"}),
        extra=(NO_WAIT, LOGIN),
        also=(api.JOB_SHOW,),
        more=CREATE_MORE,
    ),
    Command("env start", api.ENV_START, show=show_environment, many=True, spelled=ENVIRONMENT),
    Command("env stop", api.ENV_STOP, show=show_environment, many=True, spelled=ENVIRONMENT),
    Command(
        "env shell",
        api.ENV_START,  # for the name alone: nothing is started but the shell
        act=shell,
        about="A shell, or a program, in an environment that runs.",
        spelled=ENVIRONMENT,
        extra=PROGRAM,
        more=SHELL_MORE,
    ),
    Command("env delete", api.ENV_DELETE, show=show_nothing, many=True, spelled=ENVIRONMENT),
    Command("tarball list", api.TARBALL_LIST, show=shown_now(view.tarball_lines)),
    Command(
        "tarball create",
        api.TARBALL_CREATE,
        act=begin_job,
        about="Make an environment as it is now into a tarball, which nodes then use.",
        spelled=ENVIRONMENT,
        extra=(NO_WAIT,),
        also=(api.JOB_SHOW,),
    ),
    Command(
        "tarball get",
        api.TARBALL_GET,
        act=get_tarball,
        about="Download a tarball; checks its digest.",
        hidden=frozenset({"offset"}),
        spelled=TARBALL,
        extra=(Flag(("-o", "--output"), "Where to write it (TARBALL.tar here).", {"metavar": "FILE"}),),
    ),
    Command("tarball delete", api.TARBALL_DELETE, show=show_deleted, many=True, spelled=TARBALL),
    Command(
        "images", api.IMAGES, show=shown_now(view.image_lines), spelled={"node": Spelling(flag="n", complete="node")}
    ),
    Command(
        "sync",
        api.SYNC,
        act=sync,
        about="Bring an environment to nodes before a task needs it.",
        spelled=ENVIRONMENT | {"nodes": Spelling("node", flag="n", metavar="NODE", complete="node")},
        extra=(NO_WAIT,),
        also=(api.SYNC_SHOW,),
        more=SYNC_MORE,
    ),
    Command("jobs", api.JOB_LIST, show=shown_now(view.job_lines)),
)
