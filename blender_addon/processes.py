"""Asking the operating system about a process by its number: is it alive, what is it, end it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path


def is_alive(pid: int, child: subprocess.Popen | None = None) -> bool:
    """Whether the process runs. `child` is the handle of what was started here, which may be that process."""
    if child is not None and child.pid == pid:
        return child.poll() is None
    if os.name == "nt":
        return _is_alive_on_windows(pid)
    with contextlib.suppress(OSError):  # an ended child of a handle that is gone would else stay a zombie
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return not _has_ended_on_linux(pid)


def command_line(pid: int) -> str:
    """What the process was started with, words joined by spaces; empty where the system does not tell."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if sys.platform.startswith("linux"):
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", errors="surrogateescape")
        if sys.platform == "darwin":
            asked = ["ps", "-o", "command=", "-p", str(pid)]
            return subprocess.run(asked, capture_output=True, text=True, timeout=5).stdout
    return ""


def end_process(pid: int, hard: bool, with_group: bool) -> None:
    """End a process, or with it the group that it leads; `hard` leaves it no choice (on Windows it never has one)."""
    if os.name == "nt":
        subprocess.run(["taskkill", "/T", "/F", "/PID", str(pid)], capture_output=True)
        return
    number = signal.SIGKILL if hard else signal.SIGTERM
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if with_group and os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)


def _has_ended_on_linux(pid: int) -> bool:
    """A process whose parent does not ask for its outcome stays in the table, without running."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "Z"
    return False


def _is_alive_on_windows(pid: int) -> bool:
    import ctypes

    synchronize, still_running = 0x00100000, 0x102
    kernel = ctypes.windll.kernel32
    handle = kernel.OpenProcess(synchronize, False, pid)
    if not handle:
        return False
    try:
        return kernel.WaitForSingleObject(handle, 0) == still_running
    finally:
        kernel.CloseHandle(handle)
