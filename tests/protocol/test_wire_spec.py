"""SPEC.md says of every message what messages.py says, its examples are messages, and the client at its end works."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import msgspec.inspect as inspect
import numpy as np
import pytest

from protocol import codec, location, losses, mesh_codec, messages, picture_codec
from protocol.codec import WireError, decode

SPEC = Path(messages.__file__).with_name("SPEC.md").read_text(encoding="utf-8")
SECTIONS = {
    match[1]: match[2] for match in re.finditer(r"^#### (\w+)\n(.*?)(?=^#|\Z)", SPEC, flags=re.MULTILINE | re.DOTALL)
}
STRUCTS = {
    name: struct
    for name, struct in vars(messages).items()
    if isinstance(struct, type) and issubclass(struct, msgspec.Struct) and name != "Message" and struct.__module__ == messages.__name__
} | {"ReferenceSettings": losses.ReferenceSettings, "RegionSettings": losses.RegionSettings}
PARTS = {"JobRequest", "JobSummary", "MeshHeader", "PictureHeader", "Diagnosis", "ReferenceSettings", "RegionSettings"}
TOP_LEVEL = messages.ToServiceControl | messages.ToClientControl | messages.ToServiceBulk | messages.ToClientBulk


def rows(text: str) -> dict[str, list[str]]:
    """The first table in `text`: first cell without backticks -> the others."""
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in re.findall(r"^\| .*\|$", text, flags=re.MULTILINE)]
    return {first.strip("`"): others for first, *others in cells[1:]}


def number(value: float) -> str:
    return {2**53: "2^53", 2**63 - 1: "2^63-1"}.get(value, f"{value:g}" if isinstance(value, float) else str(value))


def in_words(kind: inspect.Type) -> str:
    """A field's type as SPEC.md writes it."""
    match kind:
        case inspect.BoolType():
            return "bool"
        case inspect.IntType(ge=least, le=None):
            return f"int >= {number(least)}"
        case inspect.IntType(ge=least, le=most):
            return f"int {number(least)}..{number(most)}"
        case inspect.FloatType(ge=None, le=None):
            return "float"
        case inspect.FloatType(ge=least, le=None):
            return f"float >= {number(least)}"
        case inspect.FloatType(ge=least, le=most):
            return f"float {number(least)}..{number(most)}"
        case inspect.StrType(pattern=pattern, min_length=length) if pattern:
            assert pattern == rf"^[0-9a-f]{{{length}}}\Z"
            return f"hex {length}"
        case inspect.StrType(min_length=None, max_length=most):
            return f"text <= {most}"
        case inspect.StrType(min_length=least, max_length=most):
            return f"text {least}..{most}"
        case inspect.VarTupleType(item_type=item, min_length=least, max_length=most):
            return f"list {most if least == most else f'<= {most}'} of {in_words(item)}"
        case inspect.DictType(key_type=key, value_type=value, max_length=most):
            return f"map{f' <= {most}' if most else ''} of {in_words(key)} to {in_words(value)}"
        case inspect.LiteralType(values=values):
            names = {tuple(sorted(messages.JobState.__args__)): "job state", tuple(sorted(messages.ErrorCode.__args__)): "error code"}
            return names.get(tuple(sorted(values)), " or ".join(f'"{value}"' for value in values))
        case inspect.UnionType(types=types) if all(isinstance(one, inspect.StructType) for one in types):
            return "happening"
        case inspect.UnionType(types=types):
            [only] = [one for one in types if not isinstance(one, inspect.NoneType)]
            return f"{in_words(only)} or nil"
        case inspect.StructType(cls=cls):
            return cls.__name__
    raise AssertionError(kind)


def default_in_words(field: inspect.Field) -> str:
    if field.required:
        return "required"
    default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return "nil" if default is None else f"`{json.dumps(default)}`"


def test_every_message_has_its_section_and_no_other() -> None:
    assert set(SECTIONS) == set(STRUCTS)


@pytest.mark.parametrize("name", sorted(STRUCTS))
def test_tables_are_the_structs(name: str) -> None:
    fields = inspect.type_info(STRUCTS[name]).fields
    expected = {field.encode_name: [in_words(field.type), default_in_words(field)] for field in fields}
    assert {field: cells[:2] for field, cells in rows(SECTIONS[name]).items()} == expected


def test_the_connection_file_is_the_struct() -> None:
    section = SPEC.split("## 1.")[1].split("## 2.")[0]
    table = rows(section[section.index("| field |"):])
    expected = {field.encode_name: in_words(field.type) for field in inspect.type_info(location.Connection).fields}
    assert {field: cells[0] for field, cells in table.items()} == expected
    example = re.search(r"```json\n(.*?)\n```", section)[1]
    assert msgspec.json.decode(example, type=location.Connection).protocol == messages.PROTOCOL


