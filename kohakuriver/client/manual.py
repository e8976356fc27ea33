"""The words of `kohakuriver --help`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from kohakuriver.client.command import Command
from kohakuriver.client.commands import Noun

WIDE = 22


class Program(NamedTuple):
    """A word that starts something other than a client command; `words` are what may follow it."""

    word: str
    about: str
    usage: str = ""
    words: tuple[str, ...] = ()


PROGRAMS = (
    Program("demo", "a cluster on this machine and a short tour of it, half a minute"),
    Program("dev", "a cluster on this machine to play with; Ctrl-C takes it away", "[--nodes N]"),
    Program("host", "run the control plane; or make a token for a new node", "[join-token|tls]", ("join-token", "tls")),
    Program("runner", "run the agent of this machine; or join a host first", "[join HOST TOKEN]", ("join",)),
    Program("install", "make the host or the runner a service of this machine", "host|runner", ("host", "runner")),
    Program("uninstall", "take that away again", "host|runner", ("host", "runner")),
    Program("cleanup", "take the overlay network out of this machine"),
    Program(
        "config",
        "what is set and by whom, an example file, shell completion",
        "show|example|…",
        ("show", "example", "reference", "completion"),
    ),
    Program("docs", "the pages of the manual, readable offline", "[NAME]"),
    Program("version", "which release this is"),
)
TRY, RUN, ABOUT = PROGRAMS[:2], PROGRAMS[2:8], PROGRAMS[8:]

EXIT_CODES = {
    0: "done",
    1: "failed",
    2: "the command line or the request is wrong",
    3: "there is no such task or node",
    4: "not allowed",
    5: "not possible in the state it is in",
    6: "host or node unreachable, or too busy",
}
USAGE = """\
usage: kohakuriver [--cluster NAME | --host HOST --port PORT] [--json] COMMAND …

One file turns a few machines into one computer: a command goes in, runs in a container
on a node that has room for it, and its output and exit code come out.
"""
EXAMPLES = """\
Examples
  kohakuriver task submit -c 4 -m 8G -- python train.py    queue a command; prints its id
  kohakuriver task logs -f 1234                            its output, as it comes
  kohakuriver task submit --wait -- make test              wait, and end with its exit code
  kohakuriver task list -s pending                         what waits; `task status ID` says why
  kohakuriver node drain alpha --reason 'new disk'         give a node no new tasks
  kohakuriver auth login --host head                       say who you are, once
"""
OPTIONS = """\
Options, before or after the command
  --host HOST, --port PORT   the host; also KOHAKURIVER_HOST and KOHAKURIVER_PORT (127.0.0.1, 8000)
  --cluster NAME             one that `auth login` remembers; else the one logged in to last
  --json                     the host's answer as JSON; errors are JSON too
  -h, --help                 more about any command: kohakuriver task submit --help
Colours stay away with NO_COLOR=1. For completion: source <(kohakuriver config completion bash)
"""


def text(nouns: Mapping[Noun, tuple[Command[Any, Any], ...]]) -> str:
    """The whole help: every word that can be typed, examples, exit codes."""
    verbs = [_noun(noun, commands) for noun, commands in nouns.items()]
    sections = [
        USAGE,
        _programs("Try it", TRY),
        "Use a cluster\n" + "".join(verbs),
        _programs("Run a cluster", RUN),
        _programs("Read", ABOUT),
        EXAMPLES,
        OPTIONS,
        exit_codes(),
    ]
    return "\n".join(sections)


def _programs(title: str, programs: tuple[Program, ...]) -> str:
    return f"{title}\n" + "".join(f"  {f'{p.word} {p.usage}':<{WIDE}} {p.about}\n" for p in programs)


def _noun(noun: Noun, commands: tuple[Command[Any, Any], ...]) -> str:
    lines = [f"  {noun.word} …".ljust(WIDE + 3) + noun.about]
    for command in commands:
        words = f"    {noun.word} {command.verb}".rstrip()
        lines.append(f"{words} ".ljust(WIDE + 3) + command.summary.rstrip("."))
    return "\n".join(lines) + "\n"


def exit_codes() -> str:
    rows = [f"  {code}  {meaning}" for code, meaning in EXIT_CODES.items()]
    waited = "  `task wait` and `--wait` end with the task's own code; 128 + n when signal n ended it"
    return "\n".join(["Exit codes", *rows, waited, "  130 when Ctrl-C ended the command itself", ""])
