"""Files on disk: written whole or not at all; references in a mesh file followed inside the mesh's folder only."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from urllib.parse import unquote

from backend.errors import InputError


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside `path`, sync, then rename over it.

    Raises:
        InputError: the system refuses; nothing half-written is left.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".galatea-", delete=False) as file:
            temporary = file.name
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error


def find_beside(folder: Path, reference: str) -> Path | None:
    """The file in `folder`, or in a folder within it, that a mesh file refers to by `reference`; None if there is none.

    A path from elsewhere (absolute, or of the machine that wrote the file) is looked for by its last name. What lies
    outside the folder, through `..` or a link, is not found, and neither is what is not a plain file.
    """
    home = folder.resolve()
    clean = reference.strip().strip('"').replace("\\", "/")
    for name in (clean, unquote(clean), clean.rsplit("/", 1)[-1], unquote(clean).rsplit("/", 1)[-1]):
        try:
            found = (home / name).resolve()
            if name and found.is_relative_to(home) and found.is_file():
                return found
        except (OSError, ValueError):  # names that no file system takes
            continue
    return None


def read_beside(folder: Path, reference: str, limit: int) -> bytes | None:
    """The content of `find_beside`'s file; None if there is none, or it is larger than `limit` bytes."""
    found = find_beside(folder, reference)
    try:
        if found is None or found.stat().st_size > limit:
            return None
        return found.read_bytes()
    except OSError:
        return None


def text_of(content: bytes) -> str:
    """Text as its writer meant it: UTF-8, else Latin-1."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def lines_of(content: bytes) -> list[str]:
    """Lines in Latin-1, where each byte is a character and comes out again; split where `bytes` are, not where `str` is:
    the letter Å in UTF-8 holds a byte that is a line's end in Latin-1."""
    return [line.decode("latin-1") for line in content.splitlines()]


def sound_text(text: str) -> str:
    """Text that UTF-8 can hold: half a surrogate pair, as file names of other encodings bring along, becomes "?"."""
    return text.encode("utf-8", "replace").decode()
