"""`kohakuriver host tls`: makes the host's certificate from a CA of its own, and tells by what it is known."""

import platform
import sys
from pathlib import Path

from kohakuriver.client.complaints import Parser
from kohakuriver.host.console import identity_of
from kohakuriver.model.errors import Conflict, NotFound
from kohakuriver.model.settings import HostSettings
from kohakuriver.programs.as_service import as_the_service
from kohakuriver.programs.setting_flags import add_flags, load_from
from kohakuriver.system.addresses import own_addresses
from kohakuriver.system.identity import Identity

ANY_ADDRESS = ("", "0.0.0.0", "::")


def run(arguments: list[str]) -> int:
    """Make the certificate anew (`init`), or only tell the fingerprint (`show`)."""
    parser = Parser(
        "kohakuriver host tls", "kohakuriver host tls [OPTIONS] init|show", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("what", choices=["init", "show"], help="init keeps the CA if there is one, and renews the rest")
    parser.add_argument("--name", action="append", default=[], metavar="NAME", help="a name or address of this host")
    add_flags(parser, "host")
    asked = parser.parse_args(arguments)
    start = as_the_service("host", asked)
    settings = load_from("host", asked).settings
    assert isinstance(settings, HostSettings)
    if asked.what == "show":
        identity = identity_of(settings)
        if identity is None:
            raise NotFound("this host has no certificate: `kohakuriver host tls init` makes one")
        print(identity.ca_fingerprint)
        return 0
    if settings.tls_cert_file:
        raise Conflict(f"TLS_CERT_FILE is set to {settings.tls_cert_file}, so the host would not use another one")
    _init(settings, asked.name, start)
    return 0


def _init(settings: HostSettings, more_names: list[str], start: str) -> None:
    from kohakuriver.system.certificates import make_identity  # heavy

    names = [*names_of(settings), *more_names]
    made = make_identity(Path(settings.state_dir).expanduser(), names)
    for line in told(made, names, start):
        print(line, file=sys.stderr)
    print(made.ca_fingerprint)


def names_of(settings: HostSettings) -> list[str]:
    """By what a host is called, as far as it can be known on its own machine."""
    machine = platform.node().lower()
    bound = [] if settings.host_bind_ip in ANY_ADDRESS else [settings.host_bind_ip]
    told = [settings.host_reachable_address, *settings.allowed_hosts]
    found = ["localhost", "127.0.0.1", "::1", machine, machine.partition(".")[0], *bound, *told, *own_addresses()]
    return list(dict.fromkeys(name for name in found if name))


def told(made: Identity, names: list[str], start: str) -> list[str]:
    """What a person must know and do next."""
    return [
        f"kohakuriver: {made.certificate_file} is for {', '.join(names)}; for more: --name",
        f"kohakuriver: now restart the host: {start}",
        "kohakuriver: people log in with: kohakuriver auth login --host HOST --ca-fingerprint FINGERPRINT (below)",
        "kohakuriver: nodes join again, with a token made after the restart",
    ]
