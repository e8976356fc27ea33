"""Where an image must hold the program of a spec: pure.

Behind an init a missing program is no failed start but an exit with 127, so it is looked for before the start.
"""

import base64
import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kohakuriver.system.engine import ContainerSpec

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_GO_MODE_DIRECTORY, _GO_MODE_SYMLINK = 1 << 31, 1 << 27
_ANY_EXECUTE = 0o111


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image says of itself: its id, its variables, its working directory."""

    id: str
    env: Mapping[str, str]
    working_dir: str


def image_facts(inspected: Mapping[str, Any]) -> ImageFacts:
    """Read Docker's inspect of an image."""
    config = inspected.get("Config") or {}
    pairs = (line.partition("=") for line in config.get("Env") or ())
    return ImageFacts(inspected["Id"], {name: value for name, _, value in pairs}, config.get("WorkingDir") or "/")


def places(spec: ContainerSpec, image: ImageFacts) -> Sequence[str]:
    """Absolute paths of which one must be the program; none when it may come out of a mount, where nobody can look."""
    program, home = spec.command[0], spec.working_dir or image.working_dir
    if "/" in program:
        found = [posixpath.normpath(posixpath.join(home, program))]
    else:
        path = spec.env.get("PATH", image.env.get("PATH", DEFAULT_PATH))
        found = [posixpath.normpath(posixpath.join(home, folder, program)) for folder in path.split(":")]
    return () if any(_is_below(place, mount.target) for place in found for mount in spec.mounts) else found


def can_run(path_stat: str) -> bool:
    """Whether Docker's `X-Docker-Container-Path-Stat` (base64 of JSON, modes as Go writes them) is of a program."""
    mode = int(json.loads(base64.b64decode(path_stat))["mode"])
    return bool(mode & _GO_MODE_SYMLINK or (mode & _ANY_EXECUTE and not mode & _GO_MODE_DIRECTORY))


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
