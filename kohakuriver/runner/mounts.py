"""What mounts that tasks ask for really are on this node, links resolved."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kohakuriver.model.errors import NotAllowed
from kohakuriver.model.settings import RunnerSettings
from kohakuriver.runner.container_spec import KERNEL_TREES, MountRules, check_source, parse_mount
from kohakuriver.system.engine import Mount

SOCKETS = ("/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock")


def rules_of(settings: RunnerSettings) -> MountRules:
    """The rules of this node as its settings say; looks at the disk."""
    own = (settings.state_dir, settings.cluster_secret_file)
    forbidden = (*KERNEL_TREES, *SOCKETS, settings.docker_socket, *own)
    return MountRules(
        tuple(os.path.realpath(root) for root in settings.allowed_mount_roots),
        tuple(os.path.realpath(os.path.expanduser(place)) for place in forbidden),
    )


def resolve(texts: Sequence[str], rules: MountRules) -> tuple[Mount, ...]:
    """The mounts with their real sources; raises NotAllowed for one that may not be. May block."""
    return tuple(_resolve(text, rules) for text in texts)


def check_again(mounts: Sequence[Mount], rules: MountRules) -> None:
    """Raise NotAllowed when a source is no longer what it was when it was allowed. May block."""
    for mount in mounts:
        if _real_path(mount.source) != mount.source:
            raise NotAllowed(f"mount {mount.source}: it was changed meanwhile")
        check_source(mount.source, mount.source, rules)


def _resolve(text: str, rules: MountRules) -> Mount:
    mount = parse_mount(text)
    source = _real_path(mount.source)
    check_source(text, source, rules)
    return replace(mount, source=source)


def _real_path(source: str) -> str:
    try:
        return str(Path(source).resolve(strict=True))
    except (OSError, RuntimeError) as absent:  # RuntimeError: links that go round
        raise NotAllowed(f"mount {source}: it cannot be found on this node ({absent})") from None
