"""The part of the host's table about the overlay: its state, and addresses reserved in it."""

from dataclasses import dataclass, field

from kohakuriver.model.access import Role
from kohakuriver.model.fields import Bounds, declare
from kohakuriver.model.overlay_part import IPV4_OR_NONE
from kohakuriver.model.report import NAME
from kohakuriver.model.route import Route, table_of
from kohakuriver.model.runner_api import Nothing

TOKEN = Bounds(length=1024, shortest=1, pattern=r"[A-Za-z0-9_=.-]*")
DEFAULT_TTL_SECONDS, LEAST_TTL_SECONDS, MOST_TTL_SECONDS = 300, 60, 1800


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayRunner:
    """One runner's part of the overlay; `trouble` says why containers there cannot use it."""

    hostname: str
    number: int
    subnet: str
    gateway: str
    host_address: str
    machine: str
    device: str
    active: bool
    ready: bool
    trouble: str
    addresses_used: int
    healed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayStatus:
    """The overlay; `trouble` says what is wrong on the host's own machine."""

    enabled: bool
    topology: str
    network: str
    host_address: str
    mtu: int
    runners_most: int
    trouble: str
    healed: int
    runners: list[OverlayRunner]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerName:
    runner: str = declare("The node.", bounds=NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """The runners whose parts are free again."""

    runners: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class WhichRunner:
    runner: str | None = declare("Only of this node.", default=None, bounds=NAME)
    limit: int = declare("At most so many addresses.", default=20, bounds=Bounds(least=1, most=1000))


@dataclass(frozen=True, slots=True, kw_only=True)
class AvailableAddresses:
    """How many addresses of a node are free, and the first of them."""

    runner: str
    free: int
    addresses: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """An address held for a task to come, or in use by one; times are UTC RFC 3339."""

    ip: str
    runner: str
    owner: str
    task_id: str | None
    expires_at: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationStats:
    """Addresses by what they are held for, and free ones."""

    reserved: int
    in_use: int
    free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressInfo:
    """One node's addresses."""

    runner: str
    subnet: str
    gateway: str
    capacity: int
    free: int
    reserved: int
    in_use: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """Hold an address: this one, or any of a node."""

    runner: str | None = declare("On which node.", default=None, bounds=NAME)
    ip: str | None = declare("Which address; without it any.", default=None, bounds=IPV4_OR_NONE)
    ttl_seconds: int = declare(
        "How long it is held for a task.",
        default=DEFAULT_TTL_SECONDS,
        bounds=Bounds(least=LEAST_TTL_SECONDS, most=MOST_TTL_SECONDS),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """An address held, and the token by which a task claims it."""

    ip: str
    runner: str
    token: str
    expires_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationToken:
    token: str = declare("What reserving gave.", bounds=TOKEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """Whether a token is good for a task of the caller's, and if not, why."""

    valid: bool
    ip: str = ""
    runner: str = ""
    reason: str = ""


R, V = Role, "/api/overlay"
OVERLAY_STATUS = Route("overlay.status", "GET", V + "/status", Nothing, OverlayStatus, R.VIEWER, "The overlay network.")
OVERLAY_RELEASE = Route(
    "overlay.release",
    "POST",
    V + "/release/{runner}",
    RunnerName,
    Released,
    R.ADMIN,
    "Take back the part of a silent node.",
)
OVERLAY_CLEANUP = Route(
    "overlay.cleanup", "POST", V + "/cleanup", Nothing, Released, R.ADMIN, "Take back the parts of all silent nodes."
)
IP_AVAILABLE = Route(
    "overlay.ip.available",
    "GET",
    V + "/ip/available",
    WhichRunner,
    list[AvailableAddresses],
    R.VIEWER,
    "Free addresses.",
)
IP_RESERVATIONS = Route(
    "overlay.ip.reservations", "GET", V + "/ip/reservations", Nothing, list[Reservation], R.VIEWER, "Addresses held."
)
IP_STATS = Route("overlay.ip.stats", "GET", V + "/ip/stats", Nothing, ReservationStats, R.VIEWER, "Addresses, counted.")
IP_INFO = Route(
    "overlay.ip.info", "GET", V + "/ip/info/{runner}", RunnerName, AddressInfo, R.VIEWER, "The addresses of one node."
)
IP_RESERVE = Route("overlay.ip.reserve", "POST", V + "/ip/reserve", Reserve, Reserved, R.USER, "Hold an address.")
IP_RELEASE = Route(
    "overlay.ip.release", "POST", V + "/ip/release", ReservationToken, Nothing, R.USER, "Let a held address go."
)
IP_VALIDATE = Route(
    "overlay.ip.validate",
    "POST",
    V + "/ip/validate",
    ReservationToken,
    Validity,
    R.USER,
    "Whether a token is still good.",
)

ROUTES = table_of(globals())
