"""Translate between our words for a workload and Docker's: pure, by allow-list."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kohakuriver.system.engine import (
    STDERR_NAME,
    STDOUT_NAME,
    TYPE_LABEL,
    VPS_TYPE,
    ContainerSpec,
    Exit,
    Mount,
    Observed,
    Phase,
    WorkloadKey,
    cut_marker,
)

LABEL = "kohakuriver."
CLUSTER_LABEL, NODE_LABEL = f"{LABEL}cluster", f"{LABEL}node"
TASK_LABEL, ATTEMPT_LABEL = f"{LABEL}task", f"{LABEL}attempt"

# Of what Docker leaves to a container's root by default; package managers, daemons that change user, and sshd's
# chroot still work without these. SETFCAP stays: rpm refuses to unpack files with capabilities without it.
DROPPED_CAPABILITIES = ("AUDIT_WRITE", "MKNOD", "NET_RAW", "SETPCAP")

# Where a container finds what its first process needs; /dev is a file system of its own, so that nothing of it gets
# into an image that somebody makes out of the container.
INIT_DIRECTORY = "/dev/.kohakuriver"

NANO = 1_000_000_000

_PHASES = {
    "created": Phase.CREATED,
    "running": Phase.RUNNING,
    "restarting": Phase.RUNNING,
    "paused": Phase.PAUSED,
    "exited": Phase.EXITED,
    "removing": Phase.EXITED,
    "dead": Phase.EXITED,
}


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose containers are ours: those of this cluster on this node."""

    cluster: str
    node: str

    def labels(self) -> dict[str, str]:
        """The labels that all of ours carry."""
        return {CLUSTER_LABEL: self.cluster, NODE_LABEL: self.node}

    def filters(self, key: WorkloadKey | None = None) -> dict[str, list[str]]:
        """Docker's filter for all of ours, or for one workload."""
        wanted = self.labels() | (_key_labels(key) if key else {})
        return {"label": [f"{name}={value}" for name, value in wanted.items()]}

    def owns(self, labels: Mapping[str, str]) -> bool:
        """Whether a container with these labels is ours."""
        return self.labels().items() <= labels.items()

    def shares_cluster(self, labels: Mapping[str, str]) -> bool:
        """Whether a container with these labels is of our cluster, on whatever node."""
        return labels.get(CLUSTER_LABEL) == self.cluster


def container_config(spec: ContainerSpec, owner: Owner, init: str, record: str) -> dict[str, Any]:
    """The body of Docker's create call; nothing gets in that is not written here.

    `init` is the program that becomes its first process, `record` the file where that puts down what happens.
    """
    files = {name: f"{INIT_DIRECTORY}/{name}" for name in ("init", "record", STDOUT_NAME, STDERR_NAME)}
    limit_bytes = spec.log_limit_bytes
    own_mounts = (
        Mount(init, files["init"], read_only=True),
        Mount(record, files["record"]),
        Mount(str(spec.log_directory / STDOUT_NAME), files[STDOUT_NAME]),
        Mount(str(spec.log_directory / STDERR_NAME), files[STDERR_NAME]),
    )
    return {
        "Image": spec.image,
        "Entrypoint": [*files.values(), str(limit_bytes), cut_marker(limit_bytes).decode()],
        "Cmd": list(spec.command),
        "Env": [f"{name}={value}" for name, value in spec.env.items()],
        "Labels": {**spec.labels, **owner.labels(), **_key_labels(spec.key)},
        **({"WorkingDir": spec.working_dir} if spec.working_dir else {}),
        **_endpoint(spec),
        "HostConfig": {
            **_safety(spec),
            **_limits(spec),
            **_pinning(spec),
            **({"NetworkMode": spec.network} if spec.network else {}),
            **({"ExtraHosts": [f"{name}:{address}" for name, address in spec.hosts.items()]} if spec.hosts else {}),
            "RestartPolicy": {"Name": "no"},
            "LogConfig": {"Type": "none"},  # its first process copies the output to where it belongs
            # Not `Binds`: those make a missing directory on the node instead of failing.
            "Mounts": [
                {"Type": "bind", "Source": mount.source, "Target": mount.target, "ReadOnly": mount.read_only}
                for mount in (*own_mounts, *spec.mounts)
            ],
        },
    }


