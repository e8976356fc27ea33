"""The commands of each noun; a noun's table is loaded only when the noun is typed."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

from kohakuriver.client.command import Command


class Noun(NamedTuple):
    """What commands are about."""

    word: str
    about: str
    default: str = ""  # the verb that is meant when none is typed

    def commands(self) -> tuple[Command[Any, Any], ...]:
        table: tuple[Command[Any, Any], ...] = import_module(f"{__name__}.{self.word}").COMMANDS
        return table


NOUNS = (
    Noun("task", "run commands in the cluster, see how they do, read their output"),
    Noun("fs", "files inside what runs or has stopped: look, copy both ways, change"),
    Noun("vps", "workspaces that stay: make, stop, restart, save and share them"),
    Noun("ssh", "into what runs, by the ssh that everybody has", "to"),
    Noun("node", "the machines: what they have, how they feel, which may get tasks"),
    Noun("docker", "environments to run in, the tarballs that carry them, the images of nodes"),
    Noun("auth", "who you are here: log in and out, tokens, invitations, accounts, groups"),
    Noun("connect", "be in a workload that runs: a shell there, or a program"),
    Noun("forward", "reach ports of a workload by local ones"),
    Noun("events", "what changes in the cluster, as it happens"),
    Noun("audit", "who did what to what, from where, with what result"),
)


def with_default_verb(words: Sequence[str]) -> list[str]:
    """The same words, with the verb that a noun means when something else than its verbs follows it."""
    for at, word in enumerate(words):
        noun = next((noun for noun in NOUNS if noun.word == word), None)
        if noun is not None:
            verbs = {command.verb.split()[0] for command in noun.commands()} if noun.default else set()
            rest = words[at + 1 :]
            if verbs and rest and rest[0] not in (*verbs, "-h", "--help"):
                return [*words[: at + 1], noun.default, *rest]
            break
    return list(words)
