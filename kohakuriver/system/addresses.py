"""The addresses of this machine, as its own name and its ways to others tell them."""

import socket

AWAY = (("192.0.2.1", socket.AF_INET), ("2001:db8::1", socket.AF_INET6))  # nobody's: RFC 5737 and RFC 3849


def address_towards(machine: str) -> str:
    """The own address on the way to another machine; empty text when there is no way. Sends nothing."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((machine, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return ""


def own_addresses() -> list[str]:
    """Addresses of this machine without its loopback; a connected UDP socket tells one and sends nothing. May block."""
    found = []
    for address, family in AWAY:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((address, 9))
                found.append(str(probe.getsockname()[0]))
        except OSError:
            continue
    try:
        found += [str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_DGRAM)]
    except OSError:
        pass
    return [address for address in dict.fromkeys(found) if not address.startswith(("127.", "::1", "fe80"))]
