"""Scripts that complete `kohakuriver` in bash, zsh and fish, computed from its parser."""

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from kohakuriver.client.session import Session
from kohakuriver.model import docker_api
from kohakuriver.model import host_api as api
from kohakuriver.model.errors import BadRequest, RiverError
from kohakuriver.model.fields import HOSTNAME
from kohakuriver.model.listing import ListAll, ListMine
from kohakuriver.model.runner_api import Nothing
from kohakuriver.model.settings import ClientSettings

PATIENCE_SECONDS = 1.0  # somebody has pressed Tab
NEWEST = 50
SUBPARSERS = argparse._SubParsersAction


@dataclass(frozen=True, slots=True)
class Word:
    """Something that can be typed, and what it means."""

    text: str
    about: str = ""


@dataclass(slots=True)
class Place:
    """What can follow certain words: further words, options, and for each option and for what stands free its values.

    Values are words, or the name of what the host is asked for (`task`, `node`).
    """

    path: str
    words: list[Word] = field(default_factory=list)
    options: list[Word] = field(default_factory=list)
    values: dict[str, list[str]] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)


FREE = ""  # the key of values that are not an option's


def candidates(words: Sequence[str], settings: ClientSettings) -> list[str]:
    """What the host has of a kind (`task`, `node`), for the shell to offer; nothing when it does not answer."""
    session = Session(settings, PATIENCE_SECONDS)
    try:
        if words[:1] == ["task"]:
            tasks = session.call(api.TASK_LIST, ListAll(limit=NEWEST))
            return [str(task.task_id) for task in tasks]
        if words[:1] in (["vps"], ["workload"]):
            return _vps_names(session) + (candidates(["task"], settings) if words == ["workload"] else [])
        if words[:1] == ["node"]:
            names = [node.hostname for node in session.call(api.NODE_LIST, Nothing())]
            return [name for name in names if re.fullmatch(HOSTNAME, name)]  # the shell expands what it is offered
        if words[:1] in (["environment"], ["tarball"]):
            tarballs = session.call(docker_api.TARBALL_LIST, Nothing())
            return sorted({t.environment if words == ["environment"] else t.stem for t in tarballs})
    except RiverError:
        pass
    finally:
        session.close()
    return []


def _vps_names(session: Session) -> list[str]:
    from kohakuriver.model.vps_api import VPS_MY

    found = session.call(VPS_MY, ListMine(limit=NEWEST))
    return [vps.name or str(vps.task_id) for vps in found]


def completion_script(shell: str, parser: argparse.ArgumentParser | None = None) -> str:
    """The script for `bash`, `zsh` or `fish` to read; raises BadRequest for another shell."""
    if parser is None:
        from kohakuriver.client.parser import build_parser

        parser = build_parser()
    places = list(_places(parser, ()))
    if shell == "bash":
        return _sh(places, parser.prog, BASH)
    if shell == "zsh":
        return _sh(places, parser.prog, ZSH)
    if shell == "fish":
        return _fish(places, parser.prog)
    raise BadRequest(f"there is no completion for {shell[:40]!r}: choose bash, zsh or fish")


def _places(parser: argparse.ArgumentParser, path: tuple[str, ...]) -> Iterator[Place]:
    place = Place(" ".join(path))
    for action in parser._actions:
        if isinstance(action, SUBPARSERS):
            abouts = {choice.dest: choice.help or "" for choice in action._choices_actions}
            place.words += [Word(word, abouts.get(word, "")) for word in action.choices]
            for word, below in action.choices.items():
                yield from _places(below, (*path, word))
            continue
        about = (action.help or "").replace("%%", "%").split(". ")[0].rstrip(".")
        place.options += [Word(option, about) for option in action.option_strings]
        for key in action.option_strings or [FREE]:
            _add_values(place, key, action)
    yield place


def _add_values(place: Place, key: str, action: argparse.Action) -> None:
    kind = getattr(action, "complete", "")
    if action.choices:
        place.values[key] = [str(choice) for choice in action.choices]
    elif kind:
        place.asked[key] = kind
    elif action.nargs != 0:
        place.values[key] = []


