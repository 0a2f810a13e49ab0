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
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from backend.setup.pip_runner import (
    PIP,
    NotOffered,
    PipRunner,
    Progress,
    SetupError,
    create_venv,
    explain,
    pip_install,
    pip_is_old,
    remove_half_installed,
    restore_pip,
    unwritable,
)

PYTHONS = ((3, 11), (3, 12), (3, 13))
TORCH = "2.13.0"
TORCH_INDEX = "https://download.pytorch.org/whl"
TORCH_INDEX_FOLDER = {"cpu": "cpu", "cuda": "cu130", "rocm": "rocm7.2", "mps": "cpu"}
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
GROUP_DOWNLOAD, GROUP_ON_DISK = 5, 20  # an optional group, where everything else is there


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
    rocm = Path("/dev/kfd").exists() and bool(shutil.which("rocminfo") or Path("/opt/rocm").exists())
    return Machine(system, driver, rocm)


def choose_torch(machine: Machine, wanted: Optional[str]) -> Tuple[str, str]:
    """The build ("cpu", "cuda", "rocm" or "mps") and a phrase that says why."""
    if machine.system == "Darwin":
        if wanted in ("cuda", "rocm"):
            raise SetupError(f"There is no {wanted} build of torch for macOS; leave out --torch: MPS uses Apple's GPU.")
        return "mps", "macOS"
    if wanted == "rocm" and machine.system == "Windows":
        raise SetupError("There is no ROCm build of torch for Windows; use --torch cpu, or Linux.")
    if wanted:
        return wanted, "as asked for"
    if machine.nvidia_driver >= MINIMUM_DRIVER:
        return "cuda", f"NVIDIA driver {machine.nvidia_driver}"
    if machine.nvidia_driver:
        older = f"NVIDIA driver {machine.nvidia_driver} is older than R{MINIMUM_DRIVER}"
        return "cpu", f"{older}; update it and use --torch cuda"
    if machine.rocm:
        return "rocm", "ROCm found"
    return "cpu", "no supported GPU found"


def torch_commands(python: str, build: str, system: str) -> Tuple[List[str], List[str]]:
    """pip's command lines to try in turn: with the sources that are configured here, then with PyTorch's own index.

    Plain `torch` is a CUDA build on Linux and a CPU build elsewhere, so a build is asked for by its local version where
    the plain one is another; `===` keeps pip from taking such a version where the plain one is meant.
    """
    folder = TORCH_INDEX_FOLDER[build]
    plain = (system, build) in (("Linux", "cuda"), ("Windows", "cpu"), ("Darwin", "mps"))
    on_index = f"torch==={TORCH}" if system == "Darwin" else f"torch=={TORCH}+{folder}"
    install = pip_install(python) + ["--progress-bar", "raw", "--no-deps"]
    return (
        install + [f"torch==={TORCH}" if plain else on_index],
        install + ["--index-url", f"{TORCH_INDEX}/{folder}", on_index],
    )


def packages_command(python: str, build: str, root: Path, requirements: Sequence[str]) -> List[str]:
    """pip's command line for everything else. torch is there by now; ROCm's Triton is on PyTorch's index only."""
    extra = ["--extra-index-url", f"{TORCH_INDEX}/{TORCH_INDEX_FOLDER[build]}"] if build == "rocm" else []
    constraints = ["--progress-bar", "raw", "--constraint", str(root / "constraints.txt")]
    return pip_install(python) + constraints + extra + list(requirements)


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
            raise SetupError(unwritable(root)) from error
        raise


