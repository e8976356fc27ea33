"""The login for the pull of an image: from a file or standard input, never an argument."""

from kohakuriver.client.command import Flag, Order

LOGIN = Flag(
    ("--registry-login-file",),
    "File with USER:PASSWORD for the pull of its image; - is standard input.",
    {"metavar": "FILE"},
)


def login_of(order: Order) -> dict[str, str]:
    """The member of a request that no argument may hold, if a login was given; raises BadRequest."""
    path: str | None = getattr(order.parsed, "registry_login_file", None)
    if path is None:
        return {}
    from kohakuriver.client.asking import content_of  # few need it

    return {"registry_login": content_of(path)}
