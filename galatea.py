#!/usr/bin/env python3
"""Starts Galatea: `python3 galatea.py generate "a red mushroom with a white stem"`.

On first use it makes `.venv` beside itself and installs the pinned packages of pyproject.toml and constraints.txt;
after that it only compares a stamp file and hands over to `backend.cli`. It needs nothing but Python's standard library
and can be interrupted at any moment and run again. `install` is the part that other programs may call: it reports its
progress as values and raises `SetupError` with one sentence for the person at the keyboard.

This file must be readable by Pythons that are too old to run Galatea, so that they can say so.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import platform
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

PYTHONS = ((3, 11), (3, 12), (3, 13))
TORCH = "2.13.0"
TORCH_INDEX = "https://download.pytorch.org/whl"
TORCH_INDEX_FOLDER = {"cpu": "cpu", "cuda": "cu130", "rocm": "rocm7.2", "mps": "cpu"}
PIP = "pip==26.3"  # the first one that tells its progress in a form that programs can read is 24.1
MINIMUM_DRIVER = 580  # CUDA 13, which both this torch and Warp are built with

# Megabytes to download for torch with what it pulls in, and for everything else of pyproject.toml: what pip announces,
# where the builds are CPU or MPS; estimates for CUDA and ROCm. Then what the finished folder takes on disk.
TORCH_DOWNLOAD = {
    ("Linux", "cpu"): 192, ("Linux", "cuda"): 2700, ("Linux", "rocm"): 5000,
    ("Darwin", "mps"): 111, ("Windows", "cpu"): 122, ("Windows", "cuda"): 1900,
}  # fmt: skip
TORCH_ON_DISK = {"cpu": 800, "mps": 500, "cuda": 7000, "rocm": 16000}
PACKAGES_DOWNLOAD = 350
PACKAGES_ON_DISK = 1500


class SetupError(Exception):
    """Setting up cannot go on; the message is one sentence that says what the person can do."""


class Progress(NamedTuple):
    """What `install` is doing now. Megabytes are 0 where nothing is being downloaded; `item` is a file or package."""

    phase: str
    done: float = 0.0
    total: float = 0.0
    item: str = ""


class Machine(NamedTuple):
    """What decides which torch build fits: `nvidia_driver` is its major version, 0 without one."""

    system: str
    nvidia_driver: int = 0
    rocm: bool = False


def detect_machine() -> Machine:
    """Looks for graphics drivers; starts at most nvidia-smi."""
    system = platform.system()
    driver = 0
    smi = shutil.which("nvidia-smi")
    if smi:
        query = [smi, "--query-gpu=driver_version", "--format=csv,noheader"]
        with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
            answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
            driver = int(answer.split(".")[0])
    elif Path("/proc/driver/nvidia/version").exists():
        found = re.search(r"Module(?: for \S+)?\s+(\d+)\.", Path("/proc/driver/nvidia/version").read_text())
        driver = int(found.group(1)) if found else 0
    rocm = system == "Linux" and Path("/dev/kfd").exists() and bool(shutil.which("rocminfo") or Path("/opt/rocm").exists())
    return Machine(system, driver, rocm)


def choose_torch(machine: Machine, wanted: Optional[str]) -> Tuple[str, str]:
    """The build ("cpu", "cuda", "rocm" or "mps") and a phrase that says why."""
    if machine.system == "Darwin":
        if wanted in ("cuda", "rocm"):
            raise SetupError(f"There is no {wanted} build of torch for macOS; leave out --torch, Apple's GPU is used through MPS.")
        return "mps", "macOS"
    if wanted == "rocm" and machine.system == "Windows":
        raise SetupError("There is no ROCm build of torch for Windows; use --torch cpu, or Linux.")
    if wanted:
        return wanted, "as asked for"
    if machine.nvidia_driver >= MINIMUM_DRIVER:
        return "cuda", f"NVIDIA driver {machine.nvidia_driver}"
    if machine.nvidia_driver:
        return "cpu", f"NVIDIA driver {machine.nvidia_driver} is older than R{MINIMUM_DRIVER}; update it and use --torch cuda"
    if machine.rocm:
        return "rocm", "ROCm found"
    return "cpu", "no supported GPU found"


def torch_commands(python: str, build: str, system: str) -> List[List[str]]:
    """pip's command lines to try in turn: the sources that are configured here first, then PyTorch's own index.

    Plain `torch` is a CUDA build on Linux and a CPU build elsewhere, so a build is asked for by its local version where
    the plain one is another; `===` keeps pip from taking such a version where the plain one is meant.
    """
    folder = TORCH_INDEX_FOLDER[build]
    plain = (system, build) in (("Linux", "cuda"), ("Windows", "cpu"), ("Darwin", "mps"))
    on_index = f"torch==={TORCH}" if system == "Darwin" else f"torch=={TORCH}+{folder}"
    install = pip_install(python) + ["--no-deps"]
    return [
        install + [f"torch==={TORCH}" if plain else on_index],
        install + ["--index-url", f"{TORCH_INDEX}/{folder}", on_index],
    ]


def packages_command(python: str, build: str, root: Path, requirements: Sequence[str]) -> List[str]:
    """pip's command line for everything else. torch is there by now; ROCm's Triton is on PyTorch's index only."""
    extra = ["--extra-index-url", f"{TORCH_INDEX}/{TORCH_INDEX_FOLDER[build]}"] if build == "rocm" else []
    return pip_install(python) + extra + ["--constraint", str(root / "constraints.txt")] + list(requirements)


