"""Running pip for the launcher: its output as progress, its failures as one sentence, its interrupted work mended.

Standard library only, and readable by the old Pythons that the launcher turns away.
"""

from __future__ import annotations

import os
import platform
import queue
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Callable, List, NamedTuple, Optional, Sequence

PIP = "pip==26.3"  # pip tells its progress in a form that programs can read since 24.1

# What would send packages elsewhere than into the environment, or keep pip from installing at all.
UNWANTED = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_REQUIRE_VIRTUALENV", "PIP_DRY_RUN")


class SetupError(Exception):
    """Setting up cannot go on; the message is one sentence that says what the person can do."""


class NotOffered(SetupError):
    """No source that pip asked has a package; another source may."""


class Progress(NamedTuple):
    """What is being done now. Megabytes are 0 where nothing is downloaded; `item` is a package or a phrase."""

    phase: str
    done: float = 0.0
    total: float = 0.0
    item: str = ""


def pip_install(python: str) -> List[str]:
    """The beginning of every command line here."""
    return [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]


def pip_is_old(site: Path) -> bool:
    """Whether the pip in a site-packages folder cannot tell its progress."""
    versions = [info.name.split("-")[1].split(".") for info in site.glob("pip-*.dist-info")]
    return not versions or max((int(v[0]), int(v[1])) for v in versions) < (24, 1)


def remove_half_installed(site: Path) -> List[str]:
    """Takes the records of packages away whose files did not all arrive, so that pip installs them again.

    pip copies a wheel's files and writes their list, RECORD, last; killed in between it leaves a package that looks
    installed. Returns the names.
    """
    broken = []
    for info in sorted(site.glob("*.dist-info")):
        try:
            rows = [line.rsplit(",", 2) for line in (info / "RECORD").read_text(encoding="utf-8").splitlines()]
            complete = all(os.stat(site / row[0].strip('"')).st_size == int(row[2]) for row in rows if row[2])
        except (OSError, ValueError, IndexError):
            complete = False
        if not complete:
            shutil.rmtree(info)
            broken.append(info.name.split("-")[0])
    for stashed in site.glob("~*"):  # where pip puts what it replaces until it is done
        shutil.rmtree(stashed, ignore_errors=True)
    return broken


def restore_pip(python: str, root: Path) -> None:
    """Puts back the pip that comes with Python, where replacing it was interrupted. Raises SetupError."""
    restored = subprocess.run([python, "-m", "ensurepip"], capture_output=True, text=True)
    if restored.returncode:
        raise SetupError(explain(restored.stdout + restored.stderr, root))


class PipRunner:
    """Runs pip and turns what it prints into Progress; megabytes add up over all of its runs.

    `lock` is a descriptor that pip inherits: whoever waits for it waits for an orphaned pip as well.
    """

    def __init__(self, root: Path, report: Callable[[Progress], None], total: float, lock: int) -> None:
        self.root, self.report, self.total, self.lock = root, report, total, lock
        self.finished = self.current = 0.0

    def __call__(self, command: Sequence[str], phase: str) -> None:
        """Raises NotOffered or another SetupError where pip fails."""
        environment = {key: value for key, value in os.environ.items() if key not in UNWANTED}
        environment.update(PYTHONUTF8="1", PYTHONUNBUFFERED="1")
        with subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            **({} if os.name == "nt" else {"pass_fds": (self.lock,)}),
        ) as process:
            try:
                log = self.follow(process, phase)
            except BaseException:
                process.terminate()
                raise
        self.begin_file()
        if process.returncode:
            error = NotOffered if "No matching distribution found" in log else SetupError
            raise error(explain(log, self.root))

    def follow(self, process: subprocess.Popen, phase: str) -> str:
        """Reports until pip closes its output, at least twice a second; what it printed beside its progress."""
        lines: queue.Queue = queue.Queue()
        reader = threading.Thread(target=forward_lines, args=(process.stdout, lines), daemon=True)
        reader.start()
        log: List[str] = []
        item = ""
        while True:
            try:
                line = lines.get(timeout=0.5)
            except queue.Empty:
                line = ""
            if line is None:
                reader.join()
                return "".join(log)
            item = self.read(line) or item
            if not line.startswith("Progress "):
                log.append(line)
            self.report(Progress(phase, min(self.finished + self.current, self.total), self.total, item))

    def read(self, line: str) -> Optional[str]:
        """Keeps count of megabytes; the package or phrase that `line` begins, if it does."""
        progress = re.match(r"Progress (\d+) of \d+", line)
        if progress:
            self.current = int(progress.group(1)) / 1e6
            return None
        file = re.match(r"\s*(Downloading|Using cached|Processing) (\S+)(?: \(([\d.]+) ([kMG]?)B\))?", line)
        if file:
            source, name, size, unit = file.groups()
            self.begin_file()
            if source == "Using cached" and size:
                self.finished += float(size) * {"": 1e-6, "k": 1e-3, "M": 1.0, "G": 1e3}[unit]
            elif source == "Processing" and os.path.isfile(name):
                self.finished += os.path.getsize(name) / 1e6
            return os.path.basename(name).split("-")[0]
        if line.startswith("Installing collected packages"):
            count = line.count(",") + 1
            return f"unpacking {count} packages" if count > 1 else "unpacking"
        return None

    def begin_file(self) -> None:
        self.finished, self.current = self.finished + self.current, 0.0


def forward_lines(source, lines: queue.Queue) -> None:
    """Puts every line into the queue as it comes, and None after the last."""
    for line in source:
        lines.put(line)
    lines.put(None)


def explain(log: str, root: Path) -> str:
    """One sentence about why pip or venv failed, read from what it printed."""
    again = "and run this again, it goes on where it stopped"
    if re.search(r"No space left on device|\[Errno 28\]|not enough space|Disk quota exceeded", log):
        return f"The disk is full ({root}, the temporary folder or pip's cache); free some space {again}."
    if re.search(r"Permission denied|\[Errno 13\]|Read-only file system", log):
        return unwritable(root)
    missing = re.search(r"No matching distribution found for (\S+)", log)
    what = missing.group(1) if missing else "A package"
    if re.search(r"Retrying \(|NewConnectionError|name resolution|ProxyError|is unreachable|Could not fetch URL", log):
        return f"{what} could not be downloaded; check the network connection or pip's configured sources {again}."
    if missing:
        here = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
        return f"No source that pip knows has {what} for {here}."
    lines = [line.strip() for line in log.splitlines() if line.strip()] or ["no message"]
    return "Setting up failed: " + next((line for line in lines if "ERROR" in line), lines[-1])


def unwritable(root: Path) -> str:
    return f"{root} cannot be written to; move Galatea's folder to a place of your own and run this again."


def create_venv(folder: Path, report: Callable[[Progress], None]) -> None:
    """Makes an empty virtual environment of this interpreter where at most the rest of one is. Raises SetupError."""
    names = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    if "pyvenv.cfg" not in names and not names <= {"bin", "include", "lib", "lib64", "Include", "Lib", "Scripts"}:
        raise SetupError(f"{folder} is not a virtual environment; move it away and run this again.")
    report(Progress("making .venv"))
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], capture_output=True, text=True)
    log = made.stdout + made.stderr
    if made.returncode and re.search(r"ensurepip|No module named '?venv", log):
        name = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        how = f"install it (on Debian and Ubuntu: apt install {name}) and run this again"
        raise SetupError(f"This Python comes without its venv module; {how}.")
    if made.returncode:
        raise SetupError(explain(log, folder.parent))
