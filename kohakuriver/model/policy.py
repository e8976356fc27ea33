"""What a workload may ask for beyond the ordinary, by who asks: rules `WHO WHAT [VALUE]`, judged without I/O.

WHO is a role (that one and greater ones) or `group:NAME`. WHAT is `privileged`; `mount PATH` (sources below it);
`image PATTERN` or `registry NAME`. Without a rule for it nobody may have the first two, but for mounts below /shared;
devices and the host's network nobody can ask for. Images are free as long as no rule speaks of images or registries;
from then on only what some rule allows is. A pattern has `*` and is compared with the whole name, such as
`docker.io/library/debian:12`.
"""

import fnmatch
import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from kohakuriver.model.access import GROUP_NAME, PERSONS, Role
from kohakuriver.model.task import WorkloadSpec

GROUP = "group:"
SHARED = "/shared"
DEFAULT_REGISTRY, DEFAULT_OWNER = "docker.io", "library"


class What(StrEnum):
    """What a rule gives."""

    PRIVILEGED = "privileged"
    MOUNT = "mount"
    IMAGE = "image"
    REGISTRY = "registry"


IMAGES = (What.IMAGE, What.REGISTRY)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; exactly one of `role` and `group` says whom it is for."""

    role: Role | None
    group: str
    what: What
    value: str = ""

    def is_for(self, asker: "Asker") -> bool:
        """Whether it speaks of him."""
        return self.group in asker.groups if self.role is None else asker.role >= self.role


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks."""

    role: Role
    groups: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        groups = f" in {', '.join(self.groups)}" if self.groups else ""
        return f"{self.role.label}{groups}"


@dataclass(frozen=True, slots=True)
class Policy:
    """All rules in force; `privileged_for_all` is the switch that stood before there were rules."""

    rules: tuple[Rule, ...] = ()
    privileged_for_all: bool = False


def parse_rule(text: str) -> Rule:
    """The rule that a text means; raises ValueError."""
    words = text.split()
    if len(words) < 2:
        raise ValueError(f"{text[:80]!r} is not WHO WHAT [VALUE], such as `operator privileged` or `user mount /data`")
    who, what, values = words[0], words[1], words[2:]
    if what not in list(What):
        raise ValueError(f"{text[:80]!r}: {what[:40]!r} is not one of {', '.join(What)}")
    if len(values) != (0 if what == What.PRIVILEGED else 1):
        raise ValueError(
            f"{text[:80]!r}: {what} takes {'nothing' if what == What.PRIVILEGED else 'one word'} behind it"
        )
    if what == What.MOUNT and (not values[0].startswith("/") or ".." in values[0].split("/")):
        raise ValueError(f"{text[:80]!r}: {values[0][:40]!r} is not an absolute path")
    role, group = _who(text, who)
    value = "".join(values)
    return Rule(role, group, What(what), _normal(value) if what == What.MOUNT else value)


def policy_of(texts: Iterable[str], privileged_for_all: bool) -> Policy:
    """All rules of a configuration; raises ValueError."""
    return Policy(tuple(map(parse_rule, texts)), privileged_for_all)


def refusal(spec: WorkloadSpec, asker: Asker, policy: Policy) -> str:
    """Why he may not have what he asks for; empty text when he may."""
    mine = [rule for rule in policy.rules if rule.is_for(asker)]
    if spec.privileged and not policy.privileged_for_all and not any(r.what is What.PRIVILEGED for r in mine):
        return f"privileged: the configuration does not give it to {asker.told} (POLICY, TASKS_PRIVILEGED)"
    roots = (SHARED, *(rule.value for rule in mine if rule.what is What.MOUNT))
    for mount in spec.additional_mounts:
        source = _normal(mount.partition(":")[0])
        if not any(_below(source, root) for root in roots):
            return f"additional_mounts: {source} is not below {', '.join(roots)}, where {asker.told} may mount (POLICY)"
    if spec.registry_image and not _may_use(spec.registry_image, mine, policy.rules):
        return f"registry_image: {spec.registry_image} is not one that {asker.told} may use (POLICY)"
    return ""


def whole_name(image: str) -> str:
    """An image's name with everything that Docker adds by itself: registry, owner, tag.

    Source: https://pkg.go.dev/github.com/distribution/reference (ParseNormalizedNamed, TagNameOnly).
    """
    first, slash, rest = image.partition("/")
    has_registry = slash and (first == "localhost" or "." in first or ":" in first)
    registry, path = (first.lower(), rest) if has_registry else (DEFAULT_REGISTRY, image)
    if registry in (DEFAULT_REGISTRY, "index.docker.io"):
        registry, path = DEFAULT_REGISTRY, path if "/" in path else f"{DEFAULT_OWNER}/{path}"
    tagged = "@" in path or ":" in path.rpartition("/")[2]
    return f"{registry}/{path}" if tagged else f"{registry}/{path}:latest"


def _may_use(image: str, mine: Sequence[Rule], rules: Sequence[Rule]) -> bool:
    if not any(rule.what in IMAGES for rule in rules):
        return True
    name = whole_name(image)
    registry = name.partition("/")[0]
    return any(
        (rule.what is What.IMAGE and fnmatch.fnmatchcase(name, rule.value))
        or (rule.what is What.REGISTRY and registry == rule.value.lower())
        for rule in mine
    )


def _normal(path: str) -> str:
    return "/" + posixpath.normpath(path).lstrip("/")  # two slashes at the start would stay


def _below(path: str, root: str) -> bool:
    return root == "/" or path == root or path.startswith(root + "/")


def _who(text: str, who: str) -> tuple[Role | None, str]:
    by_label = {role.label: role for role in PERSONS}
    if who in by_label:
        return by_label[who], ""
    group = who.removeprefix(GROUP)
    if not who.startswith(GROUP) or not re.fullmatch(GROUP_NAME, group):
        raise ValueError(f"{text[:80]!r}: {who[:40]!r} is not one of {', '.join(by_label)}, group:NAME")
    return None, group
