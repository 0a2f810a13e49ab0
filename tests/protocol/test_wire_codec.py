"""Whatever is sent comes back as it was; whatever else comes is one WireError with a sentence, and nothing else."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any, get_args

import msgpack
import msgspec
import pytest
import zmq
from hypothesis import example, given
from hypothesis import strategies as st

from protocol import messages
from protocol.codec import (
    MAX_BUFFER_BYTES,
    MAX_BUFFERS,
    MAX_ENTRIES,
    MAX_HEADER_BYTES,
    MAX_TEXT_BYTES,
    WireError,
    decode,
    encode,
)
from protocol.losses import ReferenceSettings, RegionSettings

EVERYTHING = messages.ToServiceControl | messages.ToClientControl | messages.ToServiceBulk | messages.ToClientBulk
AnyMessage = Callable[..., st.SearchStrategy[msgspec.Struct]]
JOB = "0123456789abcdef" * 2
text = st.text(st.characters(exclude_categories=["Cs"]))


def refused(frames: list[Any], kinds: Any = EVERYTHING) -> WireError:
    with pytest.raises(WireError) as caught:
        decode(frames, kinds)
    error = caught.value
    assert error.code in get_args(messages.ErrorCode)
    assert error.message.endswith(".") and len(error.message) < 1000
    # What a receiver makes of it has to be sendable, whatever the error quotes.
    encode(messages.Refused(request=error.request, code=error.code, message=error.message))
    return error


@given(st.data())
def test_every_message_comes_back_as_it_was(any_message: AnyMessage, data: st.DataObject) -> None:
    message = data.draw(any_message(EVERYTHING))
    frames = encode(message)
    assert decode(frames, EVERYTHING).message == message
    assert decode([zmq.Frame(frame) for frame in frames], type(message)).message == message


@given(st.data())
def test_the_header_is_a_plain_map_with_the_type_in_it(any_message: AnyMessage, data: st.DataObject) -> None:
    message = data.draw(any_message(EVERYTHING))
    plain = msgpack.unpackb(encode(message)[0])
    assert plain.pop("type") == type(message).__name__
    assert set(plain) == set(message.__struct_fields__)


@given(st.binary(max_size=300) | st.lists(st.binary(max_size=50), max_size=6))
def test_random_bytes_are_refused(garbage: bytes | list[bytes]) -> None:
    refused([garbage] if isinstance(garbage, bytes) else garbage)


@given(st.data())
def test_cut_messages_are_refused(any_message: AnyMessage, data: st.DataObject) -> None:
    header = encode(data.draw(any_message(EVERYTHING)))[0]
    refused([header[: data.draw(st.integers(0, len(header) - 1))]])
    refused([header + data.draw(st.binary(min_size=1, max_size=9))])


@given(st.data())
def test_flipped_bits_make_another_message_or_an_error(any_message: AnyMessage, data: st.DataObject) -> None:
    header = bytearray(encode(data.draw(any_message(EVERYTHING)))[0])
    for _ in range(data.draw(st.integers(1, 4))):
        header[data.draw(st.integers(0, len(header) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        received = decode([bytes(header)], EVERYTHING).message
    except WireError:
        return
    # What is let through is valid down to the last field: it can be sent on, and says the same.
    assert decode(encode(received), type(received)).message == received


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | text | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=10,
)


@given(plain_values, st.data())
def test_wrong_types_in_fields_are_refused_or_valid(any_message: AnyMessage, value: object, data: st.DataObject) -> None:
    plain = msgspec.to_builtins(data.draw(any_message(EVERYTHING)))
    if not (fields := sorted(set(plain) - {"type"})):
        return
    plain[data.draw(st.sampled_from(fields))] = value
    try:
        received = decode([msgpack.packb(plain)], EVERYTHING).message
    except WireError as error:
        assert error.message
        return
    assert decode(encode(received), type(received)).message == received


@given(plain_values)
@example({"type": "Ping", "request": -1})
@example({"type": "Ping", "request": 2**64 - 1})
@example({"type": "Ping", "request": True})
@example({"type": "Ping", "request": 1.0})
@example({"type": "Ping", "request": 1, "extra": 2})
@example({"type": "JobRequest", "command": "generate", "prompt": "a part is no message"})
@example({"type": "Message"})
@example({"type": ["Ping"], "request": 1})
def test_other_msgpack_is_refused(value: object) -> None:
    refused([msgpack.packb(value)])


def ping(**fields: Any) -> dict[str, Any]:
    return {"type": "Ping", "request": 7, **fields}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (msgpack.packb(ping())[:-1] + b"\xc4\x01x", "max_bin_len"),
        (msgpack.packb(ping(), use_bin_type=True) + b"\xc0", "extra data"),
        (msgpack.packb({"type": "Ping", "request": b""}), "bytes"),
        (msgpack.packb({"type": "Ping", "request": msgpack.ExtType(5, b"")}), "ExtType"),
        (msgpack.packb({"type": "Ping", "request": msgpack.ExtType(5, b"x")}), "max_ext_len"),
        (msgpack.packb({"type": "Ping", "request": msgpack.Timestamp(1)}), "max_ext_len"),
        (msgpack.packb({b"type": "Ping"}), "max_bin_len"),
        (msgpack.packb({1: "Ping"}), "int"),
        (b"\xc1", ""),
        (b"\xa4\xff\xff\xff\xff", ""),  # no UTF-8
        (b"\xdf\xff\xff\xff\xff", "max_map_len"),  # 4 billion entries announced
        (b"\xdd\xff\xff\xff\xff", "max_array_len"),
        (b"\xdb\xff\xff\xff\xff", "incomplete"),
        (b"\xc6\xff\xff\xff\xff", "incomplete"),
        (b"\xc9\xff\xff\xff\xff\x05", "max_ext_len"),
        (b"\xd9\x10Ping", "incomplete"),
        (b"\x91" * 60_000 + b"\xc0", ""),  # nesting as deep as a header allows
        (b"\x81\xa1a" * 15_000 + b"\xc0", ""),
        (b"\x91" * 1000 + b"\xc0", ""),
        (msgpack.packb("x" * (MAX_TEXT_BYTES + 1)), "max_str_len"),
        (msgpack.packb([0] * (MAX_ENTRIES + 1)), "max_array_len"),
        (msgpack.packb({str(key): 0 for key in range(MAX_ENTRIES + 1)}), "max_map_len"),
        (msgpack.packb({"type": "Ping", "request": math.nan}), "nan"),
        (b"", ""),
    ],
)
def test_hostile_headers_are_refused_with_a_reason(header: bytes, words: str) -> None:
    assert words in refused([header]).message


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused_in_and_out(number: float) -> None:
    progress = messages.Progress(JOB, "running", "x", 1, 2, 0, 1.0, 0.1, 1.0, {"loss": number})
    with pytest.raises(WireError, match="finite"):
        encode(progress)
    assert "finite" in refused([msgpack.packb(msgspec.to_builtins(progress))]).message
    single = msgpack.packb(msgspec.to_builtins(progress), use_single_float=True)
    assert struct.pack(">f", number) in single
    assert "finite" in refused([single]).message


def test_a_broken_message_is_answered_under_its_request() -> None:
    broken = {"type": "Cancel", "request": 41, "job": "nonsense"}
    error = refused([msgpack.packb(broken)])
    assert (error.code, error.request) == ("invalid", 41)
    assert "Cancel" in error.message and "job" in error.message
    assert refused([msgpack.packb({**broken, "request": True})]).request is None
    assert refused([msgpack.packb({**broken, "request": 2**63})]).request is None
    assert refused([msgpack.packb({**broken, "request": 41, "job": math.inf})]).request == 41


def test_a_message_of_the_other_direction_is_refused() -> None:
    for kinds, others in [
        (messages.ToServiceControl, messages.ToClientControl),
        (messages.ToServiceBulk, messages.ToServiceControl),
        (messages.ToClientControl, messages.ToClientBulk),
    ]:
        for kind in set(get_args(others)) - set(get_args(kinds)):
            assert kind.__name__ in refused([msgpack.packb({"type": kind.__name__, "request": 3})], kinds).message


def test_frames_beyond_the_limits_are_refused() -> None:
    snapshot = encode(messages.Snapshot(JOB, 1, 1, 1, messages.MeshHeader(3, 1, False)))[0]
    assert refused([bytes(MAX_HEADER_BYTES + 1)]).code == "too_large"
    assert refused([snapshot, *[b""] * (MAX_BUFFERS + 1)]).code == "too_large"
    assert len(decode([snapshot, *[b""] * MAX_BUFFERS], EVERYTHING).buffers) == MAX_BUFFERS == 23
    assert refused([snapshot] + [b""] * 100_000).code == "too_large"
    big = bytes(MAX_BUFFER_BYTES + 1)
    assert refused([snapshot, big]).code == "too_large"
    with pytest.raises(WireError, match="67,108,865"):
        encode(messages.Ping(1), [big])
    assert len(decode([snapshot, b"a", memoryview(b"bc"), zmq.Frame(b"d")], messages.ToClientBulk).buffers) == 3
    assert refused([]).code == "invalid"


def test_buffers_without_a_mesh_are_refused() -> None:
    request = messages.JobRequest("generate", "a mug")
    for message in (messages.Ping(5), messages.Submit(5, JOB, request)):
        error = refused([*encode(message), b"more"])
        assert error.request == 5 and "buffer" in error.message


def test_what_cannot_be_read_is_not_sent() -> None:
    for message in [
        messages.Cancel(3, "nonsense"),
        messages.Ping(-1),
        messages.Ping("1"),  # type: ignore[arg-type]
        messages.Steer(3, JOB, prompt="x" * 1001),
        messages.Steer(3, JOB, prompt="half of a pair: \ud800"),
        messages.Steer(3, JOB, strength=1.5),
        messages.Steer(3, JOB, strength=object()),  # type: ignore[arg-type]
        messages.Submit(3, JOB, messages.JobRequest("generate", "x" * 1001)),
        messages.Submit(3, JOB, messages.JobRequest("refine", "a mug", regions=(RegionSettings(),) * 9)),
        messages.Submit(3, JOB, messages.JobRequest("generate", "", references=(ReferenceSettings(azimuth=400),))),
        messages.Submit(3, JOB, messages.JobRequest("generate", ""), pictures=(messages.PictureHeader(16, 4096),)),
        messages.Jobs(3, (messages.JobSummary(JOB, "queued", "generate", "字" * 1000, 0, 1, 0.0, 1),) * 100),
    ]:
        with pytest.raises(WireError) as caught:
            encode(message)
        assert type(message).__name__ in caught.value.message
        assert caught.value.request in (3, None)


def test_buffers_are_not_copied() -> None:
    data = bytearray(b"0123456789ab")
    [header, buffer] = encode(messages.Result(1, JOB, messages.MeshHeader(3, 0, False)), [memoryview(data)])
    [view] = decode([header, buffer], messages.ToClientBulk).buffers
    data[0] = ord("x")
    assert bytes(view[:2]) == b"x1"
