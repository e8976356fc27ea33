"""The key between host and runner becomes another one."""

from kohakuriver.model import runner_key_api as api
from kohakuriver.model.access import Caller
from kohakuriver.model.runner_api import Nothing
from kohakuriver.runner.state import Runner
from kohakuriver.wire.serve import on


async def offer(runner: Runner, caller: Caller, asked: api.Half) -> api.Half:
    return api.Half(public=await runner.host_keys.offer(asked.public))


async def take(runner: Runner, caller: Caller, asked: api.TakeKey) -> Nothing:
    await runner.host_keys.take(asked.proof)
    return Nothing()


ANSWERS = [on(api.OFFER_KEY, offer), on(api.TAKE_KEY, take)]