def install_locked(
    root: Path, torch: Optional[str], report: Callable[[Progress], None], groups: Sequence[str], lock: int
) -> None:
    """`install` while the lock is held. The stamp goes first and comes back last: without it nothing counts."""
    requirements = read_requirements(root)
    machine = detect_machine()
    known = [line for group in ["", *groups] for line in requirements.get(group, [])]
    venv_works = python_version(str(venv_python(root))) in PYTHONS
    site = site_packages(root)
    if venv_works:
        remove_half_installed(site)
    there = installed_torch(site, machine.system) if venv_works else None
    build, why = (there, "as installed") if there and not torch else choose_torch(machine, torch)
    complete = read_stamp(root).get("fingerprint")
    with contextlib.suppress(FileNotFoundError):
        (root / ".venv" / "galatea.json").unlink()

    only_groups = there == build and complete == fingerprint(root, requirements)
    download = GROUP_DOWNLOAD if only_groups else PACKAGES_DOWNLOAD
    on_disk = GROUP_ON_DISK if only_groups else PACKAGES_ON_DISK
    if there == build:
        report(Progress(f"bringing .venv up to date: at most {download} MB to download"))
    else:
        torch_download = TORCH_DOWNLOAD[machine.system, build]
        download, on_disk = download + torch_download, on_disk + TORCH_ON_DISK[build]
        torch_part = f"torch for {build.upper()}, {why}: {torch_download} MB"
        report(Progress(f"setting up .venv: about {download} MB to download ({torch_part}), {on_disk} MB on disk"))
    check_space(root, on_disk)

    python = str(venv_python(root))
    if not venv_works:
        create_venv(root / ".venv", report)
    run = PipRunner(root, report, download, lock)
    if not any(site_packages(root).glob("pip-*.dist-info")):
        restore_pip(python, root)
    if pip_is_old(site_packages(root)):
        run(pip_install(python) + [PIP], "updating pip")
    if there != build:
        configured, pytorchs = torch_commands(python, build, machine.system)
        try:
            run(configured, f"torch for {build.upper()}")
        except NotOffered:
            run(pytorchs, f"torch for {build.upper()}, from PyTorch's index")
    run(packages_command(python, build, root, known), "packages")
    stamp = {"fingerprint": fingerprint(root, requirements), "torch": build, "groups": list(groups)}
    write_synced(root / ".venv" / "galatea.json", json.dumps(stamp, indent=1))
    report(Progress("ready"))


def check_space(root: Path, megabytes: float) -> None:
    """Raises SetupError where the disk cannot hold a finished .venv; what is there of it already counts."""
    free = shutil.disk_usage(str(root)).free / 1e6
    if free < megabytes:
        files = (os.path.join(at, name) for at, _, names in os.walk(root / ".venv") for name in names)
        there = sum(os.lstat(file).st_size for file in files if os.path.lexists(file)) / 1e6
        if free + there < megabytes:
            needs = f"{root} has {free:.0f} MB free and Galatea needs {megabytes:.0f} MB"
            raise SetupError(f"{needs}; free some space and run this again.")


def write_synced(path: Path, text: str) -> None:
    """The file appears whole or not at all, even if the power fails."""
    partial = path.with_suffix(".partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


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
    raise SetupError(f"{mine} is {verdict}: install Python 3.11, 3.12 or 3.13 and run this again with it.")


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
        else:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()
        self.phase, self.printed = progress.phase, now

    def close(self) -> None:
        """Ends the line that is being rewritten, if there is one."""
        if self.terminal and self.phase:
            sys.stderr.write("\n")


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
    display = Display()
    try:
        torch, rest = take_torch(arguments)
        use_suitable_python(root, arguments)
        groups = ("test",) if rest[:1] == ["test"] else ()
        wants_help = not rest or rest[0] in ("-h", "--help")
        if not wants_help and not is_ready(root, torch, groups):
            install(root, torch, display, groups)
            display.close()
    except SetupError as error:
        display.close()
        print(f"galatea: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        display.close()
        print("galatea: interrupted; run the same command again and it goes on.", file=sys.stderr)
        return 130
    python = str(venv_python(root)) if venv_python(root).exists() else sys.executable
    # -P keeps the folder one happens to be in from shadowing Galatea's own modules; the checkout is the import root.
    environment = {**os.environ, "PYTHONPATH": str(root)}
    hand_over([python, "-P", "-m", "backend.cli", *(rest or ["--help"])], environment)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
