"""Message <-> frames, and every limit of the wire.

A message travels as one multipart ZeroMQ message: a msgpack header of at most 64 KiB, then raw buffers: the arrays of a
mesh, with a submission those of its pictures and masks as well. msgpack makes the bytes, msgspec says whether they are a
message. Whatever comes from the other side, `decode` either returns a typed message or raises `WireError`; it copies no
buffer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgpack
import msgspec
import zmq

from .messages import MAX_PICTURES, MAX_REGIONS, ErrorCode

MAX_HEADER_BYTES = 64 * 1024
MAX_BUFFERS = 3 + 3 * MAX_PICTURES + MAX_REGIONS
"""A mesh, pictures with depth and normals, and masks."""
MAX_BUFFER_BYTES = 64 * 1024 * 1024
MAX_TEXT_BYTES = 16_384
"""Of one string within a header: 4000 characters of at most four bytes fit."""
MAX_ENTRIES = 2000
"""Of one list or map within a header."""
MAX_SENTENCE = 500
"""Characters of an error's text that quotes the other side."""

HANDSHAKE_SECONDS = 5.0
"""From the connected TCP socket to the authenticated peer."""
WELCOME_SECONDS = 10.0
"""From the handshake to the answer to Hello."""
PING_SECONDS = 2.0
LOST_SECONDS = 10.0
"""A client that hears nothing for so long while its Ping is unanswered takes the connection for lost."""
FORGET_SECONDS = 30.0
"""The service forgets a client that it has not heard for so long."""
CONTROL_HIGH_WATER = 1000
"""Messages that may wait on a control socket, in each direction and for each peer."""
BULK_HIGH_WATER = 8

M = TypeVar("M")
Frame = bytes | bytearray | memoryview | zmq.Frame


class WireError(Exception):
    """What came (or was to be sent) is no message, or breaks a limit.

    `message` is a sentence for a person, `request` the number that the broken message showed, if it did: with them the
    receiver can answer `Refused`.
    """

    def __init__(self, code: ErrorCode, message: str, request: int | None = None) -> None:
        super().__init__(message)
        self.code: ErrorCode = code
        self.message = message
        self.request = request


@dataclass(frozen=True)
class Received(Generic[M]):
    """A message that is what it should be, and the raw buffers that came with it, unchecked: see mesh_codec, submission_codec."""

    message: M
    buffers: tuple[memoryview, ...]


def apply_limits(socket: zmq.Socket[Any], *, bulk: bool) -> None:
    """The options that both sides set on their sockets, before bind or connect."""
    socket.linger = 0
    socket.maxmsgsize = MAX_BUFFER_BYTES if bulk else MAX_HEADER_BYTES
    socket.sndhwm = socket.rcvhwm = BULK_HIGH_WATER if bulk else CONTROL_HIGH_WATER
    socket.handshake_ivl = round(HANDSHAKE_SECONDS * 1000)
    socket.heartbeat_ivl = round(PING_SECONDS * 1000)
    socket.heartbeat_timeout = socket.heartbeat_ttl = round(LOST_SECONDS * 1000)


def encode(message: msgspec.Struct, buffers: Sequence[Frame] = ()) -> list[Frame]:
    """The frames of `message`, with `buffers` as they are (not copied; do not write to them until they are sent).

    Raises WireError if `message` has a field out of bounds, or is beyond the limits: what leaves here can be read.
    """
    name, plain = type(message).__name__, None
    try:
        plain = msgspec.to_builtins(message)
        _refuse_what_is_not_plain(plain, name)
        msgspec.convert(plain, type(message))
        header = msgpack.packb(plain)
    except (ValueError, TypeError, OverflowError) as error:  # msgspec.ValidationError is a ValueError
        raise WireError("invalid", f"{name} cannot be sent: {_quote(error)}.", _request_of(plain)) from None
    _check_sizes(len(header), [_size(buffer) for buffer in buffers], name, _request_of(plain))
    return [header, *buffers]


def decode(frames: Sequence[Frame], kinds: type[M]) -> Received[M]:
    """The message in `frames`, one of the union `kinds`. Raises WireError, and nothing else, for anything else."""
    if not frames:
        raise WireError("invalid", "An empty message came; expected a msgpack header and its buffers.")
    _check_sizes(_size(frames[0]), [_size(frame) for frame in frames[1:]], "The message")
    plain = _unpack(frames[0])
    request = _request_of(plain)
    _refuse_what_is_not_plain(plain, "The message", request)
    try:
        message = msgspec.convert(plain, kinds)
    except msgspec.ValidationError as error:
        raise WireError("invalid", f"{_name_of(plain)} is not valid here: {_quote(error)}.", request) from None
    if len(frames) > 1 and not (getattr(message, "mesh", None) or getattr(message, "pictures", ())):
        raise WireError("invalid", f"{_name_of(plain)} came with {len(frames) - 1} buffers; expected none.", request)
    return Received(message, tuple(_view(frame) for frame in frames[1:]))


def _unpack(header: Frame) -> object:
    try:
        return msgpack.unpackb(
            bytes(_view(header)),
            raw=False,
            strict_map_key=True,
            max_str_len=MAX_TEXT_BYTES,
            max_bin_len=0,
            max_array_len=MAX_ENTRIES,
            max_map_len=MAX_ENTRIES,
            max_ext_len=0,
        )
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        sentence = f"The header is not the msgpack that Galatea speaks: {_quote(error) or type(error).__name__}."
        raise WireError("invalid", sentence) from None


def _refuse_what_is_not_plain(value: object, name: str, request: int | None = None) -> None:
    """Binary strings, extension types, and numbers that are not finite. Without recursion: the nesting is theirs."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += item.keys()
            waiting += item.values()
        elif type(item) in (list, tuple):
            waiting += item
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise WireError("invalid", f"{name} has a number that is {item}; all have to be finite.", request)
        elif not (item is None or isinstance(item, (bool, int, str))):
            kind = type(item).__name__
            raise WireError("invalid", f"{name} has a value of the msgpack type {kind}, which has no place in it.", request)


def _check_sizes(header: int, buffers: list[int], name: str, request: int | None = None) -> None:
    if header > MAX_HEADER_BYTES:
        sentence = f"{name} has a header of {header:,} bytes; at most {MAX_HEADER_BYTES:,} are allowed."
        raise WireError("too_large", sentence, request)
    if len(buffers) > MAX_BUFFERS:
        raise WireError("too_large", f"{name} has {len(buffers)} buffers; at most {MAX_BUFFERS} are allowed.", request)
    if max(buffers, default=0) > MAX_BUFFER_BYTES:
        sentence = f"{name} has a buffer of {max(buffers):,} bytes; at most {MAX_BUFFER_BYTES:,} are allowed."
        raise WireError("too_large", sentence, request)


def _request_of(plain: object) -> int | None:
    request = plain.get("request") if isinstance(plain, dict) else None
    return request if type(request) is int and 0 <= request <= 2**53 else None


def _name_of(plain: object) -> str:
    name = plain.get("type") if isinstance(plain, dict) else None
    return name[:50] if isinstance(name, str) and name.isidentifier() else "The message"


def _quote(error: Exception) -> str:
    return str(error)[:MAX_SENTENCE].rstrip(".")


def _view(frame: Frame) -> memoryview:
    return frame.buffer if isinstance(frame, zmq.Frame) else memoryview(frame)


def _size(frame: Frame) -> int:
    return len(frame) if isinstance(frame, zmq.Frame) else memoryview(frame).nbytes
