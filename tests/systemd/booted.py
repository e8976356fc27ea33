"""A real systemd as PID 1 of its own namespaces, over a throw-away layer on this machine's file system."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NEEDED = ("python3", "bash", "unshare", "nsenter", "mount", "pivot_root", "systemd-analyze", "useradd")
SYSTEMD = "/lib/systemd/systemd"
BOOT_SECONDS = 60.0

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # what systemd gives to services

# A control group of its own, made before the namespace of them, so that this systemd finds no process but its own.
_OWN_GROUP = """
set -e
cd "$1"
mkdir -p groups
mount -t cgroup2 cgroup2 groups
mkdir -p groups/$2
echo 0 > groups/$2/cgroup.procs
exec unshare --pid --uts --ipc --net --cgroup --mount --fork --kill-child bash -c "$3" boot "$1"
"""
_REMOVE_GROUP = """
cd "$1"
mount -t cgroup2 cgroup2 groups
for attempt in $(seq 100); do
    find groups/$2 -depth -type d -exec rmdir {} + 2> errors && exit 0
    sleep 0.05
done
cat errors
exit 1
"""

# Only the journal is started: what else a machine does at boot would reach the kernel that all of us share, and for
# the same reason /proc/sys and /sys are read-only in there.
_BOOT = """
set -e
cd "$1"
mkdir -p scratch root
mount -t tmpfs tmpfs scratch
mkdir scratch/upper scratch/work
mount -t overlay overlay -o lowerdir=/,upperdir=scratch/upper,workdir=scratch/work root
R=$1/root
rm -rf $R/etc/systemd/system/*.wants
find $R/lib/systemd/system/ -name '*.wants' -prune -exec rm -rf {} +
mkdir $R/lib/systemd/system/sysinit.target.wants
ln -s ../systemd-journald.service $R/lib/systemd/system/sysinit.target.wants/
rm -rf $R/etc/kohakuriver $R/var/lib/kohakuriver $R/var/cache/kohakuriver $R/etc/systemd/system/kohakuriver-*
cp -r "$1/into-root/." $R/
mount -t proc proc $R/proc
mount --bind $R/proc/sys $R/proc/sys
mount -o remount,bind,ro $R/proc/sys
mount -t sysfs -o ro sysfs $R/sys
mount -t cgroup2 cgroup2 $R/sys/fs/cgroup
for place in run tmp dev; do mount -t tmpfs tmpfs $R/$place; done
for device in null zero full random urandom tty; do
    touch $R/dev/$device
    mount --bind /dev/$device $R/dev/$device
done
mkdir $R/dev/pts $R/dev/shm $R/dev/mqueue $R/dev/hugepages
mount -t devpts -o newinstance,ptmxmode=0666 devpts $R/dev/pts
ln -s pts/ptmx $R/dev/ptmx
ln -s /proc/self/fd $R/dev/fd
mkdir $R/.old
cd $R
pivot_root . .old
umount -l /.old
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    /lib/systemd/systemd --system --unit=multi-user.target --log-target=journal --show-status=0
"""


@dataclass(frozen=True)
class Booted:
    """A running system; `pid` is that of its systemd, as seen from outside."""

    pid: int

    def run(self, *command: str, check: bool = True) -> str:
        """What a command prints inside, stripped; raises AssertionError with its words when it fails."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.pid), "-a", "--", *command],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env={"PATH": SYSTEM_PATH},
            timeout=60,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return (done.stdout + done.stderr).strip()

    def inside(self, path: str) -> Path:
        """Where a file of it is seen from outside."""
        return Path(f"/proc/{self.pid}/root") / path.lstrip("/")

    def shows(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit)

    def journal(self, unit: str) -> str:
        """What a unit has logged."""
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")


def lacking() -> list[str]:
    """What this machine lacks for it; empty when it can be done."""
    missing = [name for name in NEEDED if shutil.which(name, path=SYSTEM_PATH) is None]
    if not os.path.exists(SYSTEMD):
        missing.append("systemd")
    return missing if os.geteuid() == 0 else [*missing, "root's rights"]


@contextmanager
def booted_systemd(folder: Path) -> Iterator[Booted]:
    """Boot it; whatever lies in `folder`/into-root is laid over the file system. Everything is gone afterwards."""
    group = f"kohakuriver-test-{os.getpid()}"
    with (folder / "boot.log").open("w+b") as log:
        unshare = subprocess.Popen(
            ["unshare", "--mount", "bash", "-c", _OWN_GROUP, "boot", str(folder), group, _BOOT],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            yield _wait_until_up(unshare, folder / "boot.log")
        finally:
            unshare.kill()
            unshare.wait()
            subprocess.run(["unshare", "--mount", "bash", "-c", _REMOVE_GROUP, "clean", str(folder), group], check=True)


def _wait_until_up(unshare: "subprocess.Popen[bytes]", log: Path) -> Booted:
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline:
        assert unshare.poll() is None, f"the boot ended: {log.read_text()}"
        children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
        if children and Path(f"/proc/{children[0]}/comm").read_text().strip() == "systemd":
            system = Booted(int(children[0]))
            if system.run("systemctl", "is-active", "multi-user.target", check=False) == "active":
                return system
        time.sleep(0.05)
    raise AssertionError(f"no systemd after {BOOT_SECONDS} s: {log.read_text()}")
