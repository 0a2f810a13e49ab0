"""The client finds the service, says in words why it cannot, and neither hangs nor leaves anything behind."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from protocol import client_link, client_requests, client_thread, codec
from protocol.client import Client
from protocol.client_events import ConnectionChanged, ProgressMade, Replied
from protocol.location import Connection, write_connection
from protocol.messages import PROTOCOL

JOB = "0123456789abcdef" * 2


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter time-outs, in the same proportions."""
    monkeypatch.setattr(codec, "HANDSHAKE_SECONDS", 0.4)
    for name, seconds in {"HANDSHAKE_SECONDS": 0.4, "WELCOME_SECONDS": 0.6, "PING_SECONDS": 0.1, "LOST_SECONDS": 0.6}.items():
        monkeypatch.setattr(client_link, name, seconds)
    monkeypatch.setattr(client_requests, "PATIENCE_SECONDS", 1.0)


@contextlib.contextmanager
def listener(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A TCP server on a free port that does `talk` with each who comes."""
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.05)
    over, kept = threading.Event(), []

    def run() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                kept.append(server.accept()[0])
                talk(kept[-1])

    thread = threading.Thread(target=run)
    thread.start()
    yield server.getsockname()[1]
    over.set()
    thread.join()
    for one in (*kept, server):
        one.close()


@contextlib.contextmanager
def dead_port() -> Iterator[int]:
    """A port that nobody listens on, and nobody can come to."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def point_to(folder: Path, port: int, bulk_port: int | None = None, **changes: Any) -> None:
    values = {"protocol": PROTOCOL, "service": "0", "instance": "a" * 32, "pid": 1, "token": "b" * 64}
    write_connection(folder, Connection(**{**values, "control_port": port, "bulk_port": bulk_port or port, **changes}))


def test_without_a_service_it_searches_and_finds_the_one_that_comes(start_service: Any, start_client: Any) -> None:
    consumer = start_client()
    assert "No service is running. Start it" in consumer.until_state("searching").message
    service = start_service()
    consumer.until_state("connecting")
    welcome = consumer.until_state("connected").welcome
    assert welcome.instance == service.instance and welcome.priors == ("toybox",)
    assert service.of("Hello")[0]["client"] == "test"


def test_a_wrong_token_is_told_and_the_right_one_tried_at_once(start_service: Any, start_client: Any) -> None:
    service = start_service(token_in_file="0" * 64)
    consumer = start_client()
    assert "refused the token" in consumer.until_state("refused").message
    assert not service.heard
    service.write_file()
    consumer.until_state("connected")


@pytest.mark.parametrize(("protocol", "words"), [(3, "This side is older than the service"), (1, "The service is older than this side")])
def test_another_version_is_told_before_anything_is_sent(start_service: Any, start_client: Any, protocol: int, words: str) -> None:
    service = start_service(protocol=protocol)
    message = start_client().until_state("refused").message
    assert f"version {protocol} of the protocol" in message and words in message and "update" in message
    assert not service.heard


def test_hello_refused_is_told_in_the_services_words(start_service: Any, start_client: Any) -> None:
    service = start_service()
    service.answers["Hello"] = lambda _: {"type": "Refused", "request": None, "code": "version", "message": "Update the extension."}
    assert start_client().until_state("refused").message == "Update the extension."


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"protocol": 3}, "version 3"),
        ({"instance": "f" * 32}, "not the one of the connection file"),
        ({"session": "f" * 32}, "not the one of the connection file"),
        ({"devices": [1]}, "cannot be read"),
        ({"type": "Pong", "request": 1}, "cannot be read"),
        ({"type": "Done", "request": 1}, "answered Hello with Done"),
    ],
)
def test_a_welcome_that_is_none_is_refused(start_service: Any, start_client: Any, change: dict[str, Any], words: str) -> None:
    service = start_service()

    def answer(message: dict[str, Any]) -> dict[str, Any]:
        return change if change.get("type") == "Done" else {**service._on_hello(message), **change}

    service.answers["Hello"] = answer
    assert words in start_client().until_state("refused").message


@pytest.mark.parametrize(
    "talk",
    [
        lambda peer: peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 9),
        lambda peer: peer.sendall(bytes(range(256))),
        lambda peer: peer.sendall(b"\xff" + b"\0" * 8 + b"\x7f\x03"),  # as ZeroMQ begins, and then nothing
        lambda peer: peer.close(),
        lambda peer: None,
    ],
    ids=["http", "bytes", "half a greeting", "closes", "silent"],
)
def test_something_that_is_not_galatea_is_told(talk: Any, folder: Path, start_client: Any, quick: None) -> None:
    with listener(talk) as port:
        point_to(folder, port)
        message = start_client().until_state("refused").message
    assert f"listens on port {port}" in message and "Galatea" in message and "start it again" in message


