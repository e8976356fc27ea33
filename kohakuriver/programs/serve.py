"""`kohakuriver host` and `kohakuriver runner`: read the settings, then serve until told to stop."""

import asyncio
import logging
import os

from kohakuriver.client.complaints import Parser
from kohakuriver.model.settings import HostSettings, RunnerSettings
from kohakuriver.programs import joining
from kohakuriver.programs.setting_flags import add_flags, load_from

ABOUT = {
    "host": "The control plane: keeps the queue, places tasks on nodes, answers people.",
    "runner": "The agent of one node: runs what the host places there.",
}


def run(arguments: list[str]) -> int:
    """Serve until SIGTERM or Ctrl-C; workloads go on without us."""
    program = arguments[0]
    if arguments[1:2] == ["join-token"] and program == "host":
        return joining.make_token(arguments[2:])
    if arguments[1:2] == ["tls"] and program == "host":
        from kohakuriver.programs import tls

        return tls.run(arguments[2:])
    if arguments[1:2] == ["join"] and program == "runner":
        return joining.join(arguments[2:])
    name = f"kohakuriver {program}"
    parser = Parser(name, f"{name} [OPTIONS]", ABOUT[program], allow_abbrev=False)
    add_flags(parser, program)
    settings = load_from(program, parser.parse_args(arguments[1:])).settings
    if isinstance(settings, HostSettings):
        start_log(settings.log_level)
        from kohakuriver.host.app import serve as serve_host

        asyncio.run(serve_host(settings))
    elif isinstance(settings, RunnerSettings):
        start_log(settings.log_level)
        from kohakuriver.runner.app import serve as serve_runner

        asyncio.run(serve_runner(settings))
    return 0


def start_log(level: str) -> None:
    """One line for each event, `key=value`, on standard error; the journal adds the time by itself."""
    time = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    logging.basicConfig(level=level, format=time + "%(levelname)s %(name)s: %(message)s")
