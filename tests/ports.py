"""Ports for programs that must be told theirs before they start."""

import random
import socket

BELOW_THE_KERNELS = range(20_000, 30_000)  # it gives ports from 32768 on to whoever asks for any


def free_port() -> int:
    """A port of loopback that nobody has, and that no test gets a second time while our process lives."""
    for port in random.SystemRandom().sample(BELOW_THE_KERNELS, len(BELOW_THE_KERNELS)):
        with socket.socket(socket.AF_UNIX) as claim, socket.socket() as probe:
            try:
                claim.bind(f"\0kohakuriver-tests-have-port-{port}")
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            claim.detach()  # the kernel closes it when we end, however we end
            return port
    raise AssertionError("every port is in use")