def test_zeromq_without_authentication_is_not_galatea(folder: Path, start_client: Any) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as other:
        point_to(folder, other.bind_to_random_port("tcp://127.0.0.1"))
        assert "is not a Galatea service" in start_client().until_state("refused").message


def test_a_port_that_nobody_listens_on_means_that_the_service_was_killed(folder: Path, start_client: Any) -> None:
    with dead_port() as port:
        point_to(folder, port)
        consumer = start_client()
        message = consumer.until_state("searching").message
        assert f"No service answers on port {port}" in message and "Start it" in message
        told = len(consumer.told)
        time.sleep(0.7)
        assert len(consumer.of(ConnectionChanged)) == told, "said once"


def test_one_dead_port_of_two_is_told(start_service: Any, folder: Path, start_client: Any) -> None:
    service = start_service()
    with dead_port() as dead:
        point_to(folder, service.ports[0], dead, instance=service.instance, token=service.token)
        assert f"port {dead}" in start_client().until_state("searching").message


def test_a_broken_connection_file_is_told(folder: Path, start_client: Any) -> None:
    point_to(folder, 5)
    (folder / "connection.json").write_text("{")
    assert "is broken" in start_client().until_state("refused").message


def test_a_service_that_does_not_welcome_is_told(start_service: Any, start_client: Any, quick: None) -> None:
    start_service().silent_on = {"Hello"}
    assert "let this client in but did not answer" in start_client().until_state("refused").message


def test_a_service_that_falls_silent_is_lost_and_found_again(start_service: Any, start_client: Any, quick: None) -> None:
    service, consumer = start_service(), start_client()
    consumer.until_state("connected")
    service.silent_on = {"Ping"}
    assert "has not answered" in consumer.until_state("lost").message
    service.silent_on = set()
    consumer.until(ConnectionChanged, 2, state="connected")
    assert len({message["session"] for message in service.of("Hello")}) == 1


def test_a_service_that_ends_is_lost_then_searched_for(start_service: Any, start_client: Any, folder: Path) -> None:
    service, consumer = start_service(), start_client()
    consumer.until_state("connected")
    service.stop()
    assert "broke off" in consumer.until_state("lost").message
    assert "No service answers" in consumer.until_state("searching").message
    (folder / "connection.json").unlink()
    assert "No service is running" in consumer.until(ConnectionChanged, 2, state="searching").message
    assert [event.state for event in consumer.of(ConnectionChanged)][-3:] == ["lost", "searching", "searching"]


def test_a_file_of_another_service_is_followed_while_the_old_one_still_answers(start_service: Any, start_client: Any) -> None:
    start_service()
    consumer = start_client()
    consumer.until_state("connected")
    second = start_service()
    assert consumer.until(ConnectionChanged, 2, state="connected").welcome.instance == second.instance
    assert "restarted" in consumer.until_state("lost").message


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"garbage"],
        [b"\x91" * 60_000],
        [msgpack.packb({"type": "Ping", "request": 1})],
        [msgpack.packb({"type": "Done", "request": 1}), b"more"],
        [msgpack.packb({"type": "Done", "request": 1})] + [b""] * 1000,
        [msgpack.packb({"type": "Progress", "job": JOB, "state": "running", "what": "", "step": 0, "total": 0, "stage": 0,
                        "seconds_left": float("nan"), "step_seconds": 0.0, "memory_megabytes": 0.0, "numbers": {}})],
        [msgpack.packb({"type": "Pong", "request": 1, "instance": "0" * 32, "last_events": {}})],
        [bytes(64 * 1024 + 1)],
    ],
    ids=["empty", "garbage", "nested", "other direction", "buffer", "frames", "nan", "other instance", "oversized"],
)  # fmt: skip
def test_garbage_from_the_service_is_told_and_survived(start_service: Any, start_client: Any, frames: list[bytes]) -> None:
    service, consumer = start_service(), start_client()
    consumer.until_state("connected")
    service.send(frames)
    message = consumer.until_state("lost").message
    assert message.endswith(".") and len(message) < 1000
    consumer.until(ConnectionChanged, 2, state="connected")


