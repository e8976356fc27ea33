"""From what was asked and what the node allows to what the engine is told: pure."""

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

from kohakuriver.model.errors import EngineFailed, NotAllowed
from kohakuriver.model.overlay import mac_of
from kohakuriver.model.runner_api import Execute
from kohakuriver.model.settings import RunnerSettings
from kohakuriver.model.task import TaskSpec
from kohakuriver.runner.attempt import Accepted
from kohakuriver.runner.overlay_plan import OVERLAY_NETWORK
from kohakuriver.runner.tunnel_door import TunnelDoor
from kohakuriver.system.docker_network import TAG_LABEL
from kohakuriver.system.engine import SECRETS_LABEL, TYPE_LABEL, VPS_TYPE, ContainerSpec, Mount

MASTER_PORT = 29500  # what torch.distributed takes when nothing is said; each task has an address of its own
SHARED_TARGET, LOCAL_TEMP_TARGET = "/shared", "/local_temp"
KERNEL_TREES = ("/proc", "/sys", "/dev")


@dataclass(frozen=True, slots=True)
class Site:
    """What a spec needs to know of the node; directories are absolute, `shared_data` empty without shared storage."""

    settings: RunnerSettings
    hostname: str
    cluster_id: str
    shared_data: str
    local_temp: str
    door: TunnelDoor = field(default_factory=TunnelDoor)

    @property
    def has_containers(self) -> bool:
        return self.settings.engine != "process"


@dataclass(frozen=True, slots=True)
class MountRules:
    """Where tasks may take mounts from: below a root, and neither in nor around what is forbidden; all resolved."""

    roots: tuple[str, ...]
    forbidden: tuple[str, ...]


def build(accepted: Accepted, site: Site, mounts: Sequence[Mount]) -> ContainerSpec:
    """The spec of an attempt; `mounts` are the task's own, checked already."""
    request, settings = accepted.request, site.settings
    spec = request.spec
    return ContainerSpec(
        key=accepted.key,
        name=container_name(request),
        image=image_of(spec, settings),
        command=(spec.command, *spec.arguments),
        log_directory=accepted.log_directory,
        log_limit_bytes=accepted.log_limit_bytes,
        env={**spec.env_vars, **request.secret_env, **own_variables(request, site)},
        working_dir=spec.working_dir or settings.default_working_dir,
        cpu_count=spec.required_cores,
        numa_node=request.numa_node,
        memory_bytes=spec.required_memory_bytes,
        gpu_ids=tuple(str(index) for index in request.gpus),
        pids_limit=settings.task_pids_limit,
        shm_bytes=settings.task_shm_bytes,
        mounts=(*node_mounts(site), *mounts),
        privileged=spec.privileged,
        labels=labels_of(accepted, site),
        **network_of(request, settings),
    )


def container_name(request: Execute) -> str:
    """What the container of a workload is called."""
    return f"kohakuriver-{'vps' if request.vps else 'task'}-{request.task_id}"


def network_of(request: Execute, settings: RunnerSettings) -> dict[str, Any]:
    """Where it is in the network: in the overlay when the host gave it an address there."""
    if request.reserved_ip is None:
        return {"network": settings.docker_network_name}
    hosts = {f"rank-{rank}": address for rank, address in enumerate(request.ranks)}
    mac = mac_of(IPv4Address(request.reserved_ip))
    return {"network": OVERLAY_NETWORK, "address": request.reserved_ip, "mac": mac, "hosts": hosts}


def image_of(spec: TaskSpec, settings: RunnerSettings) -> str:
    """The image a task runs in."""
    if spec.registry_image:
        return spec.registry_image
    return f"kohakuriver/{spec.container_name}:base" if spec.container_name else settings.initial_base_image


