"""The certificate that a server shows, made here or brought along, and the fingerprint by which others know it."""

import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path

from kohakuriver.model.errors import BadRequest, NotAllowed, NotFound
from kohakuriver.system.secrets import read_private

FOLDER = "tls"
CA_FILE, CA_KEY_FILE, CERTIFICATE_FILE, KEY_FILE = "ca.crt", "ca.key", "host.crt", "host.key"
MOST_BYTES = 100_000
BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Identity:
    """What a server shows; `ca_pem` is what others pin, fingerprints are SHA-256 in hex."""

    certificate_file: Path
    key_file: Path
    ca_pem: str
    own_fingerprint: str

    @property
    def ca_fingerprint(self) -> str:
        return fingerprint_of(self.ca_pem)

    def context(self) -> ssl.SSLContext:
        """For a server; raises NotAllowed when certificate and key are not usable. May block."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        read_private(self.key_file, MOST_BYTES)  # refuses one that others could read
        try:
            made.load_cert_chain(self.certificate_file, self.key_file)
        except (OSError, ValueError) as wrong:
            raise NotAllowed(f"{self.certificate_file} and {self.key_file} cannot be used: {wrong}") from None
        return made


def find_identity(state_dir: Path, certificate_file: str = "", key_file: str = "") -> Identity | None:
    """The certificate that was brought along, else the one made here, None when there is neither. May block.

    Raises NotFound or NotAllowed when the one brought along is not there or cannot be read.
    """
    if bool(certificate_file) != bool(key_file):
        raise BadRequest("TLS_CERT_FILE and TLS_KEY_FILE belong together: give both or neither")
    if certificate_file:
        chain = _certificates_in(Path(certificate_file).expanduser())
        return Identity(
            Path(certificate_file).expanduser(), Path(key_file).expanduser(), chain[-1], fingerprint_of(chain[0])
        )
    folder = state_dir / FOLDER
    if not (folder / CERTIFICATE_FILE).exists():
        return None
    (ca_pem,) = _certificates_in(folder / CA_FILE)
    own = _certificates_in(folder / CERTIFICATE_FILE)[0]
    return Identity(folder / CERTIFICATE_FILE, folder / KEY_FILE, ca_pem, fingerprint_of(own))


def fingerprint_of(pem: str) -> str:
    """SHA-256 of one certificate, in hex; raises NotAllowed for what is none."""
    try:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    except ValueError:
        raise NotAllowed("that is not a certificate (PEM)") from None


def _certificates_in(path: Path) -> list[str]:
    try:
        text = path.read_text("ascii")
    except FileNotFoundError:
        raise NotFound(f"{path}: there is no such certificate") from None
    except (OSError, UnicodeDecodeError) as wrong:
        raise NotAllowed(f"{path}: {wrong}") from None
    found = [f"{BEGIN}{part.partition(END)[0]}{END}\n" for part in text.split(BEGIN)[1:]]
    if not found:
        raise NotAllowed(f"{path} holds no certificate (PEM)")
    return found
