"""The images of this node: which there are, and bringing one before a workload needs it."""

from kohakuriver.model import runner_api
from kohakuriver.model.access import Caller
from kohakuriver.model.image import TARBALL_LABEL, NodeImage, SyncState, environment_of, image_name
from kohakuriver.model.runner_api import Nothing, SyncImage, WhichSync
from kohakuriver.runner.image_garbage import pins_of
from kohakuriver.runner.state import Runner
from kohakuriver.system.image_hands import SeenImage
from kohakuriver.wire.serve import on


async def images(runner: Runner, caller: Caller, asked: Nothing) -> list[NodeImage]:
    hands = runner.bench.engine.images
    return [_told(runner, seen) for seen in await hands.all()] if hands else []


async def sync(runner: Runner, caller: Caller, asked: SyncImage) -> SyncState:
    return await runner.bench.images.sync(asked.tarball)


async def sync_state(runner: Runner, caller: Caller, asked: WhichSync) -> SyncState:
    return await runner.bench.images.look(asked.stem, image_name(environment_of(asked.stem)[0]))


def _told(runner: Runner, seen: SeenImage) -> NodeImage:
    return NodeImage(
        image_id=seen.id,
        names=list(seen.names),
        size_bytes=seen.size_bytes,
        created_at=seen.created_at,
        tarball=seen.labels.get(TARBALL_LABEL, ""),
        ours=seen.id in runner.bench.images.ledger.brought,
        pinned=pins_of(runner.settings).hold(seen.names),
        in_use=seen.containers > 0,
    )


ANSWERS = [on(runner_api.IMAGES, images), on(runner_api.SYNC, sync), on(runner_api.SYNC_SHOW, sync_state)]
