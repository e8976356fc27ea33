"""The addresses of this machine, as far as its own name and its way to others tell them."""

import socket

AWAY = (("192.0.2.1", socket.AF_INET), ("2001:db8::1", socket.AF_INET6))  # nobody's: RFC 5737 and RFC 3849


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
