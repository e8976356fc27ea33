"""Chooses the engine that the settings name, and loads only that."""

from pathlib import Path

from kohakuriver.model.errors import NotAllowed
from kohakuriver.model.settings import RunnerSettings
from kohakuriver.runner.node_name import hostname_of
from kohakuriver.system.engine import Engine


def make_engine(settings: RunnerSettings, cluster_id: str) -> Engine:
    """The engine of a node for its workloads of that cluster, not yet open; raises NotAllowed."""
    hostname = hostname_of(settings)
    check_engine_allowed(settings)
    state_dir = Path(settings.state_dir).expanduser()
    if settings.engine == "process":
        from kohakuriver.system.process_engine import ProcessEngine

        return ProcessEngine(state_dir / "processes", cluster_id, hostname)
    from kohakuriver.system.docker_engine import DockerEngine

    return DockerEngine(cluster_id, hostname, state_dir / "containers", settings.docker_socket)


def check_engine_allowed(settings: RunnerSettings) -> None:
    """Raises NotAllowed when tasks may not run as plain processes and nothing else is there to run them."""
    if settings.engine == "process" and not settings.process_engine_allowed:
        raise NotAllowed(
            "engine process: tasks would run as plain processes of this machine, without a container; "
            "set PROCESS_ENGINE_ALLOWED = True in the runner's configuration if that is wanted"
        )
