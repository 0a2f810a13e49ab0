"""The folder that a job writes to: which one it is, what state it is in, and how files get into it whole.

While a job runs, the folder holds `preview.png` and `job/` (the settings, the steps so far, checkpoints). The results are
written to `job/results/` and moved into place together, `report.json` last; then `job/` is removed. So a folder with
`job/` is unfinished and can be resumed, and one with `report.json` alone is finished.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from backend.errors import InputError
from backend.file_lock import try_lock

FREE_BYTES_NEEDED = 100_000_000
"""Asked for at the start: a job's checkpoints, pictures and results stay well below it."""

JOB_FILE = "job.json"
REPORT_FILE = "report.json"

_DISK_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file would grow larger than allowed here",
    errno.EROFS: "it can only be read",
    errno.EACCES: "writing is not permitted",
    errno.EPERM: "writing is not permitted",
    errno.ENOTDIR: "a part of its path is a file, not a folder",
    errno.ENAMETOOLONG: "its name is too long",
    errno.ENOENT: "it cannot be made there",
    errno.EIO: "the disk reports an error",
}


@contextlib.contextmanager
def disk_errors_explained(folder: Path) -> Iterator[None]:
    """Turns an `OSError` that the machine's disk is to blame for into one sentence about `folder`.

    Raises:
        InputError: cannot write to the folder, and why.
    """
    try:
        yield
    except OSError as error:
        reason = _DISK_ERRORS.get(error.errno or 0)
        if reason is None:
            raise
        advice = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "name another folder with --output"
        raise InputError(f"Cannot write to {folder}: {reason}; {advice}.") from error


def default_output(prompt: str, seed: int) -> Path:
    """`output/<words of the prompt>-<seed>`, or of whatever else names the job, in letters that every file system takes."""
    ascii_text = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    words = "".join(letter if letter.isalnum() else " " for letter in ascii_text).split()
    slug = ""
    for word in words:
        if len(slug) + len(word) > 60:
            break
        slug = f"{slug}-{word}" if slug else word
    return Path("output") / f"{slug or 'object'}-{seed}"


class OutputFolder:
    """One output folder, begun or taken up again by this process. Made by `begin` and `take_up`."""

    def __init__(self, path: Path, lock: BinaryIO, made: list[Path]) -> None:
        self.path = path
        self.job = path / "job"
        self._lock = lock
        self._made = made  # what did not exist before, so that `discard` leaves the disk as it was

    def write(self, relative: str, content: bytes, sync: bool = True) -> Path:
        """Puts a whole file in its place: written beside it, synced if it must survive a power cut, renamed over it."""
        target = self.path / relative
        target.parent.mkdir(exist_ok=True)
        beside = target.with_name(f".{target.name}.new")
        try:
            with beside.open("wb") as file:
                file.write(content)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(beside, target)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        return target

    def results(self) -> Path:
        """An empty folder in which the results are written before `finish` moves them into place."""
        staging = self.job / "results"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        return staging

    def finish(self) -> None:
        """Moves the results into place, the report last, and removes what only a running job needs."""
        staged = sorted(self.results_written(), key=lambda file: file.name == REPORT_FILE)
        for file in staged:
            os.replace(file, self.path / file.name)
        self._lock.close()
        shutil.rmtree(self.job)

    def results_written(self) -> list[Path]:
        """The files waiting in `results()`, by name."""
        return sorted((self.job / "results").iterdir())

    def close(self) -> None:
        """Lets another process take the job up."""
        self._lock.close()

    def discard(self) -> None:
        """Removes what `begin` made; for a job that ends before its first step."""
        self._lock.close()
        shutil.rmtree(self.job, ignore_errors=True)
        for shown in ("preview.png", ".preview.png.new", *(file.name for file in self.path.glob("reference-*.png"))):
            (self.path / shown).unlink(missing_ok=True)
        _remove_empty(self._made)


def begin(requested: Path, command: str) -> OutputFolder:
    """The folder for a new job: `requested`, or `requested-2`, `-3`, ... if that already holds a finished result.

    Args:
        requested: where the person (or the default) wants the results.
        command: what to type to go on with an unfinished job, less the folder; for the error message.
    Raises:
        InputError: an unfinished job or unknown files are there, or the folder cannot be written to.
    """
    path, number = requested, 1
    while is_finished(path):
        number += 1
        path = requested.with_name(f"{requested.name}-{number}")
    if (path / "job" / JOB_FILE).exists():
        raise InputError(
            f"{path} holds an unfinished job: go on with it by `{command} --output {path} --resume`, "
            "or name another folder with --output."
        )
    with disk_errors_explained(path):
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file; --output needs a folder, new or empty.")
        if path.exists() and any(child.name != "job" for child in path.iterdir()):
            raise InputError(f"{path} holds other files; --output needs a folder that is new, empty or a result's.")
        made = _make_folders(path)
        job = path / "job"
        if not job.exists():
            made.append(job)
        try:
            _demand_space(path)
            job.mkdir(exist_ok=True)
            lock = _lock(path)
        except BaseException:
            if job in made:
                shutil.rmtree(job, ignore_errors=True)
            _remove_empty(made)
            raise
    return OutputFolder(path, lock, made)


def take_up(requested: Path) -> OutputFolder:
    """The newest unfinished job among `requested`, `requested-2`, `-3`, ...

    Raises:
        InputError: there is none, another process is working on it, or the folder cannot be written to.
    """
    path, number = requested, 1
    while is_finished(path) and not is_unfinished(path):
        number += 1
        path = requested.with_name(f"{requested.name}-{number}")
    if not is_unfinished(path):
        what = "is already finished" if number > 1 else "holds no unfinished job"
        raise InputError(f"{requested} {what}, so there is nothing to resume; leave out --resume to start a new job.")
    with disk_errors_explained(path):
        _demand_space(path)
        lock = _lock(path)
    return OutputFolder(path, lock, [])


def is_finished(path: Path) -> bool:
    """Whether the folder holds results that are complete."""
    return (path / REPORT_FILE).is_file() and not is_unfinished(path)


def is_unfinished(path: Path) -> bool:
    """Whether the folder holds a job that was begun and has not ended."""
    return (path / "job" / JOB_FILE).is_file()


def _make_folders(path: Path) -> list[Path]:
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    made: list[Path] = []
    try:
        for folder in reversed(missing):
            folder.mkdir()
            made.append(folder)
    except OSError:
        _remove_empty(made)
        raise
    return made


def _remove_empty(folders: list[Path]) -> None:
    for folder in reversed(folders):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _demand_space(path: Path) -> None:
    free = shutil.disk_usage(path).free
    if free < FREE_BYTES_NEEDED:
        raise InputError(
            f"The disk of {path} has {free / 1e6:.0f} MB left and a job needs {FREE_BYTES_NEEDED / 1e6:.0f} MB; "
            "free some space or name another folder with --output."
        )


def _lock(path: Path) -> BinaryIO:
    """Holds `job/lock` until closed or until the process ends, however it ends."""
    lock = try_lock(path / "job" / "lock")
    if lock is None:
        raise InputError(f"Another process is working on the job in {path}; wait for it or stop it first.")
    return lock
