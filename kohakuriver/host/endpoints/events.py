"""The feed of what changes, for whoever follows: what he may see of it, and when he has to look at everything anew."""

import asyncio
from dataclasses import dataclass

from kohakuriver.host.services.feed import Feed, Follower, Missed
from kohakuriver.host.state import Host
from kohakuriver.host.store.changes import Change
from kohakuriver.model import codec, events
from kohakuriver.model.access import Caller
from kohakuriver.model.errors import BadRequest
from kohakuriver.model.events import Event, FollowEvents, Type
from kohakuriver.wire.channels import on_channel
from kohakuriver.wire.sockets import Socket, closing_of

SEEN_STRIDE = 1000  # so far may his number lie behind what he was told, for what he may not see


async def follow(host: Host, caller: Caller, asked: FollowEvents, socket: Socket) -> None:
    with host.feed.follower(caller) as follower:
        try:
            await host.feed.begin(follower, asked.since)
            first = Event(type=Type.SEEN, seq=follower.position)
        except Missed as missed:
            first = Event(type=Type.RELOAD, seq=missed.newest)
        await socket.send(codec.encode_text(first))
        await asyncio.gather(Telling(host.feed, follower, asked.object, socket).tell(), _hear(follower, socket))


@dataclass(slots=True)
class Telling:
    """One follower, what he wants to hear of, and where he hears it."""

    feed: Feed
    follower: Follower
    object: str
    socket: Socket

    async def tell(self) -> None:
        """Hand on what he may see until he leaves."""
        told = self.follower.position
        try:
            while not self.follower.gone:
                told = await self._tell_more(told)
        except ConnectionResetError:
            await self.socket.hang_up()

    async def _tell_more(self, told: int) -> int:
        """The next page, or that there is none; the number that he knows then."""
        try:
            page = await self.feed.next(self.follower)
        except Missed as missed:
            await self.socket.send(codec.encode_text(Event(type=Type.RELOAD, seq=missed.newest)))
            return missed.newest
        for change in await self.feed.visible(self.follower.caller, page):
            if is_about(self.object, change):
                await self.socket.send(text_of(change))
                told = change.seq
        if self.follower.position - told >= SEEN_STRIDE:
            told = self.follower.position
            await self.socket.send(codec.encode_text(Event(type=Type.SEEN, seq=told)))
        return told


async def _hear(follower: Follower, socket: Socket) -> None:
    """Notice that he goes; he has nothing to say."""
    if await socket.receive() is not None:
        await socket.close(*closing_of(BadRequest("frame: nothing is said to this socket")))
    follower.leave()


def is_about(wanted: str, change: Change) -> bool:
    """Whether a change is about KIND, or KIND:NAME, or whatever there is."""
    return wanted in ("", change.kind, f"{change.kind}:{change.name}")


def text_of(change: Change) -> str:
    """The message that tells a change: an `Event`, whose entry is JSON already."""
    thing = codec.dumps(f"{change.kind}:{change.name}")
    owner = codec.dumps(change.owner)
    return f'{{"type":"change","seq":{change.seq},"object":{thing},"owner":{owner},"entry":{change.entry}}}'


CHANNELS = [on_channel(events.EVENTS, follow)]
