"""`kohakuriver auth …`: logins, tokens, invitations, accounts, groups."""

from collections.abc import Iterator
from typing import Any

from kohakuriver.client import auth_view as view
from kohakuriver.client.asking import PASSWORD_STDIN, new_password, password, public_key_in
from kohakuriver.client.command import Command, Flag, Order, show_nothing, shown, shown_now
from kohakuriver.client.flags import Spelling, by_id, whole_id
from kohakuriver.client.output import Column, Table
from kohakuriver.model import auth_api as api
from kohakuriver.model import ssh_api
from kohakuriver.model.access import PERSONS
from kohakuriver.model.errors import BadRequest, NotFound
from kohakuriver.model.runner_api import Nothing

USER = Flag(("user",), "Who; without it you are asked.", {"nargs": "?", "metavar": "USER"})
CA_FINGERPRINT = Flag(
    ("--ca-fingerprint",),
    "Speak TLS, and believe only the CA with this fingerprint (`kohakuriver host tls show` on the host).",
    {"metavar": "SHA256"},
)
ROLES = "|".join(role.label for role in PERSONS)


def role(text: str) -> str:
    """A role that a person can have."""
    if text not in ROLES.split("|"):
        raise ValueError(f"{text[:40]!r} is not one of {ROLES.replace('|', ', ')}")
    return text


ROLE = Spelling(flag="r", metavar=ROLES, parse=role)


def log_in(order: Order) -> int:
    from kohakuriver.client import logins  # help must not wait for the network's modules

    return logins.log_in(order)


def register(order: Order) -> int:
    from kohakuriver.client import logins

    return logins.register(order)


def log_out(order: Order) -> int:
    from kohakuriver.client import logins

    return logins.log_out(order)


def status(order: Order) -> int:
    from kohakuriver.client import logins

    return logins.status(order)


def change_password(order: Order) -> int:
    """Ask for the old one and the new one; returns 0."""
    request = order.request({"old_password": password(order, "Old password"), "new_password": new_password(order)})
    plain = order.session.ask(api.PASSWORD_CHANGE, request)
    order.answer(plain, lambda: order.screen.line("the password is changed; other sessions have ended"))
    return 0


def list_clusters(order: Order) -> int:
    """Print what is remembered, without the tokens."""
    from kohakuriver.client import contexts

    book = contexts.read()
    columns: list[Column[str]] = [
        Column("CLUSTER", lambda name: f"{name} *" if name == book.current else name),
        Column("HOST", lambda name: book.clusters[name].host),
        Column("PORT", lambda name: str(book.clusters[name].port), right=True),
        Column("USER", lambda name: book.clusters[name].user or "-"),
        Column("LOGIN", lambda name: "kept" if book.clusters[name].token else "none"),
    ]
    plain = [
        {"cluster": name, "host": c.host, "port": c.port, "user": c.user, "current": name == book.current}
        for name, c in book.clusters.items()
    ]
    order.answer(plain, lambda: order.screen.lines(Table(columns, order.screen).lines(list(book.clusters))))
    return 0


def use_cluster(order: Order) -> int:
    """Make it the one that is meant when nothing else is said."""
    from dataclasses import replace

    from kohakuriver.client import contexts

    name: str = order.parsed.name
    contexts.change(lambda book: replace(book, current=name if book.get(name) else ""))
    order.answer({"cluster": name}, lambda: order.screen.line(f"{name} is meant from now on"))
    return 0


def forget_cluster(order: Order) -> int:
    """Forget the place and the login, without telling the host."""
    from kohakuriver.client import contexts

    name: str = order.parsed.name
    contexts.change(lambda book: book.without(name))
    order.answer({"cluster": name}, lambda: order.screen.line(f"{name} is forgotten"))
    return 0


def show_new_token(order: Order, made: api.CreatedToken) -> Iterator[str]:
    """The secret alone on standard output, for scripts; it is never shown again."""
    order.notes.hint(f"token {made.token_id}, {made.role.label}, until {made.expires_at}; it is shown this once")
    yield made.token


def revoke_tokens(order: Order) -> int:
    """End those named, or all of a person's."""
    values = order.values()
    words: list[str] = order.parsed.tokens
    if bool(words) == order.has("all"):
        raise BadRequest("give the ids of tokens, or --all")
    if not words:
        plain = order.session.ask(api.TOKEN_REVOKE_ALL, order.request(values))
        order.answer(plain, lambda: order.screen.line(f"{plain['ended']} ended"))
        return 0
    for word in words:
        order.session.ask(api.TOKEN_REVOKE, api.TokenId(token_id=_id(word)))
    order.answer({}, lambda: None)
    return 0


def _id(word: str) -> Any:
    return int(whole_id(word))


