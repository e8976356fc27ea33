"""Whether the runner is well."""

from kohakuriver import __version__
from kohakuriver.model import runner_api
from kohakuriver.model.access import Caller
from kohakuriver.model.runner_api import Nothing, RunnerHealth
from kohakuriver.runner.state import Runner
from kohakuriver.wire.serve import on


async def health(runner: Runner, caller: Caller, asked: Nothing) -> RunnerHealth:
    await runner.store.ping()
    return RunnerHealth(hostname=runner.hostname, version=__version__, cluster_id=runner.bench.cluster.told)


ANSWERS = [on(runner_api.HEALTH, health)]
