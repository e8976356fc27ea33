"""The machine that a runner stands on: what it has, and how it feels just now."""

import asyncio
import os
from pathlib import Path

from kohakuriver.model.errors import Unavailable
from kohakuriver.model.node import Gpu, Machine, Metrics
from kohakuriver.system import proc
from kohakuriver.system.clock import Clock
from kohakuriver.system.gpu import NvidiaSmi
from kohakuriver.system.latest import Latest
from kohakuriver.system.proc import Roots
from kohakuriver.system.sensors import processor_celsius

GPU_PERIOD_SECONDS = 3.0
SENSOR_PERIOD_SECONDS = 2.0
DISK_PERIOD_SECONDS = 1.0


class Sampler:
    """Reads one machine without ever blocking the event loop; `disk_path` says which disk is meant.

    What may hang (a network disk, a sensor on a slow bus, a GPU driver) is read beside, so that a sample never waits
    long for it and shows the value of a moment ago. Times between samples come from `clock`.
    """

    def __init__(self, clock: Clock, disk_path: Path, roots: Roots | None = None, smi: NvidiaSmi | None = None) -> None:
        self._roots = roots or Roots()
        smi = smi or NvidiaSmi(self._roots)
        self._gpus: Latest[tuple[Gpu, ...]] = Latest(clock, smi.read, (), GPU_PERIOD_SECONDS)
        self._celsius: Latest[float | None] = Latest(
            clock, lambda: processor_celsius(self._roots), None, SENSOR_PERIOD_SECONDS
        )
        self._disk = Latest(clock, lambda: disk_total_and_used(disk_path), (0, 0), DISK_PERIOD_SECONDS)
        self._times = proc.cpu_times(self._roots)

    async def machine(self) -> Machine:
        """What the machine has; waits for the GPUs to answer. Raises Unavailable when the kernel tells of no CPU."""
        gpus = await self._gpus.get(patience_seconds=None)
        return await asyncio.to_thread(read_machine, self._roots, gpus)

    async def sample(self) -> Metrics:
        """How the machine feels; `cpu_percent` is that of the time since the sample before."""
        times, load, memory = await asyncio.to_thread(_read_kernel, self._roots)
        before, self._times = self._times, times
        disk = await self._disk.get()
        return Metrics(
            cpu_percent=proc.busy_percent(before, times),
            load_1m=load,
            memory_total_bytes=memory[0],
            memory_used_bytes=memory[1],
            disk_total_bytes=disk[0],
            disk_used_bytes=disk[1],
            temperature_celsius=await self._celsius.get(),
            gpus=await self._gpus.get(),
        )


def read_machine(roots: Roots, gpus: tuple[Gpu, ...]) -> Machine:
    """What the machine has, with the GPUs found elsewhere; raises Unavailable when the kernel tells of no CPU."""
    cores = proc.logical_cpu_count(roots)
    if not cores:
        raise Unavailable(f"cannot learn how many CPUs there are: neither {roots.sys} nor {roots.proc} tells")
    told = os.uname()
    return Machine(
        cores=cores,
        memory_bytes=proc.memory_total_and_used(roots)[0],
        gpus=gpus,
        numa_nodes=proc.numa_nodes(roots),
        architecture=told.machine,
        kernel=told.release,
    )


def disk_total_and_used(path: Path) -> tuple[int, int]:
    """Bytes of the file system that holds `path`, all and used; zeros when there is no such path. May block."""
    try:
        told = os.statvfs(path)
    except OSError:
        return 0, 0
    return told.f_blocks * told.f_frsize, (told.f_blocks - told.f_bfree) * told.f_frsize


def _read_kernel(roots: Roots) -> tuple[proc.CpuTimes | None, float | None, tuple[int, int]]:
    return proc.cpu_times(roots), proc.load_1m(roots), proc.memory_total_and_used(roots)