def test_states_and_codes_are_the_literals() -> None:
    [states] = re.findall(r"^\*job state\* is one of (.*)\.$", SPEC, flags=re.MULTILINE)
    assert re.findall(r"`(\w+)`", states) == list(messages.JobState.__args__)
    codes = SPEC.split("*error code* is one of")[1].split("## 5.")[0]
    assert list(rows(codes)) == list(messages.ErrorCode.__args__)


def test_limits_are_those_of_the_code() -> None:
    limits = {name: cells[0] for name, cells in rows(SPEC.split("## 13.")[1].split("## 14.")[0]).items()}
    assert limits == {
        "TCP connection to handshake": f"{codec.HANDSHAKE_SECONDS:g} s",
        "Hello to Welcome": f"{codec.WELCOME_SECONDS:g} s",
        "Ping": f"every {codec.PING_SECONDS:g} s",
        "silence with an unanswered Ping": f"{codec.LOST_SECONDS:g} s, then lost",
        "silence of a client": f"{codec.FORGET_SECONDS:g} s, then forgotten",
        "header": f"{codec.MAX_HEADER_BYTES:,} bytes",
        "buffers of a message": f"{codec.MAX_BUFFERS}, each {codec.MAX_BUFFER_BYTES:,} bytes",
        "text in a header": f"{codec.MAX_TEXT_BYTES:,} bytes",
        "entries of a list or map": f"{codec.MAX_ENTRIES}",
        "mesh": f"{messages.MAX_VERTICES:,} vertices, {messages.MAX_FACES:,} faces",
        "coordinate": f"{mesh_codec.MAX_COORDINATE:g}",
        "picture": f"{messages.MIN_SIDE} to {messages.MAX_SIDE} pixels in each direction, {messages.MAX_PICTURES} of a job",
        "depth": f"{picture_codec.MAX_DEPTH:,.0f}",
        "regions of a job": f"{messages.MAX_REGIONS}",
    }
    options = rows(SPEC.split("Both sides set, before bind or connect:")[1])
    assert options["MAXMSGSIZE` (of one frame)"] == [f"{codec.MAX_HEADER_BYTES:,}", f"{codec.MAX_BUFFER_BYTES:,}"]
    assert options["SNDHWM`, `RCVHWM"] == [str(codec.CONTROL_HIGH_WATER), str(codec.BULK_HIGH_WATER)]
    assert SPEC.startswith(f"# Galatea's wire, version {messages.PROTOCOL}\n")


@pytest.mark.parametrize("name", sorted(set(STRUCTS) - PARTS))
def test_examples_are_messages(name: str) -> None:
    example = json.loads(re.search(r"```json\n(.*?)\n```", SECTIONS[name])[1])
    if STRUCTS[name] in messages.Happening.__args__:
        example = {"type": "JobEvent", "job": "0" * 32, "number": 1, "time": 0.0, "happening": example}
    received = decode([msgpack.packb(example)], TOP_LEVEL).message
    assert name in (type(received).__name__, type(getattr(received, "happening", None)).__name__)
    with pytest.raises(WireError):
        decode([msgpack.packb({**example, "more": 1})], TOP_LEVEL)


def test_the_client_at_the_end_works(start_service: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = re.findall(r"```python\n(.*?)\n```", SPEC, flags=re.DOTALL)[-1]
    client: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, "SPEC.md", "exec"), client)
    service = start_service()
    positions, faces = np.eye(4, 3, dtype=np.float32), np.array([[0, 1, 2], [0, 2, 3]])
    returned: list[Any] = []
    thread = threading.Thread(target=lambda: returned.append(client["main"](folder, "a red mug")), daemon=True)
    thread.start()
    service.until(lambda: service.of("Watch"))
    [submitted] = service.of("Submit")
    job = submitted["job"]
    service.happen(job, "Queued")
    service.happen(job, "Started", step=0, device="cpu")
    service.progress(job, 1)
    service.snapshot(job, 1, 1, positions, faces)
    assert service.snapshot(job, 2, 1, positions, faces)["topology"] == 1
    service.results[job] = [positions.tobytes(), faces.astype("<i4").tobytes()]
    service.happen(job, "Finished", step=2, seconds=1.0, vertices=4, faces=2, lose=True)  # the next Pong tells
    thread.join(10)
    [(header, buffers)] = returned
    assert header == {"vertices": 4, "faces": 2, "colors": False} and buffers[0] == positions.tobytes()
    service.until(lambda: [message["number"] for message in service.of("Acknowledge")] == [3])
    lines = capsys.readouterr().out.splitlines()
    snapshots = [line for line in lines if line.startswith("snapshot")]
    assert snapshots == [f"snapshot after step {step} 4 vertices 2 faces" for step in (1, 2)]
    assert [line for line in lines if line not in snapshots] == ["Queued", "Started", "optimizing 1 of 100", "Finished"]