def pip_install(python: str) -> List[str]:
    return [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar", "raw"]


# ---- what is wanted and what is there


def read_requirements(root: Path) -> Dict[str, List[str]]:
    """The pinned requirements of pyproject.toml: "" for Galatea itself, other keys for the optional groups."""
    import tomllib  # not in the Pythons that are told that they are too old

    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"": project["dependencies"], **project.get("optional-dependencies", {})}


def fingerprint(root: Path, requirements: Dict[str, List[str]]) -> str:
    constraints = (root / "constraints.txt").read_text(encoding="utf-8")
    return hashlib.sha256(json.dumps([requirements, constraints], sort_keys=True).encode()).hexdigest()


def venv_python(root: Path) -> Path:
    return root / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def read_stamp(root: Path) -> Dict:
    """What the last complete installation wrote; empty if there was none."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads((root / ".venv" / "galatea.json").read_text(encoding="utf-8"))
    return {}


def is_ready(root: Path, torch: Optional[str], groups: Sequence[str]) -> bool:
    """Whether `install` has nothing to do; reads three small files."""
    stamp = read_stamp(root)
    return (
        stamp.get("fingerprint") == fingerprint(root, read_requirements(root))
        and torch in (None, stamp.get("torch"), "cpu" if stamp.get("torch") == "mps" else None)
        and set(groups) <= set(stamp.get("groups", []))
        and venv_python(root).exists()
    )


def site_packages(root: Path) -> Path:
    found = sorted((root / ".venv").glob("lib/python3*/site-packages")) or [root / ".venv/Lib/site-packages"]
    return found[-1]


def remove_half_installed(site: Path) -> List[str]:
    """Takes the records of packages away whose files did not all arrive, so that pip installs them again; their names."""
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
    return broken


def installed_torch(site: Path, system: str) -> Optional[str]:
    """The build of the torch that is there, if it is the right version."""
    for info in site.glob(f"torch-{TORCH}*.dist-info"):
        local = info.name[len(f"torch-{TORCH}") : -len(".dist-info")].lstrip("+")
        if local:
            return next((build for build in ("cpu", "rocm") if local.startswith(build)), "cuda")
        return {"Linux": "cuda", "Windows": "cpu", "Darwin": "mps"}.get(system)
    return None


# ---- doing it


@contextlib.contextmanager
def only_one(root: Path, report: Callable[[Progress], None]) -> Iterator[int]:
    """Holds the lock of this checkout and yields its descriptor, which pip inherits: should this process be killed, the
    next one waits until its pip has ended as well. The system frees the lock; a file left behind means nothing."""
    descriptor = os.open(str(root / ".venv.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        while not try_lock(descriptor):
            report(Progress("waiting for another start of Galatea that is installing"))
            time.sleep(0.5)
        yield descriptor
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            raise
        return False
    return True


def install(root: Path, torch: Optional[str], report: Callable[[Progress], None], groups: Sequence[str] = ()) -> None:
    """Makes `root/.venv` hold the pinned packages and those of the optional `groups`; does nothing if it does already.

    `torch` is "cpu", "cuda", "rocm" or None for what is there or fits this machine. May be killed at any moment and
    called again. Raises SetupError.
    """
    try:
        with only_one(root, report) as lock:
            if not is_ready(root, torch, groups):
                install_locked(root, torch, report, sorted({*groups, *read_stamp(root).get("groups", [])}), lock)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SetupError(explain("No space left on device", root)) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise SetupError(f"{root} cannot be written to; move Galatea's folder to a place of your own.") from error
        raise


def install_locked(root: Path, torch: Optional[str], report: Callable[[Progress], None], groups: Sequence[str], lock: int) -> None:
    requirements = read_requirements(root)
    machine = detect_machine()
    known = [line for group in ["", *groups] for line in requirements.get(group, [])]
    venv_works = python_version(str(venv_python(root))) in PYTHONS
    site = site_packages(root)
    if venv_works:
        remove_half_installed(site)
    there = installed_torch(site, machine.system) if venv_works else None
    build, why = (there, "as installed") if there and not torch else choose_torch(machine, torch)
    with contextlib.suppress(FileNotFoundError):
        (root / ".venv" / "galatea.json").unlink()

    download, on_disk = PACKAGES_DOWNLOAD, PACKAGES_ON_DISK
    if there != build:
        download += TORCH_DOWNLOAD[machine.system, build]
        on_disk += TORCH_ON_DISK[build]
    parts = "" if there == build else f" (torch for {build.upper()}, {why}: {TORCH_DOWNLOAD[machine.system, build]} MB)"
    if there:
        report(Progress(f"bringing .venv up to date: at most {download} MB to download{parts}"))
    else:
        report(Progress(f"setting up .venv: about {download} MB to download{parts}, {on_disk / 1000:.1f} GB on disk"))
        free = shutil.disk_usage(str(root)).free / 1e6
        if free < on_disk:
            raise SetupError(f"{root} has {free / 1000:.1f} GB free and Galatea needs {on_disk / 1000:.1f} GB; free some space and run this again.")

    python = str(venv_python(root))
    if not venv_works:
        make_venv(root, report)
    run = PipRunner(root, report, download, lock)
    if pip_is_old(site_packages(root)):
        run(pip_install(python)[:-2] + [PIP], "updating pip")
    if there != build:
        candidates = torch_commands(python, build, machine.system)
        for command in candidates[:-1]:
            if run(command, f"torch for {build.upper()}", may_fail=True):
                break
        else:
            run(candidates[-1], f"torch for {build.upper()}, from PyTorch's index")
    run(packages_command(python, build, root, known), "packages")
    stamp = {"fingerprint": fingerprint(root, requirements), "torch": build, "groups": list(groups)}
    write_synced(root / ".venv" / "galatea.json", json.dumps(stamp, indent=1))
    report(Progress("ready"))


def make_venv(root: Path, report: Callable[[Progress], None]) -> None:
    folder = root / ".venv"
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        name = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        raise SetupError(f"This Python comes without its venv module; install it (on Debian and Ubuntu: apt install {name}) and run this again.")
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        raise SetupError(f"{folder} is not a virtual environment; move it away and run this again.")
    report(Progress("making .venv"))
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], capture_output=True, text=True)
    if made.returncode:
        raise SetupError(explain(made.stdout + made.stderr, root))


def write_synced(path: Path, text: str) -> None:
    """The file appears whole or not at all, even if the power fails."""
    partial = path.with_suffix(".partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def pip_is_old(site: Path) -> bool:
    versions = [info.name.split("-")[1].split(".") for info in site.glob("pip-*.dist-info")]
    return not versions or max((int(v[0]), int(v[1])) for v in versions) < (24, 1)


class PipRunner:
    """Runs pip and turns what it prints into Progress; megabytes add up over all of its runs."""

    def __init__(self, root: Path, report: Callable[[Progress], None], total: float, lock: int) -> None:
        self.root, self.report, self.total, self.lock = root, report, total, lock
        self.finished = self.current = 0.0

    def __call__(self, command: Sequence[str], phase: str, may_fail: bool = False) -> bool:
        """Whether pip succeeded; if not and it may not fail: raises SetupError."""
        unwanted = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_REQUIRE_VIRTUALENV", "PIP_DRY_RUN")
        environment = {key: value for key, value in os.environ.items() if key not in unwanted}
        environment.update(PYTHONUTF8="1", PYTHONUNBUFFERED="1")
        inherit = {} if os.name == "nt" else {"pass_fds": (self.lock,)}
        process = subprocess.Popen(
            list(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            text=True, encoding="utf-8", errors="replace", env=environment, **inherit,
        )  # fmt: skip
        lines: queue.Queue = queue.Queue()
        threading.Thread(target=forward_lines, args=(process.stdout, lines), daemon=True).start()
        log: List[str] = []
        item = ""
        try:
            while True:
                try:
                    line = lines.get(timeout=0.5)
                except queue.Empty:
                    line = ""
                if line is None:
                    break
                item = self.read(line) or item
                if line and not line.startswith("Progress "):
                    log.append(line)
                done = min(self.finished + self.current, self.total)
                self.report(Progress(phase, done, self.total, item))
        finally:
            if process.poll() is None and sys.exc_info()[0]:
                process.terminate()
            process.wait()
        self.finished, self.current = self.finished + self.current, 0.0
        if process.returncode and not may_fail:
            raise SetupError(explain("".join(log), self.root))
        return process.returncode == 0

    def read(self, line: str) -> Optional[str]:
        """Keeps count of megabytes; the file or phrase that `line` begins, if it does."""
        progress = re.match(r"Progress (\d+) of \d+", line)
        if progress:
            self.current = int(progress.group(1)) / 1e6
            return None
        file = re.match(r"\s*(?:Downloading|Using cached|Processing) (\S+)(?: \(([\d.]+) ([kMG]?)B\))?", line)
        if file:
            name, size, unit = file.groups()
            self.finished, self.current = self.finished + self.current, 0.0
            if "Using cached" in line and size:
                self.finished += float(size) * {"": 1e-6, "k": 1e-3, "M": 1.0, "G": 1e3}[unit]
            elif "Processing" in line and os.path.isfile(name):
                self.finished += os.path.getsize(name) / 1e6
            return os.path.basename(name).split("-")[0]
        if line.startswith("Installing collected packages"):
            return f"unpacking {line.count(',') + 1} packages"
        return None


def forward_lines(source, lines: queue.Queue) -> None:
    """Puts every line into the queue as it comes, and None after the last."""
    for line in source:
        lines.put(line)
    lines.put(None)


def explain(log: str, root: Path) -> str:
    """One sentence about why pip or venv failed, read from what it printed."""
    if re.search(r"No space left on device|\[Errno 28\]|not enough space|Disk quota exceeded", log):
        return f"The disk is full ({root}, the temporary folder or pip's cache); free some space and run this again, it goes on where it stopped."
    if re.search(r"Permission denied|\[Errno 13\]|Read-only file system", log):
        return f"{root}/.venv cannot be written to; move Galatea's folder to a place of your own."
    missing = re.search(r"No matching distribution found for (\S+)", log)
    if re.search(r"Retrying \(|NewConnectionError|Name or service not known|name resolution|ProxyError|Network is unreachable|Could not fetch URL|SSLError", log):
        return f"{missing.group(1) if missing else 'A package'} could not be downloaded; check the network connection (or pip's configured sources) and run this again, it goes on where it stopped."
    if missing:
        return f"No source that pip knows has {missing.group(1)} for Python {platform.python_version()} on {platform.system()} {platform.machine()}."
    last = [line.strip() for line in log.splitlines() if line.strip()]
    return f"Setting up failed: {next((line for line in last if 'ERROR' in line), last[-1] if last else 'no message')}"


# ---- at the command line


def python_version(python: str) -> Optional[Tuple[int, int]]:
    """The version of another interpreter, None if it cannot be run."""
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        ask = [python, "-c", "import sys; print(*sys.version_info[:2])"]
        major, minor = subprocess.run(ask, capture_output=True, text=True, timeout=20, check=True).stdout.split()
        return int(major), int(minor)
    return None


def use_suitable_python(root: Path, arguments: Sequence[str]) -> None:
    """Starts this file again with a Python that fits if this one does not; ends the process if there is none."""
    if sys.version_info[:2] in PYTHONS:
        return
    mine = "Python {}.{}".format(*sys.version_info)
    verdict = "too old" if sys.version_info[:2] < PYTHONS[0] else "too new"
    on_path = [shutil.which("python{}.{}".format(*version)) for version in reversed(PYTHONS)]
    for python in [str(venv_python(root))] + [found for found in on_path if found]:
        if python_version(python) in PYTHONS:
            print(f"galatea: {mine} is {verdict}; using {python}", file=sys.stderr)
            hand_over([python, str(Path(__file__).resolve()), *arguments], os.environ)
    print(f"galatea: {mine} is {verdict}: install Python 3.11, 3.12 or 3.13 and run this again with it.", file=sys.stderr)
    sys.exit(2)


def hand_over(command: List[str], environment) -> None:
    """Becomes `command`; where a process cannot, waits for it and ends with its exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name != "nt":
        os.execve(command[0], command, dict(environment))
    process = subprocess.Popen(command, env=dict(environment))
    while True:  # Ctrl-C reaches both; the child decides what it means
        with contextlib.suppress(KeyboardInterrupt):
            sys.exit(process.wait())


