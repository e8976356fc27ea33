"""The entry of the program: choose what the command line names, load only that, turn errors into exit codes."""

import os
import sys
from importlib import import_module

from kohakuriver.model.errors import RiverError

PROGRAMS = {
    "host": "serve",
    "runner": "serve",
    "dev": "dev",
    "demo": "demo",
    "config": "config",
    "docs": "docs",
    "install": "install",
    "uninstall": "install",
    "cleanup": "cleanup",
    "version": "version",
    "--version": "version",
}
INTERRUPTED, PIPE_CLOSED = 130, 141  # as a shell counts a program that SIGINT or SIGPIPE ended


def main() -> int:
    """Run what the command line asks for; returns the exit code (0 well, 1 failed, 2 usage; the errors have more)."""
    arguments = sys.argv[1:]
    room = PROGRAMS.get(arguments[0], "") if arguments else ""
    module = f"kohakuriver.programs.{room}" if room else "kohakuriver.client.cli"
    try:
        code: int = import_module(module).run(arguments)
        sys.stdout.flush()
    except RiverError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit has somewhere to go
        return PIPE_CLOSED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(where + (error.strerror or str(error)), 1)
    return code


def _fail(message: str, code: int) -> int:
    print("kohakuriver:", " ".join(message.split("\n")), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
