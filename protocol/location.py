"""Where client and service meet: the service folder and the connection file in it.

The file holds the token that lets a client in, so folder and file are the user's alone. It is written whole by the
service once its sockets are bound, and says all that a client needs to know.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from .messages import PROTOCOL, HexId, Name

CONNECTION_FILE = "connection.json"
MAX_FILE_BYTES = 64 * 1024

Port = Annotated[int, Meta(ge=1, le=65535)]
Token = Annotated[str, Meta(min_length=64, max_length=64, pattern=r"^[0-9a-f]{64}\Z")]
"""256 random bits."""


class LocationError(Exception):
    """The folder or the connection file cannot be used; the message says why and what to do."""


class Connection(msgspec.Struct, frozen=True):
    """What the connection file says. Fields that another version added are passed over."""

    protocol: Annotated[int, Meta(ge=0, le=1_000_000)]
    service: Name
    """The service's version."""
    instance: HexId
    pid: Annotated[int, Meta(ge=1)]
    control_port: Port
    bulk_port: Port
    token: Token


def service_folder() -> Path:
    """GALATEA_SERVICE_FOLDER, or else the user's own data folder for Galatea. It need not exist."""
    chosen = os.environ.get("GALATEA_SERVICE_FOLDER")
    if chosen:
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "galatea"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "galatea"
    data = os.environ.get("XDG_DATA_HOME", "")
    # A relative path is to be ignored, says the XDG base directory specification.
    return (Path(data) if os.path.isabs(data) else Path.home() / ".local" / "share") / "galatea"


def make_private_folder(folder: Path) -> None:
    """Make `folder` if it is missing, and the user's alone. Raises LocationError if it is another user's."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name == "posix":
            _check_owner(folder.stat(), folder)
            folder.chmod(0o700)
    except OSError as error:
        raise LocationError(f"The folder {folder} cannot be used: {error.strerror}. Choose another one.") from None


def write_connection(folder: Path, connection: Connection) -> Path:
    """Write the connection file, at no moment readable by others or in part. Raises LocationError."""
    make_private_folder(folder)
    target = folder / CONNECTION_FILE
    draft = folder / f".{CONNECTION_FILE}.{secrets.token_hex(8)}"
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(connection)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise LocationError(f"{target} cannot be written: {error.strerror}. Free space or choose another folder.") from None
    return target


def read_connection(folder: Path) -> Connection | None:
    """What the connection file says; None if there is none: no service is running.

    Raises LocationError if it is broken, of another protocol version, or open to other users.
    """
    path = folder / CONNECTION_FILE
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LocationError(f"{path} cannot be read: {error.strerror}. Delete it and start the service again.") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise LocationError(f"{path} is not a file. Delete it and start the service again.")
        _check_private(status, path)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    return _parse(content, path)


def _parse(content: bytes, path: Path) -> Connection:
    if len(content) > MAX_FILE_BYTES:
        raise LocationError(f"{path} is larger than {MAX_FILE_BYTES:,} bytes. Delete it and start the service again.")
    try:
        return msgspec.json.decode(content, type=Connection)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        other = _other_protocol(content)
        if other is not None:
            raise LocationError(other_version(other)) from None
        raise LocationError(f"{path} is broken ({error}). Delete it and start the service again.") from None


def other_version(protocol: int) -> str:
    """The sentence for a service that speaks another protocol version."""
    older, newer = ("The service", "this side") if protocol < PROTOCOL else ("This side", "the service")
    return (
        f"The service speaks version {protocol} of the protocol and this side speaks version {PROTOCOL}. "
        f"{older} is older than {newer}: update it, so that both are of one version of Galatea, and start the service again."
    )


class _Version(msgspec.Struct):
    protocol: int


def _other_protocol(content: bytes) -> int | None:
    try:
        protocol = msgspec.json.decode(content, type=_Version).protocol
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return protocol if protocol != PROTOCOL else None


def _check_private(status: os.stat_result, path: Path) -> None:
    if os.name != "posix":
        return  # the user's profile folder is closed to others by its access list
    _check_owner(status, path)
    if status.st_mode & 0o077:
        raise LocationError(
            f"{path} can be read or written by other users, so its token is no secret any more. "
            "Delete it and start the service again."
        )


def _check_owner(status: os.stat_result, path: Path) -> None:
    if status.st_uid != os.getuid():
        raise LocationError(
            f"{path} belongs to another user. Use a folder of your own; the environment variable GALATEA_SERVICE_FOLDER names it."
        )
