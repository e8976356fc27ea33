"""The part of the host's table that is about environments, their tarballs and the images of nodes."""

from dataclasses import dataclass, replace
from enum import StrEnum

from kohakuriver.model.access import Ownership, Role
from kohakuriver.model.codec import Snowflake
from kohakuriver.model.fields import ENVIRONMENT, Bounds, declare
from kohakuriver.model.image import DIGEST, ENVIRONMENT_NAME, STEM, NodeImage, SyncState, Tarball
from kohakuriver.model.report import NAME
from kohakuriver.model.route import ByteStream, Channel, Route, channels_of, table_of
from kohakuriver.model.runner_api import Nothing
from kohakuriver.model.stream_api import SESSION, SHELL, SIZE
from kohakuriver.model.task import IMAGE, REGISTRY_LOGIN

WHICH = Bounds(length=80, shortest=1, pattern=ENVIRONMENT + r"(-[0-9]{9,12})?")
TARBALL_HEADER = "X-Kohakuriver-Tarball"  # of a download: stem, size in bytes and SHA-256, with spaces between


class JobKind(StrEnum):
    """What takes long on the host."""

    CREATE = "create"
    TARBALL = "tarball"


class JobState(StrEnum):
    """Where a job stands; one that was under way when the host died is done again from its beginning."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Long work of the host about one environment; `message` says how far it is, or why it failed."""

    job_id: Snowflake
    kind: JobKind
    environment: str
    source: str = ""
    state: JobState = JobState.WAITING
    message: str = ""
    done_bytes: int = 0
    total_bytes: int = 0
    created_by: str
    created_at: str
    ended_at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobId:
    job_id: Snowflake = declare("The job.")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentName:
    name: str = declare("The environment.", bounds=ENVIRONMENT_NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateEnvironment:
    """A new environment, of an image (of a registry, or one that the host has) or of a tarball that lies ready."""

    name: str = declare("Its name.", bounds=ENVIRONMENT_NAME)
    image: str | None = declare(
        "Image to begin with.", default=None, bounds=Bounds(length=255, pattern=IMAGE, not_with="tarball")
    )
    tarball: str | None = declare(
        "Tarball to begin with, NAME-SECONDS, instead of an image.",
        default=None,
        bounds=Bounds(length=80, pattern=STEM),
    )
    registry_login: str | None = declare(
        "USER:PASSWORD for the pull of the image; forgotten when it is there.",
        default=None,
        bounds=replace(REGISTRY_LOGIN, not_with="tarball"),
    )

    def __post_init__(self) -> None:
        if self.image is not None and self.tarball is not None:
            raise ValueError("image: give an image or a tarball, not both")
        if self.tarball is not None and self.registry_login is not None:
            raise ValueError("registry_login: a tarball is not pulled from anywhere")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A container on the host in which an environment is prepared; `tarball` is what nodes get, empty: nothing yet."""

    name: str
    image: str
    status: str
    created_at: str
    tarball: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhichTarball:
    name: str = declare("The tarball, or an environment: its newest one.", bounds=WHICH)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadTarball:
    """Which bytes; the offset stands in the query, because that is what a signature covers."""

    name: str = declare("The tarball, or an environment: its newest one.", bounds=WHICH)
    offset: int = declare("First byte to read.", default=0, bounds=Bounds(least=0))


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchTarball:
    """A runner asks for the tarball that it was told of; one of other bytes is not given."""

    hostname: str = declare("The node.", bounds=NAME)
    stem: str = declare("The tarball.", bounds=Bounds(length=80, pattern=STEM))
    digest: str = declare("Its SHA-256, in hex.", bounds=Bounds(length=64, pattern=DIGEST))
    offset: int = declare("First byte to read.", default=0, bounds=Bounds(least=0))


@dataclass(frozen=True, slots=True, kw_only=True)
class OnNode:
    node: str | None = declare("Only of this node.", default=None, bounds=NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesOnNode:
    """The images of one node; `error` says why they are not known."""

    node: str
    images: list[NodeImage]
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncEnvironment:
    """Which nodes are to have the newest tarball of an environment."""

    name: str = declare("The environment.", bounds=ENVIRONMENT_NAME)
    nodes: list[str] = declare("Only these nodes; none: all that are online.", default=[], bounds=NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSync:
    """One node on its way to the image."""

    node: str
    tarball: str
    sync: SyncState


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenShell:
    """What a browser asks for; programs say it in their first frame."""

    name: str = declare("The environment.", bounds=ENVIRONMENT_NAME)
    rows: int = declare("Lines of the terminal.", default=24, bounds=SIZE)
    columns: int = declare("Columns of the terminal.", default=80, bounds=SIZE)
    shell: str = declare("Which shell; empty: the first of bash, ash, sh.", default="", bounds=SHELL)
    session: str = declare("A session to take up again.", default="", bounds=SESSION)


R, O, D = Role, Ownership, "/api/docker"
ENV_LIST = Route("docker.env.list", "GET", D + "/environments", Nothing, list[Environment], R.VIEWER, "Environments.")
ENV_CREATE = Route(
    "docker.env.create",
    "POST",
    D + "/environments",
    CreateEnvironment,
    Job,
    R.OPERATOR,
    "Make an environment.",
    success=202,
)
ENV_START = Route(
    "docker.env.start",
    "POST",
    D + "/environments/{name}/start",
    EnvironmentName,
    Environment,
    R.OPERATOR,
    "Start it.",
)
ENV_STOP = Route(
    "docker.env.stop",
    "POST",
    D + "/environments/{name}/stop",
    EnvironmentName,
    Environment,
    R.OPERATOR,
    "Stop it.",
)
ENV_DELETE = Route(
    "docker.env.delete",
    "DELETE",
    D + "/environments/{name}",
    EnvironmentName,
    Nothing,
    R.OPERATOR,
    "Delete the container of an environment; its tarballs stay.",
)
JOB_LIST = Route(
    "docker.job.list", "GET", D + "/jobs", Nothing, list[Job], R.VIEWER, "The host's latest long work, newest first."
)
JOB_SHOW = Route("docker.job.show", "GET", D + "/jobs/{job_id}", JobId, Job, R.OPERATOR, "How far one job is.")

TARBALL_LIST = Route(
    "docker.tarball.list", "GET", D + "/tarballs", Nothing, list[Tarball], R.VIEWER, "Tarballs, newest first."
)
TARBALL_CREATE = Route(
    "docker.tarball.create",
    "POST",
    D + "/tarballs/{name}",
    EnvironmentName,
    Job,
    R.OPERATOR,
    "Make an environment as it is now into a tarball, which nodes then use.",
    success=202,
)
TARBALL_GET = Route(
    "docker.tarball.get", "GET", D + "/tarballs/{name}", ReadTarball, ByteStream, R.OPERATOR, "Its bytes.", ranged=True
)
TARBALL_DELETE = Route(
    "docker.tarball.delete",
    "DELETE",
    D + "/tarballs/{name}",
    WhichTarball,
    Tarball,
    R.OPERATOR,
    "Delete a tarball; tells which it was.",
)
TARBALL_FETCH = Route(
    "docker.tarball.fetch",
    "GET",
    "/api/nodes/{hostname}/tarballs/{stem}",
    FetchTarball,
    ByteStream,
    R.NODE,
    "A runner fetches a tarball.",
    O.NODE,
)

IMAGES = Route(
    "docker.images", "GET", D + "/images", OnNode, list[ImagesOnNode], R.VIEWER, "The images that nodes have."
)
SYNC = Route(
    "docker.sync",
    "POST",
    D + "/sync/{name}",
    SyncEnvironment,
    list[NodeSync],
    R.OPERATOR,
    "Bring an environment to nodes before a task needs it.",
    success=202,
)
SYNC_SHOW = Route(
    "docker.sync.show", "GET", D + "/sync/{name}", SyncEnvironment, list[NodeSync], R.OPERATOR, "How far nodes are."
)

ENV_TERMINAL = Channel(
    "docker.env.terminal",
    "/ws/environment/{name}/terminal",
    OpenShell,
    R.OPERATOR,
    "A shell or a program in an environment on the host.",
)

ROUTES = table_of(globals())
CHANNELS = channels_of(globals())
