"""One Docker daemon behind asyncio: the SDK in bounded pools of threads; looks and small acts on the loop itself."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, unique
from typing import Any, TypeVar
from urllib.parse import urlencode

from kohakuriver.model.errors import EngineFailed
from kohakuriver.system.docker_errors import ApiRefused, unreachable
from kohakuriver.system.docker_stream import ask_json, request

T = TypeVar("T")
CLOSE_SECONDS = 10.0
LOOKS_AT_ONCE, ACTS_AT_ONCE = 16, 24
# A start lasts a quarter of a second, and several go on at once. One that was given up may still happen, so none is
# given up while there is hope.
ACT_SECONDS = 600.0


@unique  # equal values would make one pool of two
class Pool(Enum):
    """Which threads a call occupies: how many there are, and for how many seconds the daemon may keep silent."""

    ACTS = (4, 600.0)
    PULLS = (2, 600.0)
    EVENTS = (1, 60.0)
    FILES = (4, 0.0)


class DockerClient:
    """One daemon; `socket` is the path of its unix socket."""

    def __init__(self, socket: str) -> None:
        self.socket = socket
        self._looks = asyncio.Semaphore(LOOKS_AT_ONCE)
        self._acts = asyncio.Semaphore(ACTS_AT_ONCE)
        self._pools: dict[Pool, ThreadPoolExecutor] = {}
        self._apis: dict[Pool, Any] = {}

    async def open(self) -> None:
        """Connect and agree on the API version; raises EngineFailed when the daemon does not answer."""
        if not self._pools:
            self._pools = {pool: ThreadPoolExecutor(pool.value[0], f"docker-{pool.name.lower()}") for pool in Pool}
        if not self._apis:
            self._apis = await self.run(Pool.EVENTS, lambda: _connect(self.socket))

    async def close(self) -> None:
        """Let the calls under way end, with limited patience, and let go."""
        pools, self._pools = list(self._pools.values()), {}
        apis, self._apis = list(self._apis.values()), {}
        ending = [asyncio.to_thread(pool.shutdown, wait=True, cancel_futures=True) for pool in pools]
        try:
            await asyncio.wait_for(asyncio.gather(*ending), CLOSE_SECONDS)
        except TimeoutError:
            pass  # a daemon that hangs must not hold up our end
        for api in apis:
            api.close()

    async def run(self, pool: Pool, work: Callable[[], T]) -> T:
        """The result of a plain function, done by a thread of that pool; its own errors come out."""
        if pool not in self._pools:
            raise EngineFailed("the engine is closed", retry_elsewhere=True)
        return await asyncio.get_running_loop().run_in_executor(self._pools[pool], work)

    async def look(self, target: str, **query: str) -> Any:
        """What a GET of the Engine API answers, decoded; raises ApiRefused, and EngineFailed without an answer.

        On the loop, because it takes a third of the time that it takes in a thread.
        """
        async with self._looks:
            return await ask_json(self.socket, request("GET", _with_query(target, query)))

    async def act(self, method: str, target: str, body: Any = None, **query: str) -> Any:
        """Have something done, and what is answered; raises as `look` does."""
        async with self._acts:
            return await ask_json(self.socket, request(method, _with_query(target, query), body), ACT_SECONDS)

    async def call(self, pool: Pool, work: Callable[[Any], T]) -> T:
        """The result of a call of the SDK's `APIClient`; raises ApiRefused, and EngineFailed without an answer."""
        api = self._apis.get(pool)
        return await self.run(pool, lambda: _translated(self.socket, lambda: work(api)))


def _with_query(target: str, query: Mapping[str, str]) -> str:
    return f"{target}?{urlencode(query)}" if query else target


def _connect(socket: str) -> dict[Pool, Any]:
    """An SDK client for each pool; work for a thread, because importing the SDK takes 0.2 s."""
    from kohakuriver.system.docker_sdk import connect

    def connect_all() -> dict[Pool, Any]:
        apis: dict[Pool, Any] = {}
        version = ""
        for pool in (Pool.EVENTS, Pool.ACTS, Pool.PULLS):
            threads, silence_seconds = pool.value
            apis[pool] = connect(socket, silence_seconds, threads, version)
            version = apis[pool].api_version
        return apis

    return _translated(socket, connect_all)


def _translated(socket: str, work: Callable[[], T]) -> T:
    """Do the work; Docker's errors come out as ours."""
    from docker.errors import APIError, DockerException
    from requests import RequestException

    try:
        return work()
    except APIError as error:
        raise ApiRefused(error.status_code or 500, str(error.explanation or error)) from None
    except (DockerException, RequestException, OSError) as error:
        raise unreachable(socket, error) from None
