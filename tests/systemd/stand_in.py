"""What the stand-in for the built file runs: installs itself, or is a service that does as its state directory says."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from kohakuriver.system.clock import SystemClock
from kohakuriver.system.install import InstallOrder, UninstallOrder, install, uninstall
from kohakuriver.system.loops import Loops
from kohakuriver.system.notify import Notifier
from kohakuriver.system.watchdog import start_watchdog


def may_write(path: str) -> bool:
    try:
        with open(path, "w"):
            return True
    except OSError:
        return False


def describe_self(config: str) -> dict[str, object]:
    """What the service finds out about its own rights."""
    return {
        "uid": os.getuid(),
        "home": str(Path.home()),
        "cwd": os.getcwd(),
        "shiv_root": os.environ["SHIV_ROOT"],
        "config": Path(config).read_text(),
        "writes_shiv_root": may_write(os.environ["SHIV_ROOT"] + "/probe"),
        "writes_etc": may_write("/etc/kohakuriver/probe"),
        "writes_usr": may_write("/usr/local/bin/probe"),
        "sees_home": os.access("/root", os.R_OK),
        "sees_boot_id": os.path.exists("/proc/sys/kernel/random/boot_id"),
        "notify_left": "NOTIFY_SOCKET" in os.environ,
    }


def begin_workload(mark: Path) -> None:
    """Start what must outlive a runner, once."""
    if not mark.exists():
        mark.write_text(str(subprocess.Popen(["sleep", "600"], start_new_session=True).pid))


async def serve(config: str) -> None:
    clock, home = SystemClock(), Path.home()
    loops = Loops(clock)
    notifier = Notifier.from_environment(os.environ)
    begin_workload(home / "workload.pid")
    (home / "self.json").write_text(json.dumps(describe_self(config)))

    async def check() -> None:
        if (home / "sick").exists():
            (home / "sick").unlink()
            await asyncio.sleep(600)

    start_watchdog(loops, clock, notifier, check)
    notifier.ready("stand-in is ready")
    await asyncio.Event().wait()


def main(words: list[str]) -> int:
    match words:
        case ["host" | "runner", "--config", config]:
            asyncio.run(serve(config))
            return 0
        case ["install", program]:
            order = InstallOrder(program=program, pyz_path=Path(sys.argv[0]), example_config_text="# example\n")
            return install(order, print)
        case ["uninstall", program]:
            return uninstall(UninstallOrder(program=program, purge=True), print)
    return 2


sys.exit(main(sys.argv[1:]))
