"""Who is calling, what the least role is that an entry lets in, and whose thing an entry touches."""

import enum
from dataclasses import dataclass


class Role(enum.IntEnum):
    """Least to most; NODE is a signed runner and no person ever has it."""

    ANONY = 0
    VIEWER = 1
    USER = 2
    OPERATOR = 3
    ADMIN = 4
    NODE = 9

    @property
    def label(self) -> str:
        return self.name.lower()


class Ownership(enum.StrEnum):
    """Which thing of somebody's an entry touches, so that the edge can ask whether it is the caller's."""

    NOTHING = "nothing"  # no single thing: a list, a new thing, the cluster
    TASK_READ = "task_read"  # the task named by `task_id`: viewers may look at any
    TASK_CONTROL = "task_control"  # the task named by `task_id`: its owner, or an operator
    NODE = "node"  # the node named by `hostname`: only that runner itself
    HOST = "host"  # only the host this runner joined


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody whom the edge has identified."""

    name: str
    role: Role

    def may(self, needs: Role) -> bool:
        """Whether the role suffices; a person never passes for a node, nor a node for a person."""
        if Role.NODE in (needs, self.role):
            return needs in (self.role, Role.ANONY)
        return self.role >= needs


NOBODY = Caller("", Role.ANONY)
