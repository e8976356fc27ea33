"""The NVIDIA GPUs of a machine, as `nvidia-smi` lists them."""

import csv
import logging
import math
import os
import shutil
import signal
import subprocess

from kohakuriver.model.node import Gpu
from kohakuriver.system.proc import Roots, pci_numa_node

_log = logging.getLogger(__name__)

FIELDS = (
    "index",
    "name",
    "uuid",
    "driver_version",
    "memory.total",
    "memory.used",
    "utilization.gpu",
    "temperature.gpu",
    "power.draw",
    "pci.bus_id",
)
_MIB = 1024 * 1024
_REAP_SECONDS = 1.0
_SHOWN_CHARACTERS = 200


class NvidiaSmi:
    """Asks `nvidia-smi`; a machine without it has no GPUs, and trouble with it is logged once until it changes."""

    def __init__(self, roots: Roots, program: str = "nvidia-smi", timeout_seconds: float = 10.0) -> None:
        self._roots = roots
        self._program = program
        self._timeout_seconds = timeout_seconds
        self._complaint = ""

    def read(self) -> tuple[Gpu, ...]:
        """The GPUs by index; blocks as long as the program takes, `timeout_seconds` at the most.

        Lines that are not understood (a GPU that fell off its bus is one) are left out.
        """
        path = shutil.which(self._program)
        if path is None:
            self._complain("")
            return ()
        try:
            code, output = self._ask(path)
        except subprocess.TimeoutExpired:
            self._complain(f"no answer within {self._timeout_seconds:g} s")
            return ()
        except OSError as error:
            self._complain(f"cannot be started: {error}")
            return ()
        gpus, strange = parse_gpus(output, self._roots)
        self._complain(_trouble(code, strange))
        return gpus

    def _ask(self, path: str) -> tuple[int, str]:
        process = subprocess.Popen(
            [path, f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C"},
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # so that a wrapper script dies with what it started
        )
        try:
            output, _ = process.communicate(timeout=self._timeout_seconds)
        except subprocess.TimeoutExpired:
            _end(process)
            raise
        return process.returncode, output

    def _complain(self, complaint: str) -> None:
        if complaint and complaint != self._complaint:
            _log.warning("trouble with GPUs program=%s trouble=%s", self._program, complaint)
        self._complaint = complaint


def parse_gpus(output: str, roots: Roots) -> tuple[tuple[Gpu, ...], list[str]]:
    """The GPUs by index, and the lines that are not one; sizes arrive in MiB, "[N/A]" is what a GPU does not tell."""
    gpus: dict[int, Gpu] = {}
    strange: list[str] = []
    for line in filter(None, map(str.strip, output.splitlines())):
        values = next(csv.reader([line], skipinitialspace=True), [])
        if len(values) != len(FIELDS) or not values[0].isdecimal():
            strange.append(line)
            continue
        gpu = _gpu(dict(zip(FIELDS, map(str.strip, values), strict=True)), roots)
        gpus[gpu.index] = gpu
    return tuple(gpus[index] for index in sorted(gpus)), strange


def _gpu(told: dict[str, str], roots: Roots) -> Gpu:
    return Gpu(
        index=int(told["index"]),
        name=told["name"],
        uuid=told["uuid"],
        driver=told["driver_version"],
        memory_bytes=int(_number(told["memory.total"]) or 0) * _MIB,
        memory_used_bytes=int(_number(told["memory.used"]) or 0) * _MIB,
        utilization_percent=_number(told["utilization.gpu"]),
        temperature_celsius=_number(told["temperature.gpu"]),
        power_watts=_number(told["power.draw"]),
        numa_node=pci_numa_node(roots, told["pci.bus_id"]),
    )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _trouble(code: int, strange: list[str]) -> str:
    if code == 0 and not strange:
        return ""
    said = strange[0][:_SHOWN_CHARACTERS] if strange else "nothing"
    return f"exit code {code}, said: {said}"


def _end(process: subprocess.Popen[str]) -> None:
    """Kill a program that hangs; one that hangs inside a driver cannot even be killed, and is then left alone."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=_REAP_SECONDS)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        pass
