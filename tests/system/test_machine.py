"""The machine and its metrics, read from made-up kernel trees and from programs that behave badly."""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from kohakuriver.model.errors import Unavailable
from kohakuriver.model.node import Metrics, NumaNode
from kohakuriver.system import proc
from kohakuriver.system.gpu import FIELDS, NvidiaSmi, parse_gpus
from kohakuriver.system.latest import Latest
from kohakuriver.system.machine import Sampler, disk_total_and_used, read_machine
from kohakuriver.system.proc import Roots
from kohakuriver.system.sensors import processor_celsius
from tests.manual_clock import ManualClock

TWO_GPUS = """\
0, NVIDIA A100-SXM4-80GB, GPU-aa, 550.54.15, 81920, 1024, 37, 41, 88.52, 00000000:65:00.0
1, NVIDIA A100-SXM4-80GB, GPU-bb, 550.54.15, 81920, 0, 0, 39, 60.10, 00000000:CA:00.0
"""


@dataclass
class Tree:
    """A made-up /proc and /sys under one directory."""

    top: Path

    @property
    def roots(self) -> Roots:
        return Roots(proc=self.top / "proc", sys=self.top / "sys")

    def write(self, path: str, text: str) -> None:
        file = self.top / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def ticks(self, *modes: int) -> None:
        """Set the first line of /proc/stat: user nice system idle iowait irq softirq steal guest guest_nice."""
        self.write("proc/stat", f"cpu  {' '.join(map(str, modes))}\ncpu0 1 2\ncpu1 1 2\nintr 7\n")

    def thermal_zone(self, index: int, kind: str, milli: int) -> None:
        self.write(f"sys/class/thermal/thermal_zone{index}/type", f"{kind}\n")
        self.write(f"sys/class/thermal/thermal_zone{index}/temp", f"{milli}\n")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "tree")


@pytest.fixture
def two_sockets(tree: Tree) -> Tree:
    """Two sockets of four CPUs each, a GPU beside each, and one node that is only memory."""
    tree.ticks(100, 0, 50, 800, 50, 0, 0, 0, 0, 0)
    tree.write("proc/loadavg", "1.25 0.90 0.40 2/345 6789\n")
    tree.write("proc/meminfo", "MemTotal:       2000 kB\nMemFree:         100 kB\nMemAvailable:   1500 kB\n")
    tree.write("sys/devices/system/cpu/online", "0-7\n")
    tree.write("sys/devices/system/node/online", "0-2\n")
    for index, cpus in enumerate(("0-1,4-5\n", "2-3,6-7\n", "\n")):
        tree.write(f"sys/devices/system/node/node{index}/cpulist", cpus)
        tree.write(f"sys/devices/system/node/node{index}/meminfo", f"Node {index} MemTotal:  {1000 + index} kB\n")
    tree.write("sys/bus/pci/devices/0000:65:00.0/numa_node", "0\n")
    tree.write("sys/bus/pci/devices/0000:ca:00.0/numa_node", "1\n")
    return tree


