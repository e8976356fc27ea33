"""Which host this runner belongs to: where it is, and the key that both sign with; agreed by joining, kept in a file."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from kohakuriver.model import codec
from kohakuriver.model.errors import BadRequest, NotAllowed, NotFound
from kohakuriver.model.fields import Bounds, declare
from kohakuriver.model.settings import RunnerSettings
from kohakuriver.runner.node_name import hostname_of
from kohakuriver.system.identity import Identity, find_identity
from kohakuriver.system.secrets import UnsafeFile, load_secret, read_private, write_private

FILE_NAME = "host_key"
THIS_MACHINE = "127.0.0.1"
MOST_BYTES = 100_000
NOBODYS = (
    "this runner has not joined any host (`kohakuriver runner join HOST TOKEN`), and {path}: there is no cluster "
    "secret; copy it from the host (mode 0600) if that is how you sign"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What joining agreed on; `key` is in hex, `ca_pem` empty when the host does not speak TLS.

    `coming` (hex) is the key that is to follow, while that is being agreed on.
    """

    cluster_id: str
    hostname: str
    host: str
    port: int
    key: str = field(repr=False)
    coming: str = field(default="", repr=False)
    ca_pem: str = declare("The CA by which the host is known.", default="", bounds=Bounds(length=MOST_BYTES))


@dataclass(frozen=True, slots=True)
class Belonging:
    """To whom a runner belongs; `settings` are its own with the host's address filled in.

    Where the host speaks TLS the runner does, too: `identity` is what it shows, and the host is told its fingerprint.
    """

    settings: RunnerSettings
    key: bytes = field(repr=False)
    coming: bytes | None = field(default=None, repr=False)
    ca_pem: str = ""
    identity: Identity | None = None


def file_of(settings: RunnerSettings) -> Path:
    """Where it is kept."""
    return Path(settings.state_dir).expanduser() / FILE_NAME


def find(settings: RunnerSettings) -> Membership | None:
    """What was agreed, if this runner has ever joined; raises NotAllowed for a file that others could have read."""
    path = file_of(settings)
    try:
        return codec.decode(Membership, codec.loads(read_private(path, MOST_BYTES)), strict=False)
    except FileNotFoundError:
        return None
    except BadRequest as wrong:
        raise NotAllowed(f"{path} is not what `kohakuriver runner join` writes ({wrong}): join again") from None


def keep(settings: RunnerSettings, membership: Membership) -> Path:
    """Write it down for the next start; returns where."""
    path = file_of(settings)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(path, (codec.encode_text(membership) + "\n").encode())
    return path


def belonging(settings: RunnerSettings) -> Belonging:
    """The host of this runner and the key for it; raises NotFound or NotAllowed when there is none."""
    known = find(settings)
    if known is None:
        return Belonging(replace(settings, host_address=settings.host_address or THIS_MACHINE), _shared(settings))
    name = hostname_of(settings)
    if known.hostname != name:
        raise NotAllowed(f"this runner joined as {known.hostname}, and is called {name} now: join again")
    where = settings
    if not settings.host_address:
        where = replace(settings, host_address=known.host, host_port=known.port)
    identity = _own_identity(Path(settings.state_dir).expanduser(), name) if known.ca_pem else None
    return Belonging(where, bytes.fromhex(known.key), bytes.fromhex(known.coming) or None, known.ca_pem, identity)


def _own_identity(state_dir: Path, name: str) -> Identity:
    """The runner's own certificate, made at the first need; the host knows it by its fingerprint, not by a CA."""
    found = find_identity(state_dir)
    if found is None:
        from kohakuriver.system.certificates import make_identity  # heavy

        found = make_identity(state_dir, [name])
    return found


def _shared(settings: RunnerSettings) -> bytes:
    path = Path(settings.cluster_secret_file).expanduser()
    try:
        return load_secret(path)
    except FileNotFoundError:
        raise NotFound(NOBODYS.format(path=path)) from None
    except UnsafeFile as unsafe:
        raise NotAllowed(str(unsafe)) from None
