"""Translate between our words for a workload and Docker's: pure, by allow-list."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kohakuriver.system.engine import TYPE_LABEL, VPS_TYPE, ContainerSpec, Exit, Observed, Phase, WorkloadKey

LABEL = "kohakuriver."
CLUSTER_LABEL, NODE_LABEL = f"{LABEL}cluster", f"{LABEL}node"
TASK_LABEL, ATTEMPT_LABEL = f"{LABEL}task", f"{LABEL}attempt"

# Of what Docker leaves to a container's root by default; package managers, daemons that change user, and sshd's
# chroot still work without these. SETFCAP stays: rpm refuses to unpack files with capabilities without it.
DROPPED_CAPABILITIES = ("AUDIT_WRITE", "MKNOD", "NET_RAW", "SETPCAP")

# Docker's own copy of the output, from which it is completed after a restart; `local` is the only driver that keeps
# bytes as they are. A record of a line costs some 28 bytes more than the line, so one file has room for both
# streams up to their limit unless most lines are very short. Two files: with one, Docker empties it when it is full.
LOG_DRIVER, LOG_FILES = "local", 2
LOG_RESERVE_BYTES = 1 << 20

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


def container_config(spec: ContainerSpec, owner: Owner) -> dict[str, Any]:
    """The body of Docker's create call; nothing gets in that is not written here."""
    program, *arguments = spec.command
    return {
        "Image": spec.image,
        "Entrypoint": [program],
        "Cmd": arguments,
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
            "Init": True,
            "RestartPolicy": {"Name": "no"},
            "LogConfig": _log(spec),
            # Not `Binds`: those make a missing directory on the node instead of failing.
            "Mounts": [
                {"Type": "bind", "Source": mount.source, "Target": mount.target, "ReadOnly": mount.read_only}
                for mount in spec.mounts
            ],
        },
    }


def key_of(labels: Mapping[str, str]) -> WorkloadKey | None:
    """The workload that labels name, None when they name none."""
    task, attempt = labels.get(TASK_LABEL, ""), labels.get(ATTEMPT_LABEL, "")
    return WorkloadKey(int(task), int(attempt)) if task.isdecimal() and attempt.isdecimal() else None


def observed(key: WorkloadKey, facts: Mapping[str, Any]) -> Observed:
    """What Docker's inspect tells of a workload.

    A program that ended by a signal and one that exited with 128+n look the same behind an init, so `signal` is
    never claimed. Docker's own flag alone says whether memory ran out.
    """
    state, is_vps = facts["State"], _labels(facts).get(TYPE_LABEL) == VPS_TYPE
    phase = _PHASES.get(state["Status"], Phase.EXITED)
    started = unix_seconds(state["StartedAt"]) if phase is not Phase.CREATED else None
    if phase is not Phase.EXITED:
        return Observed(key, phase, started_at=started, is_vps=is_vps)
    finished = unix_seconds(state["FinishedAt"])
    if started and finished:
        finished = max(started, finished)  # Docker takes the two times in different processes
    end = Exit(int(state["ExitCode"]), None, bool(state["OOMKilled"]))
    return Observed(key, phase, end, started, finished, is_vps)


def _labels(facts: Mapping[str, Any]) -> Mapping[str, str]:
    return facts.get("Config", {}).get("Labels") or {}


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


def _log(spec: ContainerSpec) -> dict[str, Any]:
    size_bytes = 2 * spec.log_limit_bytes + LOG_RESERVE_BYTES
    return {
        "Type": LOG_DRIVER,
        "Config": {"max-size": str(size_bytes), "max-file": str(LOG_FILES), "compress": "false"},
    }