def own_variables(request: Execute, site: Site) -> dict[str, str]:
    """What every task finds in its environment; a task cannot set these itself."""
    inside = site.has_containers
    variables = {
        "KOHAKURIVER_TASK_ID": str(request.task_id),
        "KOHAKURIVER_ATTEMPT": str(request.attempt),
        "KOHAKURIVER_NODE": site.hostname,
        "KOHAKURIVER_LOCAL_TEMP_DIR": LOCAL_TEMP_TARGET if inside else site.local_temp,
    }
    variables |= site.door.variables(container_name(request))
    if site.shared_data:
        variables["KOHAKURIVER_SHARED_DIR"] = SHARED_TARGET if inside else site.shared_data
    if request.reserved_ip is not None:
        variables["KOHAKURIVER_IP"] = request.reserved_ip
    if request.ranks:
        variables |= {
            "KOHAKURIVER_RANK": str(request.rank),
            "KOHAKURIVER_WORLD_SIZE": str(len(request.ranks)),
            "KOHAKURIVER_HOSTS": ",".join(request.ranks),
            "MASTER_ADDR": request.ranks[0],
            "MASTER_PORT": str(MASTER_PORT),
        }
    if request.numa_node is not None:
        variables["KOHAKURIVER_TARGET_NUMA_NODE"] = str(request.numa_node)
    return variables


def labels_of(accepted: Accepted, site: Site) -> Mapping[str, str]:
    """By what a workload is known as ours."""
    key, secret = accepted.key, accepted.request.secret_env
    return {
        "kohakuriver.cluster": site.cluster_id,
        "kohakuriver.node": site.hostname,
        "kohakuriver.task": str(key.task_id),
        "kohakuriver.attempt": str(key.attempt),
        TYPE_LABEL: VPS_TYPE if accepted.request.vps else "command",
        TAG_LABEL: str(accepted.request.owner_tag),
        **({SECRETS_LABEL: ",".join(sorted(secret))} if secret else {}),
    }


def node_mounts(site: Site) -> tuple[Mount, ...]:
    """The mounts that every task of this node gets; without containers there is nothing to mount into."""
    if not site.has_containers:
        return ()
    shared = (Mount(site.shared_data, SHARED_TARGET),) if site.shared_data else ()
    own = tuple(parse_mount(text) for text in site.settings.additional_mounts)
    return (*shared, Mount(site.local_temp, LOCAL_TEMP_TARGET), *own)


def parse_mount(text: str) -> Mount:
    """The mount that SOURCE:TARGET[:ro] means."""
    source, target, *mode = text.split(":")
    return Mount(source, normal(target), mode == ["ro"])


def normal(path: str) -> str:
    """An absolute path in its one normal form."""
    return posixpath.normpath("/" + path.lstrip("/"))


def check_policy(request: Execute, site: Site) -> None:
    """Raise NotAllowed when the node forbids what the task asks for, EngineFailed when it cannot have it at all.

    Where its mounts come from is checked apart.
    """
    if request.vps and not site.has_containers:
        raise EngineFailed(f"{site.hostname} has no containers, which a VPS needs", retry_elsewhere=True)
    if request.spec.privileged and not site.settings.tasks_privileged:
        raise NotAllowed(f"{site.hostname} does not allow privileged tasks (TASKS_PRIVILEGED)")
    taken = {mount.target for mount in node_mounts(site)}
    for text in request.spec.additional_mounts:
        target = parse_mount(text).target
        if target == "/" or any(inside(target, tree) for tree in KERNEL_TREES):
            raise NotAllowed(f"mount {text}: nothing may be mounted at {target}")
        if target in taken:
            raise NotAllowed(f"mount {text}: {target} is taken already")
        taken.add(target)


def check_source(text: str, resolved: str, rules: MountRules) -> None:
    """Raise NotAllowed unless tasks may mount what `text` names and `resolved` really is."""
    if not any(inside(resolved, root) for root in rules.roots):
        allowed = ", ".join(rules.roots) or "none"
        raise NotAllowed(f"mount {text}: {resolved} is not below a directory allowed for mounts here ({allowed})")
    if any(inside(resolved, place) or inside(place, resolved) for place in rules.forbidden):
        raise NotAllowed(f"mount {text}: {resolved} may not be shown to tasks")


def inside(path: str, root: str) -> bool:
    """Whether a normal absolute path is the root or below it."""
    return path == root or path.startswith(root.rstrip("/") + "/")
