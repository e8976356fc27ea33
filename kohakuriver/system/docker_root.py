"""The files of a container by its name: what its processes see while it runs, its layers when it does not."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

from kohakuriver.model.errors import Conflict, EngineFailed, NotFound
from kohakuriver.system.docker_client import DockerClient, Pool
from kohakuriver.system.docker_errors import ApiRefused, failed
from kohakuriver.system.overlay_mount import layers_at, open_layers
from kohakuriver.system.rooted import Owner, Root, telling

LIVE = ("running", "paused")
AT_REST = ("created", "exited")
MAX_ACCOUNTS_BYTES = 1_000_000


async def open_root(client: DockerClient, name: str, writable: bool) -> Root:
    """The root of a container; whoever opened it closes it. Raises NotFound, Conflict, EngineFailed.

    What does not run shows nothing of its mounts, and is best looked at without being `writable`: it could be started.
    """
    facts = await _facts(client, name)
    status, pid = str(facts["State"]["Status"]), int(facts["State"]["Pid"])
    if status in AT_REST:
        return await client.run(Pool.FILES, lambda: _at_rest(facts, writable))
    if status not in LIVE or pid <= 0:
        raise Conflict(f"{name} is {status}: its files cannot be reached now")
    root = await client.run(Pool.FILES, lambda: Root.of_process(pid))
    try:  # a number that was still the container's after it was used was so before
        again = await _facts(client, name)
        if (again["Id"], again["State"]["Pid"]) != (facts["Id"], pid):
            raise Conflict(f"{name} ended just now: try again")
    except (NotFound, Conflict, EngineFailed):
        root.close()
        raise
    return root


async def _facts(client: DockerClient, name: str) -> Any:
    try:
        return await client.look(f"/containers/{quote(name)}/json")
    except ApiRefused as refused:
        if refused.is_no_such_container:
            raise NotFound(f"there is no container {name}") from None
        raise failed(f"cannot look at {name}", refused) from None


def _at_rest(facts: Any, writable: bool) -> Root:
    driver = facts.get("GraphDriver") or {}
    upper = (driver.get("Data") or {}).get("UpperDir")
    if driver.get("Name") != "overlay2" or not upper:
        raise EngineFailed(
            f"Docker's storage driver here is {driver.get('Name') or 'not told'}: the files of a container that does "
            "not run can be reached with overlay2 only; start it first"
        )
    with telling("its layers"):
        root = Root(open_layers(layers_at(Path(upper)), writable))
    root.owner = _owner_named(root, str(facts["Config"].get("User") or ""))
    return root


def _owner_named(root: Root, user: str) -> Owner:
    """Whom a container's `User` means (`name`, `uid`, `uid:gid` …), by its own accounts; root when they do not say."""
    name, _, group = user.partition(":")
    account = _account(root, "/etc/passwd", name) or [name, "", name, "0"]
    group = group or account[3]
    members = _account(root, "/etc/group", group) or [group, "", group]
    return Owner(_number(account[2]), _number(members[2]))


def _account(root: Root, path: str, name: str) -> list[str] | None:
    lines = _content(root, path).splitlines() if not name.isdecimal() and name else []
    found = (line.split(":") for line in lines if line.startswith(f"{name}:"))
    return next((parts for parts in found if len(parts) > 3), None)


def _content(root: Root, path: str) -> str:
    try:
        with open(root.open_file(path), "rb") as file:
            return file.read(MAX_ACCOUNTS_BYTES).decode("utf-8", "replace")
    except (NotFound, Conflict):
        return ""


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 else 0