def add_key(order: Order) -> int:
    """Let the public key in a file log in over SSH."""
    request = order.request(order.values() | {"public_key": public_key_in(order.parsed.file)})
    plain = order.session.ask(ssh_api.KEY_ADD, request)
    made = order.session.understand(ssh_api.KEY_ADD, plain)
    order.answer(plain, lambda: order.screen.line(f"{made.name} ({made.fingerprint}) may log in over SSH"))
    return 0


def show_new_invitation(order: Order, invited: api.Invited) -> Iterator[str]:
    """The code alone on standard output; it is never shown again."""
    made = invited.invitation
    order.notes.hint(
        f"good for {made.uses} as {made.role.label} until {made.expires_at}, and shown this once; the invited type: "
        "kohakuriver auth register NAME"
    )
    yield invited.code


def set_account(order: Order) -> int:
    """Change what is given of an account."""
    values = order.values()
    if order.has("enable") or order.has("disable"):
        values["disabled"] = order.has("disable")
    if order.has("no_groups"):
        values["groups"] = []
    if order.has("new_password") or order.has("password_stdin"):
        values["password"] = new_password(order)
    if not values:
        raise BadRequest("nothing to change: give --role, --group, --disable, --enable or --new-password")
    account = _account(order, order.parsed.name)
    plain = order.session.ask(api.USER_SET, order.request(values | {"user_id": str(account.user_id)}))
    order.answer(
        plain,
        lambda: order.screen.lines(
            view.account_lines(order.screen, [order.session.understand(api.USER_SET, plain)], order.clock.now())
        ),
    )
    return 0


def delete_accounts(order: Order) -> int:
    """Delete those named."""
    accounts = [_account(order, name) for name in dict.fromkeys(order.parsed.names)]
    for account in accounts:
        order.session.ask(api.USER_DELETE, api.UserId(user_id=account.user_id))
    order.answer({}, lambda: None)
    return 0


def _account(order: Order, name: str) -> api.Account:
    """The account of that name, or with that id; raises NotFound."""
    for account in order.session.call(api.USER_LIST, Nothing()):
        if name in (account.name, str(account.user_id)):
            return account
    raise NotFound(f"there is no account {name[:70]}: `kohakuriver auth user list` shows them")


def show_group(order: Order, group: api.Group) -> Iterator[str]:
    return view.group_lines(order.screen, [group])


