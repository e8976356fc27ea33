"""The trail of who did what: page by page, and whole as JSON lines."""

from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial

from kohakuriver.host.state import Host
from kohakuriver.host.store import audit
from kohakuriver.host.store.audit import Deed
from kohakuriver.model import auth_api as api
from kohakuriver.model import codec
from kohakuriver.model.access import Caller
from kohakuriver.model.errors import StoreUnavailable
from kohakuriver.wire.serve import Streamed, on, on_stream

EXPORT_ROWS = 1000


async def read_trail(host: Host, caller: Caller, asked: api.ReadTrail) -> list[api.AuditEntry]:
    with suppress(StoreUnavailable):  # a full disk must not keep anybody from reading
        await host.auth.notes.write()
    return await host.db.read(lambda tx: audit.page(tx, asked))


async def export_trail(host: Host, caller: Caller, asked: api.ExportTrail) -> Streamed:
    """The export is itself a deed, and the last line of what it gives."""
    host.auth.notes.add(caller, Deed("audit.export"))
    with suppress(StoreUnavailable):
        await host.auth.notes.write()
    return Streamed(_lines(host, asked), {"Content-Type": "application/x-ndjson"})


async def _lines(host: Host, asked: api.ExportTrail) -> AsyncIterator[bytes]:
    after = 0
    while entries := await host.db.read(partial(audit.export, asked=asked, after=after, limit=EXPORT_ROWS)):
        after = entries[-1].entry_id
        yield "".join(codec.encode_text(entry) + "\n" for entry in entries).encode()


ANSWERS = [on(api.TRAIL, read_trail), on_stream(api.TRAIL_EXPORT, export_trail)]