def test_garbage_on_the_bulk_socket_is_survived_too(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    consumer.until_state("connected")
    consumer.client.fetch(JOB)  # so that the service knows where this client is
    service.until(lambda: service.of("Fetch"))
    service.send([msgpack.packb({"type": "Done", "request": 1})], bulk=True)
    consumer.until_state("lost")
    consumer.until(ConnectionChanged, 2, state="connected")


def test_a_flood_neither_grows_nor_keeps_commands_waiting(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    service.jobs[JOB] = []
    consumer.client.watch(JOB)
    service.until(lambda: JOB in service.watching)
    over = threading.Event()

    def flood() -> None:
        while not over.is_set():
            service.progress(JOB, 1)

    floods = [threading.Thread(target=flood) for _ in range(2)]
    for thread in floods:
        thread.start()
    time.sleep(0.5)
    assert len(consumer.client.poll(1000)) <= 3  # the connection's last change, one reply at most, one progress
    consumer.until(Replied, request=consumer.client.pause(JOB), refused=None)
    over.set()
    for thread in floods:
        thread.join()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts files through /proc")
@pytest.mark.parametrize("situation", ["never started", "no service", "connected", "lost", "silent", "silent service"])
def test_close_is_quick_and_leaves_no_thread_and_no_file(
    situation: str, start_service: Any, folder: Path, tmp_path: Path
) -> None:
    def settled(client: Client, state: str) -> None:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if any(isinstance(event, ConnectionChanged) and event.state == state for event in client.poll()):
                return
            time.sleep(0.01)
        raise AssertionError(state)

    with listener(lambda peer: None) as port:
        if situation == "silent":
            point_to(folder, port)
        elif situation != "no service":
            service = start_service()
        if situation == "silent service":
            service.silent_on = {"Hello", "Ping"}
        zmq.Context().term()  # whatever pyzmq makes once
        threads, files = set(threading.enumerate()), open_files()
        client = Client(folder, "test")
        if situation != "never started":
            client.start()
        if situation in ("connected", "lost"):
            settled(client, "connected")
            if situation == "lost":
                service.do(lambda: service.control.unbind(service.control.last_endpoint))
                service.silent_on = {"Ping"}
        elif situation != "never started":
            time.sleep(0.3)
        started = time.monotonic()
        client.close()
        client.close()
        assert time.monotonic() - started < 2.0
        assert set(threading.enumerate()) == threads
        wait_for(lambda: open_files() <= files + 2 * (situation == "silent"))  # the listener keeps its ends
    with pytest.raises(RuntimeError, match="closed"):
        client.watch(JOB)
    assert isinstance(client.poll(), list)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_many_reconnects_leave_nothing_behind(start_service: Any, start_client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_thread, "FIRST_RETRY_SECONDS", 0.01)
    service, consumer = start_service(), start_client()
    consumer.until_state("connected")
    for count in range(2, 12):
        service.send([b"garbage"])
        consumer.until(ConnectionChanged, count, state="connected")
        if count == 3:
            files = open_files()
    wait_for(lambda: open_files() <= files)


def test_requests_that_nobody_answers_are_refused_in_the_end(start_service: Any, start_client: Any, quick: None) -> None:
    consumer = start_client()
    request = consumer.client.pause(JOB)
    assert "did not answer" in consumer.until(Replied, request=request).refused.message
    service = start_service()
    consumer.until_state("connected")
    service.silent_on = {"Pause"}
    request = consumer.client.pause(JOB)
    assert consumer.until(Replied, request=request).refused.code == "conflict"
    assert len(service.of("Pause")) == 1


def test_progress_of_a_job_that_is_not_watched_is_dropped(start_service: Any, start_client: Any) -> None:
    service, consumer = start_service(), start_client()
    consumer.until_state("connected")
    service.do(lambda: service.watching.update({JOB: service._peers["control"]}))
    service.progress(JOB, 1)
    consumer.until(Replied, request=consumer.client.pause(JOB))
    assert not consumer.of(ProgressMade)


def test_a_program_that_never_closes_its_client_still_ends(start_service: Any, folder: Path) -> None:
    start_service()
    script = """
import sys, time
from pathlib import Path
from protocol.client import Client
client = Client(Path(sys.argv[1]), "test")
client.start()
while not any(event.state == "connected" for event in client.poll()):
    time.sleep(0.01)
"""
    root = Path(client_link.__file__).parents[1]
    ended = subprocess.run([sys.executable, "-c", script, str(folder)], cwd=root, capture_output=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.parametrize("name", ["", "x" * 201])
def test_a_name_that_the_service_would_refuse(folder: Path, name: str) -> None:
    with pytest.raises(ValueError, match="1 to 200"):
        Client(folder, name)
