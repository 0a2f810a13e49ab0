"""The connection file: only the user's, never half written, and each way it can be wrong has its sentence."""

from __future__ import annotations

import os
import stat
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from protocol.location import (
    CONNECTION_FILE,
    Connection,
    LocationError,
    make_private_folder,
    read_connection,
    service_folder,
    write_connection,
)
from protocol.messages import PROTOCOL

posix = pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX systems")


def connection(**changes: object) -> Connection:
    values = {"protocol": PROTOCOL, "service": "0.1.0", "instance": "a" * 32, "pid": 5, "control_port": 1, "bulk_port": 65535, "token": "b" * 64}
    return Connection(**{**values, **changes})  # type: ignore[arg-type]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_written_is_read(folder: Path) -> None:
    assert read_connection(folder) is None
    write_connection(folder, connection())
    assert read_connection(folder) == connection()
    write_connection(folder, connection(pid=6))
    assert read_connection(folder) == connection(pid=6)
    assert [path.name for path in folder.iterdir()] == [CONNECTION_FILE]


@posix
def test_folder_and_file_are_the_users_alone_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    whole_write = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode)), whole_write(descriptor)))
    before = os.umask(0)
    try:
        write_connection(tmp_path / "new" / "folder", connection())
        (tmp_path / "open").mkdir(mode=0o777)
        write_connection(tmp_path / "open", connection())
    finally:
        os.umask(before)
    assert mode(tmp_path / "new" / "folder") == mode(tmp_path / "open") == 0o700
    assert seen == [0o600, 0o600] and mode(tmp_path / "open" / CONNECTION_FILE) == 0o600


@posix
@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o602, 0o666])
def test_a_file_open_to_others_is_refused(folder: Path, bits: int) -> None:
    write_connection(folder, connection()).chmod(bits)
    with pytest.raises(LocationError, match="other users.*Delete it and start the service again"):
        read_connection(folder)


@posix
@pytest.mark.skipif(os.name == "posix" and os.getuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_is_refused(folder: Path) -> None:
    os.chown(write_connection(folder, connection()), 12345, -1)
    with pytest.raises(LocationError, match="belongs to another user"):
        read_connection(folder)
    os.chown(folder, 12345, -1)
    with pytest.raises(LocationError, match="belongs to another user"):
        make_private_folder(folder)


@posix
def test_what_is_no_plain_file_is_refused_and_never_waited_for(folder: Path, tmp_path: Path) -> None:
    path = write_connection(folder, connection())
    elsewhere = path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(elsewhere)
    with pytest.raises(LocationError, match="cannot be read"):
        read_connection(folder)
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(LocationError, match="not a file"):
        read_connection(folder)
    path.unlink()
    path.mkdir()
    with pytest.raises(LocationError, match="not a file"):
        read_connection(folder)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is broken"),
        (b"{", "is broken"),
        (b"[]", "is broken"),
        (b"\xff\xfe", "is broken"),
        (b"[" * 50_000, "is broken"),
        (b" " * 70_000, "larger than 65,536 bytes"),
        (msgspec.json.encode(connection(token="b" * 63)), "token"),
        (msgspec.json.encode(connection(token="B" * 64)), "token"),
        (msgspec.json.encode(connection(token="b" * 64 + "\n")), "token"),
        (msgspec.json.encode(connection(instance="../../etc/passwd")), "instance"),
        (msgspec.json.encode(connection(control_port=0)), "control_port"),
        (msgspec.json.encode(connection(bulk_port=65536)), "bulk_port"),
        (msgspec.json.encode(connection(pid="5")), "pid"),
        (b'{"protocol": 2}', "service"),
        (b'{"protocol": 3, "new": true}', "version 3 .* version 2. This side is older than the service: update it"),
        (b'{"protocol": 1}', "version 1 .* version 2. The service is older than this side: update it"),
    ],
)
def test_a_broken_file_has_a_sentence(folder: Path, content: bytes, sentence: str) -> None:
    write_connection(folder, connection()).write_bytes(content)
    with pytest.raises(LocationError, match=sentence) as caught:
        read_connection(folder)
    assert "start the service again" in str(caught.value)


def test_the_token_is_in_no_message(folder: Path) -> None:
    path = write_connection(folder, connection())
    path.write_bytes(path.read_bytes().replace(b'"pid": 5', b'"pid": "5"'))
    with pytest.raises(LocationError) as caught:
        read_connection(folder)
    assert "bbb" not in str(caught.value)


def test_fields_of_a_later_version_are_passed_over(folder: Path) -> None:
    path = write_connection(folder, connection())
    path.write_bytes(path.read_bytes().replace(b"{", b'{"color": "red", '))
    assert read_connection(folder) == connection()


def test_readers_never_see_half_a_file(folder: Path) -> None:
    write_connection(folder, connection())
    over = threading.Event()

    def write() -> None:
        for pid in range(1, 200):
            write_connection(folder, connection(pid=pid))
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not over.is_set():
        assert read_connection(folder) is not None
    writer.join()


def test_a_folder_that_cannot_be_used_has_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(LocationError, match="Choose another|cannot be used"):
            write_connection(folder, connection())


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_DATA_HOME": "/data"}, "/data/galatea"),
        ("linux", {"XDG_DATA_HOME": "relative"}, "HOME/.local/share/galatea"),
        ("linux", {}, "HOME/.local/share/galatea"),
        ("linux", {"GALATEA_SERVICE_FOLDER": "/mine", "XDG_DATA_HOME": "/data"}, "/mine"),
        ("linux", {"GALATEA_SERVICE_FOLDER": ""}, "HOME/.local/share/galatea"),
        ("darwin", {"XDG_DATA_HOME": "/data"}, "HOME/Library/Application Support/galatea"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/galatea"),
        ("win32", {}, "HOME/AppData/Local/galatea"),
    ],
)
def test_the_folder_of_each_system(
    platform: str, variables: dict[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GALATEA_SERVICE_FOLDER", "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": str(tmp_path), **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert str(service_folder()) == expected.replace("HOME", str(tmp_path))