def program(folder: Path, script: str) -> str:
    """Place a shell script that stands in for nvidia-smi."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "nvidia-smi"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(file)


def printing(folder: Path, text: str, code: int = 0) -> str:
    (folder / "said").write_text(text)
    return program(folder, f"cat {folder}/said; exit {code}")


def test_the_machine_is_what_the_kernel_and_the_gpu_driver_tell(two_sockets: Tree) -> None:
    gpus, _ = parse_gpus(TWO_GPUS, two_sockets.roots)
    machine = read_machine(two_sockets.roots, gpus)
    assert machine.cores == 8
    assert machine.memory_bytes == 2000 * 1024
    assert machine.numa_nodes == (
        NumaNode(index=0, cpu_ids=(0, 1, 4, 5), memory_bytes=1000 * 1024),
        NumaNode(index=1, cpu_ids=(2, 3, 6, 7), memory_bytes=1001 * 1024),
    )
    assert [gpu.numa_node for gpu in machine.gpus] == [0, 1]
    assert machine.architecture == os.uname().machine


def test_this_real_machine_has_cpus_and_memory_whatever_this_process_may_use(tmp_path: Path) -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        machine = read_machine(Roots(), ())
    finally:
        os.sched_setaffinity(0, allowed)
    assert machine.cores == os.cpu_count()
    assert machine.memory_bytes == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert {cpu for node in machine.numa_nodes for cpu in node.cpu_ids} <= set(range(machine.cores))


def test_without_a_list_of_online_cpus_the_lines_of_proc_stat_are_counted(tree: Tree) -> None:
    tree.ticks(0, 0, 0, 0, 0, 0, 0, 0)
    assert read_machine(tree.roots, ()).cores == 2


def test_a_kernel_that_tells_of_no_cpu_is_refused(tree: Tree) -> None:
    with pytest.raises(Unavailable, match="how many CPUs"):
        read_machine(tree.roots, ())


def test_a_kernel_without_numa_has_no_numa_nodes(tree: Tree) -> None:
    tree.write("sys/devices/system/cpu/online", "0")
    assert read_machine(tree.roots, ()).numa_nodes == ()


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("0-3,8\n", (0, 1, 2, 3, 8)),
        ("5", (5,)),
        ("", ()),
        ("3-1", ()),
        ("a-b", ()),
        ("1,,2", (1, 2)),
        ("-1", ()),
        ("1-", (1,)),
    ],
)
def test_a_cpu_list_is_read_as_the_kernel_writes_it(text: str, ids: tuple[int, ...]) -> None:
    assert proc.cpu_list(text) == ids


def test_cpu_percent_counts_steal_but_neither_idle_nor_waiting_nor_guests_twice() -> None:
    before = proc.CpuTimes(busy=100, total=1000)
    assert proc.busy_percent(before, proc.CpuTimes(busy=130, total=1200)) == 15.0
    assert proc.busy_percent(before, proc.CpuTimes(busy=99, total=1200)) == 0.0
    assert proc.busy_percent(before, proc.CpuTimes(busy=400, total=1200)) == 100.0
    assert proc.busy_percent(before, before) is None
    assert proc.busy_percent(None, before) is None


def test_the_ticks_of_proc_stat_are_summed_by_mode(tree: Tree) -> None:
    tree.ticks(1, 2, 4, 1000, 500, 8, 16, 32, 1, 2)
    assert proc.cpu_times(tree.roots) == proc.CpuTimes(busy=63, total=1563)


@pytest.mark.parametrize("text", ["", "cpu  1 2 3\n", "cpu0 1 2 3 4 5 6 7 8\n", "cpu  a b c d e f g h\n", "\xff"])
def test_strange_proc_stat_is_a_reading_that_is_not_there(tree: Tree, text: str) -> None:
    tree.write("proc/stat", text)
    assert proc.cpu_times(tree.roots) is None


def test_memory_used_is_what_a_new_program_could_not_get(two_sockets: Tree) -> None:
    assert proc.memory_total_and_used(two_sockets.roots) == (2000 * 1024, 500 * 1024)


def test_the_processor_is_as_hot_as_its_hottest_own_monitor(tree: Tree) -> None:
    for index, (chip, milli) in enumerate([("nvme", 90_000), ("coretemp", 55_000), ("coretemp", 61_500)]):
        tree.write(f"sys/class/hwmon/hwmon{index}/name", f"{chip}\n")
        tree.write(f"sys/class/hwmon/hwmon{index}/temp1_input", f"{milli}\n")
    tree.write("sys/class/hwmon/hwmon1/temp2_input", "255000\n")  # not wired
    tree.thermal_zone(0, "x86_pkg_temp", 70_000)
    assert processor_celsius(tree.roots) == 61.5


def test_without_a_monitor_the_zone_of_a_processor_counts_and_else_any_zone(tree: Tree) -> None:
    assert processor_celsius(tree.roots) is None
    tree.thermal_zone(0, "acpitz", 27_800)
    assert processor_celsius(tree.roots) == 27.8
    tree.thermal_zone(1, "CPU-therm", 48_000)
    tree.thermal_zone(2, "cpu-2-therm", -273_000)
    assert processor_celsius(tree.roots) == 48.0


def test_the_disk_is_the_one_under_the_path(tmp_path: Path) -> None:
    told = os.statvfs(tmp_path)
    total, used = disk_total_and_used(tmp_path)
    assert total == told.f_blocks * told.f_frsize and 0 < used < total
    assert disk_total_and_used(tmp_path / "nowhere") == (0, 0)


def test_gpus_are_read_with_sizes_in_bytes(two_sockets: Tree, tmp_path: Path) -> None:
    gpus = NvidiaSmi(two_sockets.roots, printing(tmp_path, TWO_GPUS)).read()
    first = gpus[0]
    assert (first.index, first.name, first.uuid, first.driver) == (0, "NVIDIA A100-SXM4-80GB", "GPU-aa", "550.54.15")
    assert (first.memory_bytes, first.memory_used_bytes) == (80 * 1024**3, 1024**3)
    assert (first.utilization_percent, first.temperature_celsius, first.power_watts) == (37.0, 41.0, 88.52)
    assert [gpu.index for gpu in gpus] == [0, 1]


def test_the_program_is_asked_for_exactly_the_fields_that_are_read(two_sockets: Tree, tmp_path: Path) -> None:
    smi = program(tmp_path, f'printf "%s\\n" "$@" > {tmp_path}/asked')
    NvidiaSmi(two_sockets.roots, smi).read()
    asked = (tmp_path / "asked").read_text().split()
    assert asked == [f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"]


def test_what_a_gpu_does_not_tell_is_none(tree: Tree) -> None:
    line = "0, Some GPU, [Unknown Error], [N/A], [N/A], [Not Supported], [N/A], N/A, nan, 00000000:01:00.0"
    (gpu,), strange = parse_gpus(line, tree.roots)
    assert strange == []
    assert (gpu.memory_bytes, gpu.utilization_percent, gpu.temperature_celsius, gpu.power_watts) == (
        0,
        None,
        None,
        None,
    )
    assert gpu.numa_node is None


@pytest.mark.parametrize("bus_id", ["00000000:65:00.0", "0000:65:00.0", "0:65:00.0"])
def test_a_gpu_is_found_in_sys_however_its_bus_id_is_written(two_sockets: Tree, bus_id: str) -> None:
    assert proc.pci_numa_node(two_sockets.roots, bus_id) == 0


@pytest.mark.parametrize("bus_id", ["", "[N/A]", "../../x", "0000:../x:00.0", "0000:ff:00.0"])
def test_a_bus_id_that_leads_nowhere_has_no_numa_node(two_sockets: Tree, bus_id: str) -> None:
    assert proc.pci_numa_node(two_sockets.roots, bus_id) is None


def test_firmware_that_names_no_numa_node_gives_none(tree: Tree) -> None:
    tree.write("sys/bus/pci/devices/0000:01:00.0/numa_node", "-1\n")
    assert proc.pci_numa_node(tree.roots, "00000000:01:00.0") is None


def test_a_machine_without_the_program_has_no_gpus_and_nothing_is_logged(
    tree: Tree, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert NvidiaSmi(tree.roots, str(tmp_path / "nvidia-smi")).read() == ()
    assert caplog.text == ""


def test_a_gpu_that_fell_off_its_bus_is_left_out_and_told_of_once(
    tree: Tree, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lost = "Unable to determine the device handle for GPU0000:CA:00.0: Unknown Error\n"
    smi = NvidiaSmi(tree.roots, printing(tmp_path, TWO_GPUS.splitlines()[0] + "\n" + lost, code=255))
    with caplog.at_level(logging.WARNING):
        assert [[gpu.index for gpu in smi.read()] for _ in range(5)] == [[0]] * 5
    assert len(caplog.records) == 1
    assert "exit code 255" in caplog.text and "device handle" in caplog.text


def test_trouble_is_told_of_again_when_it_comes_back(
    tree: Tree, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    smi = NvidiaSmi(tree.roots, printing(tmp_path, "", code=9))
    smi.read()
    printing(tmp_path, TWO_GPUS)
    smi.read()
    printing(tmp_path, "", code=9)
    smi.read()
    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    "script",
    ["echo 'NVIDIA-SMI has failed'; exit 9", "echo", "head -c 3000 /dev/urandom", "kill -9 $$", "exit 1"],
)
def test_broken_output_is_no_gpu_and_no_error(tree: Tree, tmp_path: Path, script: str) -> None:
    assert NvidiaSmi(tree.roots, program(tmp_path, script)).read() == ()


def test_a_program_that_cannot_be_started_is_no_gpu_and_no_error(
    tree: Tree, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/nonexistent/interpreter\n")
    smi.chmod(0o755)
    assert NvidiaSmi(tree.roots, str(smi)).read() == ()
    assert "cannot be started" in caplog.text


def test_a_program_that_hangs_is_killed_with_all_that_it_started(
    tree: Tree, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    smi = program(tmp_path, f"sleep 60 & echo $! > {tmp_path}/child; wait")
    began = time.monotonic()
    assert NvidiaSmi(tree.roots, smi, timeout_seconds=1.0).read() == ()
    assert time.monotonic() - began < 5
    assert "no answer within 1 s" in caplog.text
    child = int((tmp_path / "child").read_text())
    state = proc.text_of(Path(f"/proc/{child}/stat")).rpartition(")")[2].split()
    assert state[:1] in ([], ["Z"])


def play(script: Callable[[ManualClock], Awaitable[None]]) -> None:
    async def body() -> None:
        await script(ManualClock())

    asyncio.run(body())


def test_a_slow_reading_never_keeps_anyone_waiting_and_arrives_when_it_is_there() -> None:
    async def script(clock: ManualClock) -> None:
        release, calls = threading.Event(), 0

        def read() -> str:
            nonlocal calls
            calls += 1
            release.wait(10)
            return "new"

        latest = Latest(clock, read, "old", period_seconds=5)
        assert await latest.get(patience_seconds=0.01) == "old"
        await clock.advance(100)
        assert await latest.get(patience_seconds=0.01) == "old"
        assert calls == 1
        release.set()
        assert await latest.get(patience_seconds=None) == "new"

    play(script)


def test_a_reading_is_taken_once_a_period_however_many_ask() -> None:
    async def script(clock: ManualClock) -> None:
        calls = iter(range(100))
        latest = Latest(clock, lambda: next(calls), -1, period_seconds=5)
        assert await asyncio.gather(*(latest.get(None) for _ in range(10))) == [0] * 10
        await clock.advance(4.9)
        assert await latest.get(None) == 0
        await clock.advance(0.2)
        assert await latest.get(None) == 1

    play(script)


def test_a_reading_that_ends_after_its_loop_is_gone_disturbs_nobody() -> None:
    release, ended = threading.Event(), threading.Event()

    def read() -> int:
        release.wait(10)
        ended.set()
        return 1

    async def script(clock: ManualClock) -> None:
        await Latest(clock, read, 0, period_seconds=1).get(patience_seconds=0.01)

    play(script)
    release.set()
    assert ended.wait(10)
    for thread in threading.enumerate():
        if thread.name == "reading":
            thread.join(10)


def test_a_sample_has_everything_that_the_tree_tells(two_sockets: Tree, tmp_path: Path) -> None:
    two_sockets.thermal_zone(0, "x86_pkg_temp", 50_000)

    async def script(clock: ManualClock) -> None:
        smi = NvidiaSmi(two_sockets.roots, printing(tmp_path, TWO_GPUS))
        sampler = Sampler(clock, tmp_path, two_sockets.roots, smi)
        machine = await sampler.machine()
        two_sockets.ticks(125, 0, 50, 875, 50, 0, 0, 0, 0, 0)
        metrics = await sampler.sample()
        assert metrics.cpu_percent == 25.0
        assert metrics.load_1m == 1.25
        assert (metrics.memory_total_bytes, metrics.memory_used_bytes) == (2000 * 1024, 500 * 1024)
        assert metrics.disk_total_bytes > metrics.disk_used_bytes > 0
        assert metrics.temperature_celsius == 50.0
        assert metrics.gpus == machine.gpus and len(metrics.gpus) == 2

    play(script)


def test_a_machine_that_tells_nothing_gives_an_empty_sample(tree: Tree, tmp_path: Path) -> None:
    async def script(clock: ManualClock) -> None:
        smi = NvidiaSmi(tree.roots, str(tmp_path / "no-smi"))
        assert await Sampler(clock, tmp_path / "nowhere", tree.roots, smi).sample() == Metrics()

    play(script)


def test_sampling_goes_on_while_the_gpu_driver_hangs(two_sockets: Tree, tmp_path: Path) -> None:
    async def script(clock: ManualClock) -> None:
        smi = NvidiaSmi(two_sockets.roots, program(tmp_path, "exec sleep 60"), timeout_seconds=1.0)
        sampler = Sampler(clock, tmp_path, two_sockets.roots, smi)
        began = time.monotonic()
        metrics = await sampler.sample()
        assert time.monotonic() - began < 0.9
        assert metrics.gpus == () and metrics.memory_total_bytes == 2000 * 1024
        assert (await sampler.machine()).gpus == ()

    play(script)
