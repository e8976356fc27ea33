"""Settings, declared once each: name, type, default, meaning, secret or not.

The file spells them in upper case (`HOST_PORT = 8000`), the environment as `KOHAKURIVER_HOST_PORT`, flags as `--host-port`.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from kohakuriver.model.fields import ENVIRONMENT, FREE, HOSTNAME, Bounds

PORT = Bounds(least=1, most=65535)
PORT_OR_NONE = Bounds(least=0, most=65535)
SECONDS = Bounds(least=0.01, most=86400 * 365)
PERCENT = Bounds(least=0, most=100)
HOURS = Bounds(least=1, most=24 * 3650)
DAYS = Bounds(least=1, most=3650)
DAYS_OR_EVER, KEPT_BYTES = Bounds(least=0, most=3650), Bounds(least=0, most=10**18)
SHORTEST_SECRET = 12
IMAGE_LIMIT_BYTES, IMAGE_LIMITS = 200_000_000_000, Bounds(least=1_000_000, most=10**15)


def check_rule(text: str) -> None:
    """Raise ValueError for what is no rule of POLICY."""
    from kohakuriver.model.policy import parse_rule  # only a host with rules needs it, and every command reads settings

    parse_rule(text)


def check_size(text: str) -> None:
    """Raise ValueError for what is no size such as 4G; empty is none."""
    if text:
        from kohakuriver.model.units import parse_bytes

        parse_bytes(text)


def check_overlay(text: str) -> None:
    """Raise ValueError for what is no OVERLAY_SUBNET."""
    from kohakuriver.model.overlay import check_ranges  # only a host reads it

    check_ranges(text)


def check_network(text: str) -> None:
    """Raise ValueError for what is no IPv4 network, such as 172.30.0.0/16."""
    from ipaddress import IPv4Network

    IPv4Network(text)


def check_address(text: str) -> None:
    """Raise ValueError for what is no IPv4 address."""
    from ipaddress import IPv4Address

    IPv4Address(text)


def check_secret(text: str) -> None:
    """Raise ValueError for a secret that could be guessed; empty is none."""
    if text and len(text) < SHORTEST_SECRET:
        raise ValueError(f"shorter than {SHORTEST_SECRET} characters")


def setting(default: Any, about: str, *, bounds: Bounds = FREE, secret: bool = False) -> Any:
    """One setting; a secret one has no flag and is never shown."""
    metadata = {"about": about, "bounds": bounds, "secret": secret, "flag": ""}
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """Settings of the host."""

    host_bind_ip: str = setting("127.0.0.1", "Address the API listens on; 0.0.0.0 for every network.")
    host_port: int = setting(8000, "Port of the API.", bounds=PORT)
    host_ssh_proxy_port: int = setting(8002, "Port of SSH, on the same address; 0: no SSH.", bounds=PORT_OR_NONE)
    ssh_token_login_allowed: bool = setting(
        False, "Whether an API token, typed when SSH asks for it, lets one in; else only keys of accounts do."
    )
    ssh_older_clients_allowed: bool = setting(
        False, "Whether SSH clients without key exchange that is safe from quantum computers may come (OpenSSH < 8.5)."
    )
    host_reachable_address: str = setting("", "Address by which nodes and people reach this host; empty: found out.")
    shared_dir: str = setting("", "Storage that host and nodes share; empty: there is none.")
    db_file: str = setting("", "The database; empty: `host.db` in the state directory.")
    state_dir: str = setting("~/.kohakuriver/host", "Where the host keeps its database and secrets.")
    cluster_secret_file: str = setting(
        "~/.kohakuriver/cluster_secret", "File (mode 0600) of the secret that host and runners share; made when absent."
    )
    cluster_secret_allowed: bool = setting(
        True, "Whether runners that never joined may sign with that secret; off: only `runner join` lets one in."
    )
    heartbeat_interval_seconds: float = setting(5.0, "Seconds between heartbeats asked of runners.", bounds=SECONDS)
    heartbeat_timeout_factor: float = setting(
        6.0, "A node silent for so many heartbeats is offline.", bounds=Bounds(least=1, most=1000)
    )
    cleanup_check_interval_seconds: float = setting(
        10.0, "Seconds between health checks; fewer where a node is offline sooner.", bounds=SECONDS
    )
    kill_grace_seconds: float = setting(10.0, "Seconds between SIGTERM and SIGKILL.", bounds=Bounds(least=0, most=3600))
    tasks_privileged: bool = setting(False, "Whether any task may ask for `privileged`; POLICY gives it to some only.")
    policy: list[str] = setting(
        [],
        "Who may ask for what: `WHO privileged`, `WHO mount PATH`, `WHO image PATTERN`, `WHO registry NAME`; "
        "WHO is a role or group:NAME.",
        bounds=Bounds(length=500, count=1000, check=check_rule),
    )
    auth_enabled: bool = setting(True, "Whether people must log in; off only for one person on one machine.")
    auth_disabled_on_network_i_understand: bool = setting(
        False, "Let AUTH_ENABLED be off on an address that others can reach; whoever reaches the port is then admin."
    )
    admin_secret: str = setting(
        "",
        "Who sends it in the header X-Admin-Token is admin; empty: nobody.",
        bounds=Bounds(check=check_secret),
        secret=True,
    )
    admin_register_secret: str = setting(
        "",
        "The first to register with it becomes admin; empty: a file with such a secret is made.",
        bounds=Bounds(check=check_secret),
        secret=True,
    )
    allowed_hosts: list[str] = setting(
        [], "Names by which browsers may come to this host, besides the machine's own and HOST_REACHABLE_ADDRESS."
    )
    session_expire_hours: int = setting(720, "Hours a browser session is good for.", bounds=HOURS)
    token_expire_days: int = setting(90, "Days an API token is good for, if nothing else is said.", bounds=DAYS)
    invitation_expire_hours: int = setting(72, "Hours an invitation is good for.", bounds=HOURS)
    approval_expire_hours: int = setting(
        168, "A task that nobody approved for so many hours is rejected.", bounds=HOURS
    )
    audit_retention_days: int = setting(365, "Days the trail of who did what is kept.", bounds=DAYS)
    log_keep_days: int = setting(
        0, "Days that outputs in SHARED_DIR are kept once their tasks have ended; 0: for ever.", bounds=DAYS_OR_EVER
    )
    log_keep_bytes: int = setting(
        0,
        "When outputs in SHARED_DIR take more, those of ended tasks go, oldest first; 0: no limit.",
        bounds=KEPT_BYTES,
    )
    docker_socket: str = setting("/var/run/docker.sock", "Socket of the host's own Docker daemon, for environments.")
    terminal_keep_seconds: float = setting(
        60.0,
        "Seconds that a shell in an environment waits for somebody whose connection broke.",
        bounds=Bounds(least=0, most=86400),
    )
    default_container_name: str = setting(
        "base", "Environment made at the first start; empty: none.", bounds=Bounds(pattern=f"({ENVIRONMENT})?")
    )
    initial_base_image: str = setting("debian:12-slim", "Image that this environment begins with.")
    env_container_cpu_limit: float = setting(
        0.0, "Cores that an environment on the host may use; 0: no limit.", bounds=Bounds(least=0, most=4096)
    )
    env_container_mem_limit: str = setting(
        "",
        "Memory that an environment on the host may use, such as 4G; empty: no limit.",
        bounds=Bounds(check=check_size),
    )
    tarballs_kept: int = setting(2, "Tarballs kept of each environment.", bounds=Bounds(least=1, most=1000))
    image_limit_bytes: int = setting(IMAGE_LIMIT_BYTES, "What an imported image may unpack to.", bounds=IMAGE_LIMITS)
    overlay_enabled: bool = setting(False, "Whether containers on different nodes reach each other by address.")
    overlay_subnet: str = setting(
        "10.128.0.0/12/6/14",
        "The overlay's addresses: base, then bits of its network, for nodes, and for the containers of one node.",
        bounds=Bounds(length=64, check=check_overlay),
    )
    overlay_topology: str = setting(
        "hub",
        "Hub: traffic between nodes goes through the host; mesh: directly, and through the host where that fails.",
        bounds=Bounds(pattern="hub|mesh"),
    )
    overlay_isolation: str = setting(
        "none",
        "None: all containers in the overlay reach each other; owner: only those of one owner (needs nft on the nodes).",
        bounds=Bounds(pattern="none|owner"),
    )
    overlay_vxlan_id: int = setting(
        100, "First VXLAN id; runner N has this plus N.", bounds=Bounds(least=1, most=2**24 - 2**17)
    )
    overlay_vxlan_port: int = setting(4789, "UDP port of VXLAN on all machines.", bounds=PORT)
    overlay_mtu: int = setting(
        1450,
        "MTU in the overlay: 50 less than what the network between nodes carries.",
        bounds=Bounds(least=1280, most=65000),
    )
    tls_cert_file: str = setting(
        "", "Certificate (PEM, with its chain); empty: that of `host tls init` if there is one, else no TLS."
    )
    tls_key_file: str = setting("", "Key of that certificate (PEM, mode 0600).")
    log_level: str = setting(
        "INFO", "DEBUG, INFO, WARNING or ERROR.", bounds=Bounds(pattern="DEBUG|INFO|WARNING|ERROR")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSettings:
    """Settings of a runner."""

    host_address: str = setting(
        "", "Where the host is: name or address; empty: where `runner join` found it, else this machine."
    )
    host_port: int = setting(8000, "Port of the host's API.", bounds=PORT)
    runner_hostname: str = setting(
        "", "This node's name; empty: the machine's.", bounds=Bounds(pattern=f"({HOSTNAME})?")
    )
    runner_bind_ip: str = setting(
        "", "Address the runner listens on; empty: the one by which it reaches the host; 0.0.0.0 for every network."
    )
    runner_port: int = setting(8001, "Port of the runner's API.", bounds=PORT)
    runner_address: str = setting("", "Address by which the host reaches this runner; empty: found out.")
    shared_dir: str = setting("", "Storage that host and nodes share; empty: there is none.")
    local_temp_dir: str = setting(
        "", "Fast local scratch, shown to tasks as /local_temp; empty: in the state directory."
    )
    state_dir: str = setting("~/.kohakuriver/runner", "Where the runner keeps its store, logs and scratch.")
    cluster_secret_file: str = setting(
        "~/.kohakuriver/cluster_secret", "File (mode 0600) of the secret that host and runners share."
    )
    engine: str = setting("docker", "What runs workloads: docker, or process.", bounds=Bounds(pattern="docker|process"))
    process_engine_allowed: bool = setting(
        False, "Whether tasks may run as plain processes of this machine, without a container."
    )
    docker_socket: str = setting("/var/run/docker.sock", "The Docker daemon's socket.")
    initial_base_image: str = setting("debian:12-slim", "Image of a task that names neither environment nor image.")
    default_working_dir: str = setting("", "Working directory of a task that names none; empty: the image's.")
    additional_mounts: list[str] = setting([], "Mounts given to every task, SOURCE:TARGET[:ro].")
    allowed_mount_roots: list[str] = setting([], "Directories of this node below which a task may ask for mounts.")
    tasks_privileged: bool = setting(False, "Whether a task may ask for `privileged` on this node.")
    auto_snapshot_on_stop: bool = setting(True, "Whether a VPS is saved as a snapshot whenever it stops.")
    max_snapshots_per_vps: int = setting(
        3, "Snapshots kept of a VPS; automatic ones make room first.", bounds=Bounds(least=1, most=100)
    )
    snapshot_reserve_bytes: int = setting(
        2_000_000_000, "What a snapshot must leave free on the disk of the images.", bounds=Bounds(least=0)
    )
    task_pids_limit: int = setting(4096, "Processes a task may have.", bounds=Bounds(least=0, most=4_000_000))
    task_shm_bytes: int = setting(8_000_000_000, "Size of a task's /dev/shm.", bounds=Bounds(least=0))
    docker_network_name: str = setting(
        "bridge",
        "Docker network of tasks that have no address in the overlay; one that is not there, such as kohakuriver-net, is made.",
        bounds=Bounds(length=64, pattern=r"[A-Za-z0-9][A-Za-z0-9_.-]*"),
    )
    docker_network_subnet: str = setting(
        "172.30.0.0/16", "Addresses of that network when it is made.", bounds=Bounds(length=18, check=check_network)
    )
    docker_network_gateway: str = setting(
        "172.30.0.1", "This machine's address in it.", bounds=Bounds(length=15, check=check_address)
    )
    overlay_allowed: bool = setting(True, "Whether this node joins the overlay of a host that has one (needs root).")
    log_limit_bytes: int = setting(
        1_000_000_000, "Bytes kept of each output of a task.", bounds=Bounds(least=1000, most=10**13)
    )
    log_keep_days: int = setting(
        0, "Days that outputs in STATE_DIR are kept once their tasks have ended; 0: for ever.", bounds=DAYS_OR_EVER
    )
    log_keep_bytes: int = setting(
        0, "When outputs in STATE_DIR take more, those of ended tasks go, oldest first; 0: no limit.", bounds=KEPT_BYTES
    )
    numactl_path: str = setting("", "Not looked at: the process engine binds to NUMA nodes without numactl.")
    resource_check_interval_seconds: float = setting(1.0, "Seconds between readings of the machine.", bounds=SECONDS)
    docker_image_sync_timeout: float = setting(600.0, "Seconds an image may take to arrive.", bounds=SECONDS)
    image_limit_bytes: int = setting(IMAGE_LIMIT_BYTES, "What an image may unpack to.", bounds=IMAGE_LIMITS)
    image_gc_start_percent: float = setting(
        85.0, "Images brought by the runner and not used go when Docker's disk is so full; 0: never.", bounds=PERCENT
    )
    image_gc_stop_percent: float = setting(75.0, "No more of them go when it is only so full.", bounds=PERCENT)
    pinned_images: list[str] = setting([], "Images that never go, as patterns (`kohakuriver/base:*`).")
    tunnel_enabled: bool = setting(
        False, "Whether containers get a signature by which they may dial the runner (`kohakuriver docs terminals`)."
    )
    terminal_keep_seconds: float = setting(
        60.0, "Seconds that a terminal waits for somebody whose connection broke.", bounds=Bounds(least=0, most=86400)
    )
    log_level: str = setting(
        "INFO", "DEBUG, INFO, WARNING or ERROR.", bounds=Bounds(pattern="DEBUG|INFO|WARNING|ERROR")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Settings of the client commands."""

    host: str = setting("127.0.0.1", "The host's name or address.")
    port: int = setting(8000, "Port of the host's API.", bounds=PORT)
    tls: bool = setting(False, "Speak TLS with the host.")
    ca_file: str = setting(
        "", "CA (PEM) that the host's certificate must come from; with TLS and without it any that this machine trusts."
    )
    cluster: str = setting("", "One of the clusters that `auth login` remembers, by its name.")
    token: str = setting("", "An API token, instead of the one that `auth login` keeps.", secret=True)


PROGRAMS: dict[str, type] = {"host": HostSettings, "runner": RunnerSettings, "client": ClientSettings}


def file_key(name: str) -> str:
    """A setting as its file spells it."""
    return name.upper()


def environment_name(name: str) -> str:
    """The variable that sets it."""
    return f"KOHAKURIVER_{name.upper()}"


def flag_name(name: str) -> str:
    """The option that sets it."""
    return "--" + name.replace("_", "-")
