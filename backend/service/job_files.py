"""The files of a job: `jobs/ID/` with what it began with, its checkpoint and its result, each written whole or not at all.

A mesh file is a line that says what it is, the length of a msgpack header, that header, and the arrays as they travel.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from protocol.codec import WireError
from protocol.mesh_codec import Mesh, mesh_frames, read_mesh
from protocol.messages import HexId, MeshHeader

JOBS_FOLDER = "jobs"
Header = TypeVar("Header", bound=msgspec.Struct)

MAGIC = b"Galatea mesh 1\n"
CHECKPOINT = "checkpoint.pt"
"""As backend.optimize names it; the service only asks whether it is there."""


_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM)


class DamagedFile(Exception):
    """A file of ours is not what was written; the message names it."""


class JobFiles:
    """The folder of one job, whose id has been checked by the wire's types."""

    def __init__(self, service_folder: Path, job: HexId) -> None:
        self.folder = service_folder / JOBS_FOLDER / job
        self.start = self.folder / "start.mesh"
        self.inputs = self.folder / "start.inputs"
        self.result = self.folder / "result.mesh"
        self.lock = self.folder / "lock"

    @property
    def has_checkpoint(self) -> bool:
        return (self.folder / CHECKPOINT).exists()

    def make(self) -> None:
        """Raises OSError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_folder(self.folder.parent)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def disk_error(error: BaseException | None) -> OSError | None:
    """The disk's refusal behind an error, if that is what it is: torch raises a RuntimeError over the file's own error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            return error
        error = error.__cause__ or error.__context__
    return None


def write_mesh(path: Path, header: MeshHeader, buffers: Iterable[memoryview]) -> None:
    """Synced before it is there. Raises OSError; what was there before then stays."""
    write_with_header(path, MAGIC, header, buffers)


def read_mesh_file(path: Path) -> tuple[MeshHeader, list[memoryview]]:
    """A mesh file's header and buffers, checked as if they came over the wire.

    Raises DamagedFile, and OSError if it cannot be read.
    """
    content = memoryview(path.read_bytes())
    try:
        header, rest = cut_header(content, MAGIC, MeshHeader)
        buffers = _arrays(header, rest)
        read_mesh(header, buffers)
    except (ValueError, WireError) as error:  # msgspec's errors are ValueErrors
        raise DamagedFile(f"{path} is not a whole mesh file: {error}.") from error
    return header, buffers


def load_mesh_file(path: Path) -> Mesh:
    """Raises what `read_mesh_file` raises."""
    header, buffers = read_mesh_file(path)
    return read_mesh(header, buffers)


def save_mesh_file(path: Path, mesh: Mesh) -> None:
    """Raises OSError, and WireError for a mesh that is beyond the limits of the wire."""
    write_mesh(path, *mesh_frames(mesh))


def write_whole(path: Path, parts: Sequence[bytes | memoryview]) -> None:
    """The file holds all of `parts` and is synced before it takes its name. Raises OSError."""
    beside = path.with_name(f".{path.name}.new")
    try:
        with beside.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder survive a power cut, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _arrays(header: MeshHeader, content: memoryview) -> list[memoryview]:
    rows = [header.vertices, header.faces, header.vertices if header.colors else 0]
    sizes = [12 * count for count in rows if count]
    if len(content) != sum(sizes):
        raise ValueError(f"it has {len(content):,} bytes of arrays and its header says {sum(sizes):,}")
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    return [content[end - size : end] for size, end in zip(sizes, ends)]


def write_with_header(path: Path, magic: bytes, header: msgspec.Struct, buffers: Iterable[bytes | memoryview]) -> None:
    """A line that says what the file is, the length of a msgpack header, that header, and `buffers`; as `write_whole` writes."""
    packed = msgspec.msgpack.encode(header)
    write_whole(path, [magic, len(packed).to_bytes(4, "little"), packed, *buffers])


def cut_header(content: memoryview, magic: bytes, kind: type[Header]) -> tuple[Header, memoryview]:
    """The header of such a file and what follows it. Raises ValueError if it is no such file; msgspec's errors are ValueErrors."""
    if content[: len(magic)] != magic:
        raise ValueError("it does not begin as one")
    begin = len(magic) + 4
    end = begin + int.from_bytes(content[len(magic) : begin], "little")
    return msgspec.msgpack.decode(content[begin:end], type=kind), content[end:]
