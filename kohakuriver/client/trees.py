"""Whole directories between this machine and a workload, as tars that are made and unpacked while they travel."""

import os
import posixpath
from collections.abc import Callable, Iterator
from typing import Any

from kohakuriver.client.command import Order
from kohakuriver.client.output import safe
from kohakuriver.client.places import Where, asked
from kohakuriver.client.progress import ProgressLine
from kohakuriver.client.transfers import Meter
from kohakuriver.model import files_api as api
from kohakuriver.system.rooted import Owner, Root
from kohakuriver.system.tree_archive import Tally, pack, unpack


def upload_tree(order: Order, local: str, where: Where) -> Any:
    """Put a directory of this machine at a path; the host's answer as plain values."""
    with _root_at(local) as root, ProgressLine(order.notes, order.screen) as line:
        meter = Meter(order, line, posixpath.basename(local.rstrip("/")) or local)
        tar = pack(root, "/", left_out=_teller(order))
        return order.session.upload(*asked(order, where, api.UNPACK), meter.counted(tar))


def download_tree(order: Order, where: Where, local: str) -> Tally:
    """Get a directory as a directory of this machine, which may be there already."""
    os.makedirs(local, exist_ok=True)
    tally = Tally()
    with _root_at(local) as root, ProgressLine(order.notes, order.screen) as line:
        meter = Meter(order, line, posixpath.basename(where.path.rstrip("/")) or where.path)
        with order.session.stream(*asked(order, where, api.PACK)) as stream:
            unpack(root, "/", _reader(meter.counted(stream.chunks())), tally, left_out=_teller(order))
    return tally


def _root_at(local: str) -> Root:
    return Root.at(local, Owner(os.getuid(), os.getgid()), plain=True)


def _teller(order: Order) -> Callable[[str, str], None]:
    return lambda name, target: order.notes.warn(f"left out: {safe(name)}, a link that leads out to {safe(target)}")


def _reader(chunks: Iterator[bytes]) -> Callable[[int], bytes]:
    """Reads exactly as many bytes as asked for, fewer only at the end."""
    left = memoryview(b"")

    def read(count: int) -> bytes:
        nonlocal left
        parts: list[memoryview] = []
        while count:
            if not left:
                left = memoryview(next(chunks, b""))
                if not left:
                    break
            part, left = left[:count], left[count:]
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    return read