LOGIN_MORE = """\
The token that the host gives is kept in ~/.kohakuriver/auth.json, which nobody else can read, and sent
with every command from then on. With several clusters: `auth login --cluster lab --host head`, then
`--cluster lab`, KOHAKURIVER_CLUSTER, or `auth cluster use lab`; without any of them the last one counts.
Programs set KOHAKURIVER_TOKEN instead (`auth token create`); it wins over what is kept.
"""
REGISTER_MORE = """\
The first admin of a new cluster: the host's log names a file that holds a secret.
  kohakuriver auth register ada --bootstrap-file ~/.kohakuriver/host/first_admin_secret
Everybody else: an invitation (`auth invite create`), typed when asked for, or in a file (- is standard input).
"""
GROUP_SPELLED = {"group": Spelling(metavar="GROUP")}
THEIRS = {"user": Spelling(flag="u")}
CLUSTER_NAME = Flag(("name",), "Its name in `auth cluster list`.", {"metavar": "NAME"})
COMMANDS: tuple[Command[Any, Any], ...] = (
    Command(
        "login",
        api.LOGIN,
        act=log_in,
        about="Say who you are, once; the login is kept.",
        hidden=frozenset({"username", "password", "token_name"}),
        extra=(
            USER,
            PASSWORD_STDIN,
            CA_FINGERPRINT,
            Flag(("--token-stdin",), "Read an API token from standard input instead of asking for a password."),
        ),
        also=(api.STATUS, api.ME),
        more=LOGIN_MORE,
        enters=True,
    ),
    Command("logout", api.LOGOUT, act=log_out, about="End the login, here and at the host."),
    Command("status", api.STATUS, act=status, about="Where the host is, and who you are there.", also=(api.ME,)),
    Command(
        "register",
        api.REGISTER,
        act=register,
        about="Make an account by an invitation, and be logged in.",
        hidden=frozenset({"username", "password", "invitation", "token_name"}),
        extra=(
            USER,
            Flag(
                ("--invitation-file", "--bootstrap-file"),
                "File of the invitation, or of the first admin's secret; - is standard input.",
                {"metavar": "FILE"},
            ),
            PASSWORD_STDIN,
            CA_FINGERPRINT,
        ),
        also=(api.STATUS,),
        more=REGISTER_MORE,
        enters=True,
    ),
    Command(
        "password",
        api.PASSWORD_CHANGE,
        act=change_password,
        about="Change your password; your other sessions end.",
        hidden=frozenset({"old_password", "new_password"}),
        extra=(PASSWORD_STDIN,),
    ),
    Command("cluster list", api.STATUS, act=list_clusters, about="The clusters that are remembered here."),
    Command("cluster use", api.STATUS, act=use_cluster, about="Mean this one from now on.", extra=(CLUSTER_NAME,)),
    Command("cluster forget", api.STATUS, act=forget_cluster, about="Forget one.", extra=(CLUSTER_NAME,)),
    Command(
        "token list",
        api.TOKEN_LIST,
        show=shown_now(view.token_lines),
        about="Your API tokens and logins.",
        spelled=THEIRS,
    ),
    Command(
        "token create",
        api.TOKEN_CREATE,
        show=show_new_token,
        about="Make an API token for a program; prints it, this once.",
        spelled={"name": Spelling(flag="n"), "role": ROLE, "expire_days": Spelling("days")},
    ),
    Command(
        "token revoke",
        api.TOKEN_REVOKE_ALL,
        act=revoke_tokens,
        about="End API tokens.",
        spelled=THEIRS,
        extra=(
            Flag(("tokens",), "Their ids.", {"nargs": "*", "metavar": "TOKEN", "type": whole_id}),
            Flag(("--all",), "All of yours; for admins with --user all of that person."),
        ),
        also=(api.TOKEN_REVOKE,),
    ),
    Command("key list", ssh_api.KEY_LIST, show=shown_now(view.key_lines), about="Your SSH keys.", spelled=THEIRS),
    Command(
        "key add",
        ssh_api.KEY_ADD,
        act=add_key,
        about="Let a public key log in over SSH.",
        hidden=frozenset({"public_key"}),
        spelled={"name": Spelling(flag="n")},
        extra=(
            Flag(
                ("file",),
                "The .pub file, - for standard input; without it the one that ssh would use.",
                {"nargs": "?", "metavar": "FILE", "default": ""},
            ),
        ),
    ),
    Command(
        "key delete",
        ssh_api.KEY_DELETE,
        show=show_nothing,
        about="Take SSH keys away; what they opened ends.",
        many=True,
        spelled=by_id("key_id", "KEY"),
    ),
    Command(
        "session list",
        api.SESSION_LIST,
        show=shown_now(view.session_lines),
        about="Your sessions in browsers.",
        spelled=THEIRS,
    ),
    Command(
        "session end",
        api.SESSION_END,
        show=show_nothing,
        about="End sessions.",
        many=True,
        spelled=by_id("session_id", "SESSION"),
    ),
    Command("invite list", api.INVITE_LIST, show=shown_now(view.invitation_lines)),
    Command(
        "invite create",
        api.INVITE_CREATE,
        show=show_new_invitation,
        about="Invite somebody; prints the code, this once.",
        spelled={"role": ROLE, "groups": Spelling("group"), "uses": Spelling(), "expire_hours": Spelling("hours")},
    ),
    Command(
        "invite revoke",
        api.INVITE_REVOKE,
        show=show_nothing,
        many=True,
        spelled=by_id("invitation_id", "INVITATION"),
    ),
    Command("user list", api.USER_LIST, show=shown_now(view.account_lines)),
    Command(
        "user set",
        api.USER_SET,
        act=set_account,
        about="Change an account: role, groups, password, lock it out.",
        hidden=frozenset({"user_id", "disabled", "password"}),
        spelled={"role": ROLE, "groups": Spelling("group", about="A group he is in; those not given he leaves.")},
        extra=(
            Flag(("name",), "Whose.", {"metavar": "USER"}),
            Flag(("--no-groups",), "Take him out of all groups."),
            Flag(("--disable",), "Lock him out; everything of his that is open ends."),
            Flag(("--enable",), "Let him in again."),
            Flag(("--new-password",), "Ask for a new password for him; his sessions end."),
            PASSWORD_STDIN,
        ),
        also=(api.USER_LIST,),
    ),
    Command(
        "user delete",
        api.USER_DELETE,
        act=delete_accounts,
        about="Delete accounts for good.",
        hidden=frozenset({"user_id"}),
        extra=(Flag(("names",), "Whose.", {"nargs": "+", "metavar": "USER"}),),
        also=(api.USER_LIST,),
    ),
    Command("group list", api.GROUP_LIST, show=shown(view.group_lines)),
    Command(
        "group set",
        api.GROUP_SET,
        show=show_group,
        about="Make a group, or set all its limits; a limit not given is none.",
        spelled=GROUP_SPELLED,
    ),
    Command("group delete", api.GROUP_DELETE, show=show_nothing, many=True, spelled=GROUP_SPELLED),
)
