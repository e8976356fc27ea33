"""Who is calling, what the least role is that an entry lets in, and whose thing an entry touches.

The role says what one may do, sight says whose things one knows of. A viewer looks on: he sees everything and changes
nothing. A user works: he sees and changes what is his own. Operators and admins see and steer everything. No token or
session sees more, or may do more, than the account behind it. What one does not see does not exist for him (404);
what one sees and may not touch is refused (403).
"""

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


USER_NAME = r"[a-z0-9][a-z0-9_.@-]{0,62}"
GROUP_NAME = r"[a-z0-9][a-z0-9_.-]{0,62}"
PERSONS = (Role.VIEWER, Role.USER, Role.OPERATOR, Role.ADMIN)  # what an account can be


class Ownership(enum.StrEnum):
    """Which thing of somebody's an entry touches, so that the edge can ask whether it is the caller's."""

    NOTHING = "nothing"  # no single thing: a list, a new thing, the cluster
    TASK_READ = "task_read"  # the task named by `task_id`: its owner, whom it is assigned to, all who see everything
    TASK_CONTROL = "task_control"  # the task named by `task_id`: its owner, or an operator
    WORKLOAD_USE = (
        "workload_use"  # being inside the workload `task_id`: its owner, whoever it is assigned to, operators
    )
    TOKEN = "token"  # the API token named by `token_id`: its owner, or an admin
    SESSION = "session"  # the browser session named by `session_id`: its owner, or an admin
    KEY = "key"  # the SSH key named by `key_id`: its owner, or an admin
    JOIN = "join"  # a place in the cluster: only a machine that signs with a join token
    NODE = "node"  # the node named by `hostname`: only that runner itself
    HOST = "host"  # only the host this runner joined
    CONTAINER = "container"  # a container of a runner's, by its name: only that container itself, by its signature


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody whom the edge has identified.

    `user_id` is the account (0: none), `login` what spoke for it (`token:ID`, `session:ID`, `key:ID`, or `vps:ID`: the
    key of a VPS itself), `address` where the request came from. `own_only` stands when the account is a user's, whatever
    the token says.
    """

    name: str
    role: Role
    user_id: int = 0
    login: str = ""
    address: str = ""
    own_only: bool = False

    def may(self, needs: Role) -> bool:
        """Whether the role suffices; a person never passes for a node, nor a node for a person."""
        if Role.NODE in (needs, self.role):
            return needs in (self.role, Role.ANONY)
        return self.role >= needs

    @property
    def vps_key(self) -> int | None:
        """The VPS whose own key spoke for him, if it was one."""
        kind, _, number = self.login.partition(":")
        return int(number) if kind == "vps" else None

    @property
    def sees_all(self) -> bool:
        """Whether other people's things exist for him."""
        return not self.own_only and self.role in (Role.VIEWER, Role.OPERATOR, Role.ADMIN)


NOBODY = Caller("", Role.ANONY)