class Display:
    """Shows Progress on stderr: one line that is rewritten on a terminal, a new line every 10 seconds elsewhere."""

    def __init__(self) -> None:
        self.begin = time.monotonic()
        self.terminal = sys.stderr.isatty()
        self.phase, self.printed = "", 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic() - self.begin
        fresh = progress.phase != self.phase
        if not self.terminal and not fresh and now - self.printed < 10:
            return
        clock = f"{int(now) // 60}:{int(now) % 60:02d}"
        text = f"galatea {clock}  {progress.phase}"
        if progress.total:
            text += f"  {progress.done:.0f} of about {progress.total:.0f} MB  {progress.item}"
        if self.terminal:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(("\n" if fresh and self.phase else "\r") + text[:width].ljust(width))
            if progress.phase == "ready":
                sys.stderr.write("\n")
        else:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()
        self.phase, self.printed = progress.phase, now


def take_torch(arguments: Sequence[str]) -> Tuple[Optional[str], List[str]]:
    """The value of --torch, wherever it stands, and the other arguments."""
    rest = list(arguments)
    for index, argument in enumerate(rest):
        if argument == "--torch" or argument.startswith("--torch="):
            taken = 1 if "=" in argument else 2
            value = argument[len("--torch=") :] if taken == 1 else "".join(rest[index + 1 : index + 2])
            if value not in ("cpu", "cuda", "rocm"):
                raise SetupError("--torch takes cpu, cuda or rocm.")
            return value, rest[:index] + rest[index + taken :]
    return None, rest


def main(arguments: Sequence[str]) -> int:
    root = Path(__file__).resolve().parent
    try:
        torch, rest = take_torch(arguments)
        use_suitable_python(root, arguments)
        groups = ("test",) if rest[:1] == ["test"] else ()
        wants_help = not rest or rest[0] in ("-h", "--help")
        if not wants_help and not is_ready(root, torch, groups):
            install(root, torch, Display(), groups)
    except SetupError as error:
        print(f"\ngalatea: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ngalatea: interrupted; run the same command again and it goes on.", file=sys.stderr)
        return 130
    python = str(venv_python(root)) if venv_python(root).exists() else sys.executable
    # -P keeps the folder one happens to be in from shadowing Galatea's own modules; the checkout is the import root.
    environment = {**os.environ, "PYTHONPATH": str(root)}
    hand_over([python, "-P", "-m", "backend.cli", *(rest or ["--help"])], environment)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