def key_of(labels: Mapping[str, str]) -> WorkloadKey | None:
    """The workload that labels name, None when they name none."""
    task, attempt = labels.get(TASK_LABEL, ""), labels.get(ATTEMPT_LABEL, "")
    return WorkloadKey(int(task), int(attempt)) if task.isdecimal() and attempt.isdecimal() else None


def observed(key: WorkloadKey, facts: Mapping[str, Any]) -> Observed:
    """What Docker's inspect tells of a workload, which may be wrong after a daemon was killed.

    A program that ended by a signal and one that exited with 128+n look the same, so `signal` is never claimed.
    """
    state, is_vps = facts["State"], is_of_vps(facts.get("Config", {}).get("Labels") or {})
    phase = phase_of(state["Status"])
    started = unix_seconds(state["StartedAt"]) if phase is not Phase.CREATED else None
    if phase is not Phase.EXITED:
        return Observed(key, phase, started_at=started, is_vps=is_vps)
    finished = unix_seconds(state["FinishedAt"])
    if started and finished:
        finished = max(started, finished)  # Docker takes the two times in different processes
    end = Exit(int(state["ExitCode"]), None, bool(state["OOMKilled"]))
    return Observed(key, phase, end, started, finished, is_vps)


def is_of_vps(labels: Mapping[str, str]) -> bool:
    """Whether a container with these labels is a VPS."""
    return labels.get(TYPE_LABEL) == VPS_TYPE


def phase_of(status: str) -> Phase:
    """Docker's word for how a container stands, as ours."""
    return _PHASES.get(status, Phase.EXITED)


def unix_seconds(text: str) -> float | None:
    """A time of Docker's (RFC 3339, nanoseconds) as unix seconds; None for Go's zero time."""
    moment = datetime.fromisoformat(text)
    return moment.timestamp() if moment.year > 1 else None


def _key_labels(key: WorkloadKey) -> dict[str, str]:
    return {TASK_LABEL: str(key.task_id), ATTEMPT_LABEL: str(key.attempt)}


def _endpoint(spec: ContainerSpec) -> dict[str, Any]:
    if not spec.address:
        return {}
    endpoint = {"IPAMConfig": {"IPv4Address": spec.address}, "MacAddress": spec.mac}
    return {"MacAddress": spec.mac, "NetworkingConfig": {"EndpointsConfig": {spec.network: endpoint}}}


def _safety(spec: ContainerSpec) -> dict[str, Any]:
    if spec.privileged:
        return {"Privileged": True}
    return {"SecurityOpt": ["no-new-privileges"], "CapDrop": list(DROPPED_CAPABILITIES)}


def _limits(spec: ContainerSpec) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if spec.cpu_count:
        limits["NanoCpus"] = spec.cpu_count * NANO
    if spec.memory_bytes is not None:
        limits["Memory"] = limits["MemorySwap"] = spec.memory_bytes  # the same number: no swap
    if spec.pids_limit:
        limits["PidsLimit"] = spec.pids_limit
    if spec.shm_bytes:
        limits["ShmSize"] = spec.shm_bytes
    return limits


def _pinning(spec: ContainerSpec) -> dict[str, Any]:
    pinning: dict[str, Any] = {}
    if spec.cpu_ids:
        pinning["CpusetCpus"] = ",".join(map(str, spec.cpu_ids))
    if spec.numa_node is not None:
        pinning["CpusetMems"] = str(spec.numa_node)
    if spec.gpu_ids:
        request = {"Driver": "nvidia", "DeviceIDs": list(spec.gpu_ids), "Capabilities": [["gpu"]]}
        pinning["DeviceRequests"] = [request]
    return pinning
