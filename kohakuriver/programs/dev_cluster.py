"""A whole cluster in one process: a host and its nodes on loopback, taken away again with all that they ran."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from kohakuriver.host.app import running_host
from kohakuriver.host.state import Host
from kohakuriver.model.errors import EngineFailed, Unavailable
from kohakuriver.model.settings import ClientSettings, HostSettings, RunnerSettings, environment_name
from kohakuriver.programs.dev_directory import Record, dev_directory, leftovers
from kohakuriver.runner.app import make_engine, running_runner
from kohakuriver.system.clock import Clock, SystemClock
from kohakuriver.system.config_file import Sources, load
from kohakuriver.system.docker_client import DockerClient
from kohakuriver.system.docker_environments import EnvironmentContainers
from kohakuriver.system.engine import Engine
from kohakuriver.system.local_image import usable_image

Say = Callable[[str], None]
LOOPBACK = "127.0.0.1"
JOIN_SECONDS, CLEAR_SECONDS, POLL_SECONDS, KILL_GRACE_SECONDS = 20.0, 30.0, 0.01, 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DevOptions:
    """What is asked for; `port` 0 is any free one, `engine` None is Docker if it can be had."""

    nodes: int = 2
    port: int = 0
    directory: Path | None = None
    engine: str | None = None


@dataclass(frozen=True, slots=True)
class DevCluster:
    """A cluster that is up: where its host is, its nodes by name, its engine."""

    url: str
    nodes: tuple[str, ...]
    engine: str

    @property
    def client(self) -> ClientSettings:
        """How client commands find it."""
        at = urlsplit(self.url)
        return ClientSettings(host=at.hostname or LOOPBACK, port=at.port or 0)

    @property
    def environment(self) -> dict[str, str]:
        """The same as variables."""
        return {environment_name("host"): self.client.host, environment_name("port"): str(self.client.port)}


@asynccontextmanager
async def running_cluster(options: DevOptions, say: Say) -> AsyncIterator[DevCluster]:
    """A cluster whose nodes have all joined; raises Unavailable when one does not, and Conflict for a used directory.

    When the block ends, however it ends, workloads are killed and removed, and the state goes unless it was asked for.
    """
    clock = SystemClock()
    kind, base = await _choose(options.engine, say)
    await _clear_leftovers(say)
    names = [f"node{n}" for n in range(1, options.nodes + 1)]
    async with AsyncExitStack() as held, AsyncExitStack() as serving:
        directory = held.enter_context(dev_directory(options.directory))
        host = await serving.enter_async_context(running_host(_host_settings(base, directory, options.port), clock))
        record = Record(host.cluster_id, names, kind, base.docker_socket)
        record.write(directory)
        held.push_async_callback(_clear, directory, record)
        base = replace(base, host_port=urlsplit(host.url).port or 0)
        try:
            async with asyncio.timeout(JOIN_SECONDS):
                for name in names:
                    settings = _on_node(base, directory, name)
                    engine = make_engine(settings, host.cluster_id)
                    await serving.enter_async_context(running_runner(settings, engine, clock))
                await _all_joined(host, names, clock)
        except TimeoutError:
            raise Unavailable(f"the nodes did not join within {JOIN_SECONDS:.0f} seconds") from None
        yield DevCluster(host.url, tuple(names), kind)


async def _choose(asked: str | None, say: Say) -> tuple[str, RunnerSettings]:
    """The engine, and the settings that all nodes share."""
    here = load(RunnerSettings, Sources(environment=os.environ)).settings
    base = RunnerSettings(
        host_address=LOOPBACK,
        runner_bind_ip=LOOPBACK,
        runner_address=LOOPBACK,
        docker_socket=here.docker_socket,
        initial_base_image=here.initial_base_image,
        process_engine_allowed=True,
    )
    if asked != "process":
        try:
            image = await asyncio.to_thread(usable_image, base.docker_socket, base.initial_base_image, say)
            return "docker", replace(base, initial_base_image=image)
        except EngineFailed as why:
            if asked == "docker":
                raise
            say(f"{why}; so tasks run as plain processes of this machine")
    return "process", replace(base, engine="process")


def _on_node(base: RunnerSettings, directory: Path, name: str) -> RunnerSettings:
    return replace(
        base,
        runner_hostname=name,
        runner_port=0,
        state_dir=str(directory / name),
        shared_dir=str(directory / "shared"),
        cluster_secret_file=str(directory / "cluster_secret"),
    )


def _host_settings(base: RunnerSettings, directory: Path, port: int) -> HostSettings:
    return HostSettings(
        host_bind_ip=LOOPBACK,
        host_port=port,
        host_ssh_proxy_port=0,  # `kohakuriver ssh` needs none
        state_dir=str(directory / "host"),
        shared_dir=str(directory / "shared"),
        cluster_secret_file=str(directory / "cluster_secret"),
        auth_enabled=False,
        docker_socket=base.docker_socket,
        initial_base_image=base.initial_base_image,
        default_container_name="",
        kill_grace_seconds=KILL_GRACE_SECONDS,
    )


async def _all_joined(host: Host, names: Sequence[str], clock: Clock) -> None:
    while any(name not in host.registry.nodes or not host.registry.nodes[name].online for name in names):
        await clock.sleep(POLL_SECONDS)


async def _clear(directory: Path, record: Record) -> None:
    """Kill and remove everything that the nodes of a cluster run or have run."""
    base = RunnerSettings(engine=record.engine, docker_socket=record.docker_socket, process_engine_allowed=True)
    try:
        async with asyncio.timeout(CLEAR_SECONDS):
            for name in record.nodes:
                await _clear_node(make_engine(_on_node(base, directory, name), record.cluster_id))
            if record.engine == "docker":
                await _clear_environments(DockerClient(record.docker_socket), record.cluster_id)
    except TimeoutError:
        raise EngineFailed(f"the {record.engine} engine did not clear up in {CLEAR_SECONDS:.0f} seconds") from None


async def _clear_node(engine: Engine) -> None:
    await engine.open()
    try:
        await asyncio.gather(*(engine.remove(seen.key) for seen in await engine.observe_all()))
    finally:
        await engine.close()


async def _clear_environments(client: DockerClient, cluster_id: str) -> None:
    await client.open()
    try:
        containers = EnvironmentContainers(client, cluster_id)
        for seen in await containers.all():
            await containers.remove(seen.name)
    finally:
        await client.close()


async def _clear_leftovers(say: Say) -> None:
    """Take away what clusters left behind that were killed before they could clean up."""
    with leftovers() as found:
        for directory, record in found:
            try:
                if record is not None:
                    await _clear(directory, record)
                    say(f"cleared what a killed dev cluster had left in {directory}")
            except EngineFailed as why:
                say(f"could not clear all that a killed dev cluster left behind: {why}")
