"""A request for a workload, as it was typed, with what goes along with it and no argument may hold."""

from typing import Any

from kohakuriver.client.command import Order
from kohakuriver.client.registry_login import login_of
from kohakuriver.client.secret_variables import sort_out, value_of


def submission_of(order: Order) -> dict[str, Any]:
    """The members of the request; raises BadRequest for a secret that cannot be had."""
    values = order.values() | login_of(order)
    values |= sort_out(values.pop("env_vars", {}), value_of)
    values.setdefault("idempotency_key", order.new_key())  # a lost answer may be asked for again
    return values
