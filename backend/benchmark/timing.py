"""Stopwatches and memory gauges that mean the same thing on every row of a table."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

WARM_UP = 2
"""Calls that are not counted: kernels are loaded and memory is asked for in them."""


def clock_of(device: torch.device) -> Callable[[], float]:
    """Processor time of the calling thread, which other processes disturb least; on a GPU the time on the clock."""
    return time.thread_time if device.type == "cpu" else time.perf_counter


def milliseconds(works: list[Callable[[], object]], device: torch.device, seconds: float) -> list[float]:
    """Median milliseconds of each of `works`, called in turn so that what slows the machine slows all of them.

    They are called until `seconds` are over, but at least 3 times and at most 60 times each, after a warm-up.
    """
    clock = clock_of(device)
    spent: list[list[float]] = [[] for _ in works]
    for _ in range(WARM_UP):
        for work in works:
            work()
    wait(device)
    deadline = time.monotonic() + seconds
    while len(spent[0]) < 3 or (len(spent[0]) < 60 and time.monotonic() < deadline):
        for work, laps in zip(works, spent, strict=True):
            start = clock()
            work()
            wait(device)
            laps.append(1e3 * (clock() - start))
    return [median(laps) for laps in spent]


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_megabytes(work: Callable[[], object], device: torch.device) -> float | None:
    """How much memory `work` needs at most beyond what is in use now; None where the system does not tell.

    On a GPU it is what torch allocates. On Linux it is the growth of the process's resident memory, after the C library
    has been asked to return what it keeps in store.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    if not sys.platform.startswith("linux"):
        return None
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
        before = _status("VmRSS")
        work()
        return (_status("VmHWM") - before) / 2**10
    except (OSError, AttributeError, KeyError):  # another C library, or a container that hides it
        return None


def _status(field: str) -> float:
    """Kilobytes of a field of this process's status."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return float(dict(line.split(":", 1) for line in lines)[field].split()[0])
