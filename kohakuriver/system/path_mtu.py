"""Whether packets of a size reach another machine whole: asked by echo requests that nobody may cut (RFC 792, RFC 791)."""

import errno
import os
import socket
import struct
import time

ECHO_REQUEST, ECHO_REPLY = 8, 0
HEADERS_BYTES = 28  # IPv4 and ICMP
IP_MTU_DISCOVER, IP_PMTUDISC_PROBE = 10, 3  # of linux/in.h: forbid cutting, and ask the way anew
TRIES, ANSWER_SECONDS = 2, 0.5


def carries(machine: str, packet_bytes: int) -> bool | None:
    """Whether such packets arrive; None when the machine answers no echo at all. Blocks for up to two seconds.

    Raises OSError when this program may not ask.
    """
    if _answers(machine, packet_bytes):
        return True
    return False if _answers(machine, HEADERS_BYTES) else None


def _answers(machine: str, packet_bytes: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as asker:
        asker.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
        number = os.getpid() & 0xFFFF
        for sequence in range(TRIES):
            try:
                asker.sendto(_request(number, sequence, packet_bytes - HEADERS_BYTES), (machine, 0))
            except OSError as refused:
                if refused.errno in (errno.EMSGSIZE, errno.EHOSTUNREACH, errno.ENETUNREACH):
                    return False
                raise
            if _await_reply(asker, machine, number):
                return True
    return False


def _await_reply(asker: socket.socket, machine: str, number: int) -> bool:
    deadline = time.monotonic() + ANSWER_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        asker.settimeout(left)
        try:
            packet, (sender, _) = asker.recvfrom(1 << 16)
        except TimeoutError:
            return False
        header_bytes = (packet[0] & 0xF) * 4
        kind, _, _, answered = struct.unpack_from("!BBHH", packet, header_bytes)
        if (kind, sender, answered) == (ECHO_REPLY, machine, number):
            return True
    return False


def _request(number: int, sequence: int, payload_bytes: int) -> bytes:
    body = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, number, sequence) + bytes(payload_bytes)
    return body[:2] + struct.pack("!H", _checksum(body)) + body[4:]


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    padded = data + bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
