"""From a container spec to what a process can be given: pure, and it refuses what a process cannot have."""

import os

from kohakuriver.model.errors import EngineFailed
from kohakuriver.system.engine import STDERR_NAME, STDOUT_NAME, ContainerSpec, cut_marker
from kohakuriver.system.process_plan import Plan

MINIMAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def plan_of(spec: ContainerSpec, home: str) -> Plan:
    """What the keeper is told; raises EngineFailed for what needs a container or cannot be given to any program."""
    _refuse_what_needs_a_container(spec)
    env = {"PATH": MINIMAL_PATH, "HOME": home, **spec.env, **_gpu_variables(spec.gpu_ids)}
    _refuse_what_no_program_can_be_given(spec, env)
    return {
        "task_id": spec.key.task_id,
        "attempt": spec.key.attempt,
        "name": spec.name,
        "command": list(spec.command),
        "env": env,
        "working_dir": spec.working_dir or "/",
        "log_directory": os.path.abspath(spec.log_directory),
        "log_names": [STDOUT_NAME, STDERR_NAME],
        "log_limit_bytes": spec.log_limit_bytes,
        "cut_marker": cut_marker(spec.log_limit_bytes).decode(),
        "memory_bytes": spec.memory_bytes,
        "pids_limit": spec.pids_limit,
        "cpu_count": 0 if spec.cpu_ids else spec.cpu_count,
        "cpu_ids": list(spec.cpu_ids),
        "numa_node": spec.numa_node,
    }


def _refuse_what_needs_a_container(spec: ContainerSpec) -> None:
    if spec.mounts:
        raise EngineFailed(f"the process engine cannot mount {spec.mounts[0].source!r}: a mount needs a container")
    if spec.privileged:
        raise EngineFailed("the process engine cannot run a privileged workload: that needs a container")


def _refuse_what_no_program_can_be_given(spec: ContainerSpec, env: dict[str, str]) -> None:
    if not spec.command:
        raise EngineFailed("the workload has no command")
    for what, text in [("command", word) for word in spec.command] + [("working directory", spec.working_dir)]:
        if "\0" in text:
            raise EngineFailed(f"the {what} of the workload contains a NUL")
    for name, value in env.items():
        if not name or "=" in name or "\0" in name + value:
            raise EngineFailed(f"no program can be given the environment variable {name!r}")


def _gpu_variables(gpu_ids: tuple[str, ...]) -> dict[str, str]:
    """A process sees every GPU of its node, so those that it was not given must be hidden from it."""
    return {
        "CUDA_VISIBLE_DEVICES": ",".join(gpu_ids),
        "NVIDIA_VISIBLE_DEVICES": ",".join(gpu_ids) or "void",
    }
