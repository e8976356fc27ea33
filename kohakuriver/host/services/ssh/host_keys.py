"""The keys by which the host proves itself over SSH: made once, kept in files that only it can read."""

from dataclasses import dataclass
from pathlib import Path

import asyncssh

from kohakuriver.model.errors import NotAllowed
from kohakuriver.model.public_key import fingerprint_of
from kohakuriver.model.ssh_api import HostKey
from kohakuriver.system.secrets import read_private, write_private

FOLDER = "ssh"
MOST_BYTES = 10_000
RSA_BITS = 3072
RSA_SIGNATURES = (b"rsa-sha2-512", b"rsa-sha2-256")  # asyncssh would offer SHA-1 and six more


@dataclass(frozen=True, slots=True)
class HostKeys:
    """The two keys of the port, and the authority that vouches for the first wherever it stands for a workload."""

    ed25519: asyncssh.SSHKey
    rsa: asyncssh.SSHKey
    authority: asyncssh.SSHKey

    @property
    def shown(self) -> list[HostKey]:
        """The public halves of the port's keys."""
        return [shown(self.ed25519), shown(self.rsa)]

    @property
    def of_workloads(self) -> HostKey:
        """The public half of the authority."""
        return shown(self.authority)

    @property
    def of_port(self) -> list[asyncssh.SSHKeyPair]:
        """What the port proves itself with."""
        ed25519, rsa = asyncssh.load_keypairs([self.ed25519, self.rsa])
        rsa.host_key_algorithms = RSA_SIGNATURES
        return [ed25519, rsa]

    def certificate(self, names: tuple[str, ...]) -> asyncssh.SSHCertificate:
        """Says that the first key speaks for the workload that has these names."""
        return self.authority.generate_host_certificate(self.ed25519, "kohakuriver", principals=names)


def shown(key: asyncssh.SSHKey) -> HostKey:
    """The public half of a key."""
    text = " ".join(key.export_public_key().decode().split()[:2])
    return HostKey(public_key=text, fingerprint=fingerprint_of(key.public_data))


def host_keys(state_dir: Path) -> HostKeys:
    """The keys in the state directory, made where one is missing; raises NotAllowed, OSError. May take a second."""
    folder = state_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return HostKeys(
        ed25519=_key(folder / "host_ed25519_key", "ssh-ed25519"),
        rsa=_key(folder / "host_rsa_key", "ssh-rsa"),
        authority=_key(folder / "workloads_ed25519_key", "ssh-ed25519"),
    )


def _key(path: Path, algorithm: str) -> asyncssh.SSHKey:
    if not path.exists():
        size = {"key_size": RSA_BITS} if algorithm == "ssh-rsa" else {}
        made = asyncssh.generate_private_key(algorithm, comment="kohakuriver", **size)
        write_private(path, made.export_private_key())
    try:
        key = asyncssh.import_private_key(read_private(path, MOST_BYTES))
    except asyncssh.KeyImportError as wrong:
        raise NotAllowed(f"{path} is no SSH key ({wrong}): put the one from your backup there") from None
    if key.get_algorithm() != algorithm:
        raise NotAllowed(f"{path} holds a key of the kind {key.get_algorithm()}, not {algorithm}")
    return key
