"""Makes a CA and a certificate from it for the host of a cluster: keys on the curve P-256, X.509 as in RFC 5280."""

import datetime
import ipaddress
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from kohakuriver.model.errors import BadRequest
from kohakuriver.system.identity import (
    CA_FILE,
    CA_KEY_FILE,
    CERTIFICATE_FILE,
    FOLDER,
    KEY_FILE,
    MOST_BYTES,
    Identity,
    find_identity,
)
from kohakuriver.system.secrets import read_private, write_private

CA_DAYS, CERTIFICATE_DAYS = 7300, 1825


def make_identity(state_dir: Path, names: Iterable[str]) -> Identity:
    """A certificate for these names and addresses, from the CA that is there or else a new one. May block."""
    folder = state_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (folder / CA_FILE).exists():
        _make_ca(folder)
    _issue(folder, tuple(dict.fromkeys(names)))
    made = find_identity(state_dir)
    assert made is not None
    return made


def _make_ca(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("KohakuRiver CA")
    usage = _usage(key_cert_sign=True)
    made = (
        _builder(CA_DAYS)
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_private(folder / CA_KEY_FILE, _private_pem(key))
    write_private(folder / CA_FILE, _pem(made))


def _issue(folder: Path, names: tuple[str, ...]) -> None:
    ca_key = load_pem_private_key(read_private(folder / CA_KEY_FILE, MOST_BYTES), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    ca = x509.load_pem_x509_certificate((folder / CA_FILE).read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    made = (
        _builder(CERTIFICATE_DAYS)
        .subject_name(_name("KohakuRiver host"))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    write_private(folder / KEY_FILE, _private_pem(key))
    write_private(folder / CERTIFICATE_FILE, _pem(made))


def _builder(days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks of others may be behind
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError:
        raise BadRequest(f"{name[:60]!r} is not a name or an address that a certificate can be for") from None


def _usage(**used: bool) -> x509.KeyUsage:
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign "
        "encipher_only decipher_only"
    )
    return x509.KeyUsage(**{name: used.get(name, False) for name in every.split()})


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)
