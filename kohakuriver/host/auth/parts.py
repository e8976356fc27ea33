"""The parts of the accounts side, made once for a host."""

from dataclasses import dataclass

from kohakuriver.host.auth.accounts import Accounts
from kohakuriver.host.auth.bootstrap import Bootstrap
from kohakuriver.host.auth.notes import Notes
from kohakuriver.host.auth.passwords import Passwords
from kohakuriver.host.auth.throttle import Attempts
from kohakuriver.host.auth.tickets import Tickets
from kohakuriver.host.auth.uses import Uses
from kohakuriver.model.policy import Policy


@dataclass(frozen=True, slots=True)
class Auth:
    """What the endpoints need to know who may do what."""

    enabled: bool
    accounts: Accounts
    attempts: Attempts
    bootstrap: Bootstrap
    notes: Notes
    passwords: Passwords
    policy: Policy
    tickets: Tickets
    uses: Uses
