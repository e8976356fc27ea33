"""Knows a host by the fingerprint of its CA: fetches the CA once, believes it only when the fingerprint is right."""

import hashlib
import http.client
import json
import ssl

from kohakuriver.model.errors import BadRequest, HostUnreachable, NotAllowed

CA_PATH = "/api/tls/ca"
MOST_BYTES = 100_000
TIMEOUT_SECONDS = 10.0


def context_for(ca_pem: str) -> ssl.SSLContext:
    """Trusts hosts whose certificate comes from this CA and is for the name they are called by; empty: any known CA."""
    if not ca_pem:
        return ssl.create_default_context()
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # what is pinned may be in the middle of a chain
    try:
        made.load_verify_locations(cadata=ca_pem)
    except ssl.SSLError:
        raise NotAllowed("that is not a CA's certificate (PEM)") from None
    return made


def parse_fingerprint(text: str) -> str:
    """SHA-256 in hex, as people write it: with colons or without, with `sha256:` before it or not."""
    plain = text.strip().lower().removeprefix("sha256:").replace(":", "")
    if len(plain) != 64 or not all(c in "0123456789abcdef" for c in plain):
        raise BadRequest("--ca-fingerprint: not a SHA-256 fingerprint (64 hex digits)")
    return plain


def fetch_ca(host: str, port: int, fingerprint: str) -> str:
    """The CA of the host there (PEM); raises NotAllowed when it is not the one with that fingerprint.

    Nothing is believed before the fingerprint is compared, so it does not matter who is asked. Blocks.
    """
    unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
    where = f"{host}:{port}"
    connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_SECONDS, context=unchecked)
    try:
        connection.request("GET", CA_PATH)
        text = connection.getresponse().read(MOST_BYTES).decode("ascii", "replace")
    except ssl.SSLError:
        raise HostUnreachable(f"{where} does not speak TLS") from None
    except (OSError, http.client.HTTPException) as broken:
        raise HostUnreachable(f"no host at {where} ({broken})") from None
    finally:
        connection.close()
    try:
        found = hashlib.sha256(ssl.PEM_cert_to_DER_cert(text)).hexdigest()
    except ValueError:
        raise NotAllowed(f"{where} shows no CA: {_short(text)}") from None
    if found != fingerprint:
        raise NotAllowed(
            f"{where} is not the host that was meant: its CA has the fingerprint {found[:16]}…, not {fingerprint[:16]}… "
            "(or somebody stands between)"
        )
    return text


def _short(text: str) -> str:
    return json.dumps(text[:60])
