"""The words that the process engine, its keeper and their supervisors say to each other, all of them JSON.

The keeper forks for every workload, so what it imports stays small: no dataclasses here.
"""

from typing import TypedDict


class Plan(TypedDict):
    """One workload as the keeper and its supervisor need it; 0 and None mean no limit."""

    task_id: int
    attempt: int
    name: str
    command: list[str]
    env: dict[str, str]
    working_dir: str
    log_directory: str
    log_names: list[str]
    log_limit_bytes: int
    cut_marker: str
    memory_bytes: int | None
    pids_limit: int
    cpu_count: int
    cpu_ids: list[int]
    numa_node: int | None


class Story(TypedDict, total=False):
    """What has happened to a started workload; told line by line, so that any part may be missing.

    A process is (pid, start time in clock ticks since boot) and `boot` tells of which boot: so a reused pid is never
    taken for it. From `begun_at` on it may have run; with `started_at` it has. `exit` is (code, signal or None, whether
    the kernel killed it for its memory); times are UTC unix seconds. `failed` is why the program could not be started,
    `elsewhere` whether another node might do better.
    """

    boot: str
    supervisor: list[int]
    begun_at: float
    main: list[int]
    started_at: float
    failed: str
    elsewhere: bool
    exit: tuple[int, int | None, bool]
    finished_at: float


class Look(TypedDict):
    """One observation of one workload; `phase` as in the engine protocol."""

    key: tuple[int, int]
    phase: str
    exit: tuple[int, int | None, bool] | None
    started_at: float | None
    finished_at: float | None