OFFERS = """\
# Sets `offered` to what can stand at word number $1 of the words that follow; fails where a file name may stand.
_{name}_offers() {{
    local at=$1 number=-1 place= skip= before= current= word=
    shift
    for word in "$@"; do
        number=$((number + 1))
        if [[ $number -eq $at ]]; then current=$word; break; fi
        before=$word
        if [[ $number -eq 0 ]]; then continue; fi
        if [[ -n $skip ]]; then skip=; continue; fi
        case $word in
            --) return 1 ;;
            --host|--port|--cluster|--ca-file) skip=1 ;;
            -*) ;;
            *) case "$place${{place:+ }}$word" in
{moves}
               esac ;;
        esac
    done
    case "$place:$before" in
{after}
    esac
    case "$place" in
{within}
    esac
    if [[ $current != -* ]]; then case "$place" in
{free}
    esac; fi
    return 0
}}
"""
BASH = """\
_{name}() {{
    local offered=
    COMPREPLY=()
    if _{name}_offers "$COMP_CWORD" "${{COMP_WORDS[@]}}"; then
        mapfile -t COMPREPLY < <(compgen -W "$offered" -- "${{COMP_WORDS[COMP_CWORD]}}")
    else
        compopt -o default
    fi
}}
complete -F _{name} {prog} {prog}.pyz
"""
ZSH = """\
_{name}() {{
    local offered=
    if _{name}_offers "$((CURRENT - 1))" "${{words[@]}}"; then compadd -- ${{=offered}}; else _files; fi
}}
compdef _{name} {prog} {prog}.pyz
"""


def _sh(places: Sequence[Place], prog: str, own: str) -> str:
    """What bash and zsh read alike, then what is a shell's own."""
    moves = [f'                "{place.path}") place="{place.path}" ;;' for place in places if place.path]
    after: list[str] = []
    within: list[str] = []
    free: list[str] = []
    for place in places:
        within.append(f'        "{place.path}") offered="{_texts([*place.words, *place.options])}" ;;')
        for key, offer in _offers(place, prog):
            if key:
                after.append(f'        "{place.path}:{key}") {offer} ;;')
            else:
                free.append(f'        "{place.path}") {offer or "return 1"} ;;')
    name = prog.replace("-", "_")
    lines = {"moves": moves, "after": after, "within": within, "free": free}
    filled = {part: "\n".join(made) or "        *) ;;" for part, made in lines.items()}
    return OFFERS.format(name=name, **filled) + own.format(name=name, prog=prog)


def _texts(words: Sequence[Word]) -> str:
    return " ".join(word.text for word in words)


def _offers(place: Place, prog: str) -> Iterator[tuple[str, str]]:
    """For each option that takes a value, and for what stands free, the shell's statement that offers it."""
    done = {True: "return 0", False: ":"}
    for key, values in place.values.items():
        yield key, f'offered+=" {" ".join(values)}"; {done[bool(key)]}' if values else "return 1"
    for key, kind in place.asked.items():
        yield key, f'offered+=" $({prog} __complete {kind} 2>/dev/null)"; {done[bool(key)]}'


def _fish(places: Sequence[Place], prog: str) -> str:
    lines = [f"complete -c {prog} -e", f"complete -c {prog} -f"]
    for place in places:
        here = f"complete -c {prog} -n {_quoted(_condition(place))}"
        lines += [f"{here} -a {word.text} -d {_quoted(word.about)}" for word in place.words]
        for option in place.options:
            letter = "-l" if option.text.startswith("--") else "-s"
            lines.append(
                f"{here} {letter} {option.text.lstrip('-')} -d {_quoted(option.about)}{_fish_values(place, option)}"
            )
        for key, values in place.values.items():
            lines += [f"{here} -a {_quoted(' '.join(values))}"] if key == FREE and values else []
        lines += [f"{here} -a '({prog} __complete {place.asked[FREE]} 2>/dev/null)'"] if FREE in place.asked else []
    return "\n".join(lines) + "\n"


def _fish_values(place: Place, option: Word) -> str:
    if option.text in place.asked:
        return f" -x -a '(kohakuriver __complete {place.asked[option.text]} 2>/dev/null)'"
    if option.text in place.values:
        values = place.values[option.text]
        return f" -x -a {_quoted(' '.join(values))}" if values else " -r -F"
    return ""


def _condition(place: Place) -> str:
    """When fish offers what belongs to a place: its words have been typed, in this order, and none that leads on."""
    typed = [f"__fish_seen_subcommand_from {word}" for word in place.path.split()]
    on = " ".join(word.text for word in place.words)
    return "; and ".join(typed + ([f"not __fish_seen_subcommand_from {on}"] if on else [])) or "true"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
