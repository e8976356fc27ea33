"""Our words become Docker's, and nothing else does."""

from pathlib import Path
from typing import Any

import pytest

from kohakuriver.system.docker_spec import Owner, container_config, key_of, observed, unix_seconds
from kohakuriver.system.engine import ContainerSpec, Exit, Mount, Observed, Phase, WorkloadKey

KEY = WorkloadKey(7, 2)
INIT = {"Type": "bind", "Source": "/state/init", "Target": "/dev/.kohakuriver/init", "ReadOnly": True}
FILES = [
    {"Type": "bind", "Source": source, "Target": f"/dev/.kohakuriver/{name}", "ReadOnly": False}
    for name, source in (("record", "/state/7.2"), ("stdout", "/logs/stdout"), ("stderr", "/logs/stderr"))
]
OWNER = Owner("lab", "alpha")


def spec(**changes: Any) -> ContainerSpec:
    settings: dict[str, Any] = {
        "key": KEY,
        "name": "kohakuriver-task-7",
        "image": "busybox",
        "command": ("echo", "a b"),
        "log_directory": Path("/logs"),
        "log_limit_bytes": 1000,
    }
    return ContainerSpec(**(settings | changes))


def config_of(**changes: Any) -> dict[str, Any]:
    return container_config(spec(**changes), OWNER, "/state/init", "/state/7.2")


def host(**changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = config_of(**changes)["HostConfig"]
    return config


def test_a_plain_spec_asks_for_nothing_but_the_safe_defaults() -> None:
    entrypoint = [*(f"/dev/.kohakuriver/{name}" for name in ("init", "record", "stdout", "stderr")), "1000"]
    assert config_of() == {
        "Image": "busybox",
        "Entrypoint": [*entrypoint, "\n[kohakuriver: output cut here at 1000 bytes]\n"],
        "Cmd": ["echo", "a b"],
        "Env": [],
        "Labels": {
            "kohakuriver.cluster": "lab",
            "kohakuriver.node": "alpha",
            "kohakuriver.task": "7",
            "kohakuriver.attempt": "2",
        },
        "HostConfig": {
            "SecurityOpt": ["no-new-privileges"],
            "CapDrop": ["AUDIT_WRITE", "MKNOD", "NET_RAW", "SETPCAP"],
            "RestartPolicy": {"Name": "no"},
            "LogConfig": {"Type": "none"},
            "Mounts": [INIT, *FILES],
        },
    }


def test_a_full_spec_arrives_whole() -> None:
    config = config_of(
        env={"A": "1", "B": "x=y"},
        working_dir="/work",
        cpu_count=3,
        cpu_ids=(4, 5, 6),
        numa_node=1,
        memory_bytes=8_000,
        gpu_ids=("0", "GPU-1"),
        pids_limit=99,
        shm_bytes=1_000,
        mounts=(Mount("/a", "/b"), Mount("/c", "/d", read_only=True)),
        network="kohakuriver-net",
        labels={"kohakuriver.type": "command"},
    )
    assert (config["Env"], config["WorkingDir"]) == (["A=1", "B=x=y"], "/work")
    assert config["Labels"]["kohakuriver.type"] == "command"
    wanted = {
        "NanoCpus": 3_000_000_000,
        "CpusetCpus": "4,5,6",
        "CpusetMems": "1",
        "Memory": 8_000,
        "MemorySwap": 8_000,
        "PidsLimit": 99,
        "ShmSize": 1_000,
        "NetworkMode": "kohakuriver-net",
        "DeviceRequests": [{"Driver": "nvidia", "DeviceIDs": ["0", "GPU-1"], "Capabilities": [["gpu"]]}],
        "Mounts": [
            INIT,
            *FILES,
            {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": False},
            {"Type": "bind", "Source": "/c", "Target": "/d", "ReadOnly": True},
        ],
    }
    assert wanted.items() <= config["HostConfig"].items()


def test_privileged_is_asked_for_only_when_the_spec_says_so() -> None:
    assert "Privileged" not in host()
    assert host(privileged=True)["Privileged"] is True


def test_labels_of_a_spec_cannot_make_it_another_owners() -> None:
    labels = {"kohakuriver.cluster": "other", "kohakuriver.node": "beta", "kohakuriver.task": "1"}
    made = config_of(labels=labels)["Labels"]
    assert OWNER.owns(made)
    assert key_of(made) == KEY


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"kohakuriver.task": "7"},
        {"kohakuriver.task": "7", "kohakuriver.attempt": "x"},
        {"kohakuriver.task": "-7", "kohakuriver.attempt": "1"},
    ],
)
def test_labels_that_are_not_ours_name_no_workload(labels: dict[str, str]) -> None:
    assert key_of(labels) is None


def test_owners_filter_by_cluster_node_and_workload() -> None:
    assert OWNER.filters() == {"label": ["kohakuriver.cluster=lab", "kohakuriver.node=alpha"]}
    assert OWNER.filters(KEY)["label"][2:] == ["kohakuriver.task=7", "kohakuriver.attempt=2"]
    assert not OWNER.owns(Owner("lab", "beta").labels())
    assert OWNER.shares_cluster(Owner("lab", "beta").labels())
    assert not OWNER.shares_cluster({})


def state(status: str, code: int = 0, **changes: Any) -> dict[str, Any]:
    never = "0001-01-01T00:00:00Z"
    facts = {"Status": status, "ExitCode": code, "OOMKilled": False, "StartedAt": never, "FinishedAt": never}
    return {"State": facts | changes}


def test_every_state_of_dockers_is_a_phase() -> None:
    phases = {
        name: observed(KEY, state(name)).phase
        for name in ("created", "running", "restarting", "paused", "exited", "removing", "dead", "new in 2030")
    }
    assert phases == {
        "created": Phase.CREATED,
        "running": Phase.RUNNING,
        "restarting": Phase.RUNNING,
        "paused": Phase.PAUSED,
        "exited": Phase.EXITED,
        "removing": Phase.EXITED,
        "dead": Phase.EXITED,
        "new in 2030": Phase.EXITED,
    }


def test_a_start_that_failed_has_not_begun_nor_ended() -> None:
    assert observed(KEY, state("created", 127)) == Observed(KEY, Phase.CREATED)


def test_an_exit_code_is_told_as_it_is_and_only_dockers_flag_means_memory() -> None:
    began, ended = "2026-01-02T03:04:05.5Z", "2026-01-02T03:04:07.25Z"
    killed = observed(KEY, state("exited", 137, StartedAt=began, FinishedAt=ended))
    assert killed.exit == Exit(137)
    assert killed.started_at is not None
    assert killed.finished_at == killed.started_at + 1.75
    assert observed(KEY, state("exited", 137, OOMKilled=True)).exit == Exit(137, oom_killed=True)


def test_an_end_is_never_before_the_beginning() -> None:
    began, ended = "2026-01-02T03:04:05.705019803Z", "2026-01-02T03:04:05.703439073Z"
    seen = observed(KEY, state("exited", StartedAt=began, FinishedAt=ended))
    assert seen.finished_at == seen.started_at


def test_times_of_dockers_are_unix_seconds() -> None:
    assert unix_seconds("1970-01-01T00:00:01.500000000Z") == 1.5
    assert unix_seconds("1970-01-01T02:00:01.123456789+02:00") == 1.123456
    assert unix_seconds("0001-01-01T00:00:00Z") is None
