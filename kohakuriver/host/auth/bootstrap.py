"""How the first admin comes in: by a secret of the configuration, or by one that the first start writes into a file."""

import hmac
import logging
from dataclasses import dataclass
from pathlib import Path

from kohakuriver.host.auth.credentials import digest_of
from kohakuriver.model.settings import HostSettings
from kohakuriver.system.secrets import make_secret

log = logging.getLogger(__name__)
FILE_NAME = "first_admin_secret"
MASTER = "master"  # whoever has ADMIN_SECRET; no account can have this name


@dataclass(slots=True)
class Bootstrap:
    """Digests of the secrets; `registers` is empty as soon as anybody has an account."""

    masters: bytes = b""
    registers: bytes = b""
    file: Path | None = None

    @property
    def waits(self) -> bool:
        """Whether the first admin is still to come."""
        return bool(self.registers)

    def is_master(self, text: str) -> bool:
        """Whether it is ADMIN_SECRET; in a time that tells nothing."""
        return hmac.compare_digest(digest_of(text), self.masters or bytes(64)) and bool(self.masters)

    def lets_register(self, text: str) -> bool:
        """Whether it is the secret of the first admin; in a time that tells nothing."""
        return hmac.compare_digest(digest_of(text), self.registers or bytes(64)) and bool(self.registers)

    def close(self) -> None:
        """Somebody has an account now: the secret is void. May block."""
        self.registers = b""
        if self.file is not None:
            self.file.unlink(missing_ok=True)


def prepare(settings: HostSettings, state_dir: Path, has_users: bool) -> Bootstrap:
    """The secrets of this host; makes the file when nothing else could let anybody in. May block."""
    made = Bootstrap(digest_of(settings.admin_secret) if settings.admin_secret else b"", file=state_dir / FILE_NAME)
    if has_users or not settings.auth_enabled:
        made.close()
    elif settings.admin_register_secret:
        made.registers = digest_of(settings.admin_register_secret)
    elif not settings.admin_secret:
        assert made.file is not None
        made.registers = digest_of(make_secret(made.file).hex())
        log.warning("nobody has an account yet; the secret for the first admin is in file=%s", made.file)
    return made
