"""Who gets in, and what becomes of those who send what they should not: a real service, bare sockets."""

from __future__ import annotations

import secrets
import time

import msgpack
import psutil
import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from protocol.codec import MAX_HEADER_BYTES, encode
from protocol.messages import (
    PROTOCOL,
    Done,
    Grant,
    Hello,
    JobRequest,
    ListJobs,
    Ping,
    Pong,
    Refused,
    Shutdown,
    Snapshot,
    Submit,
    Watch,
    Welcome,
)


def handshake(port: int, session: bytes | None, token: bytes | None, answers: int = 1) -> str:
    """How a handshake ends: the monitor's word for it."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        if session is not None:
            socket.plain_username, socket.plain_password = session, token
        monitor = socket.get_monitor_socket()
        socket.connect(f"tcp://127.0.0.1:{port}")
        told = ""
        until = time.monotonic() + 20
        while time.monotonic() < until and not told.startswith("HANDSHAKE"):
            if monitor.poll(100):
                event = recv_monitor_message(monitor)
                told = zmq.Event(event["event"]).name
        socket.disable_monitor()
        monitor.close(0)
    return told


def ports(service) -> list[int]:
    """All that the service listens on."""
    process = psutil.Process(service.process.pid)
    listening = [one.laddr for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    assert {address.ip for address in listening} == {"127.0.0.1"}
    return sorted(address.port for address in listening)


def test_only_the_token_opens_a_socket(service) -> None:
    connection, session = service.connection, secrets.token_hex(16).encode()
    workers_port = set(ports(service)) - {connection.control_port, connection.bulk_port}
    assert len(workers_port) == 1
    token = connection.token.encode()
    for port in (connection.control_port, connection.bulk_port):
        assert handshake(port, session, token) == "HANDSHAKE_SUCCEEDED"
        for wrong in (b"x", b"0" * 64, token[:-1], token + b"0"):
            assert handshake(port, session, wrong) == "HANDSHAKE_FAILED_AUTH"
        assert handshake(port, None, None).startswith("HANDSHAKE_FAILED")
        for name in (b"x", b"somebody", session[:-1], session + b"0", session.upper(), session[:-1] + b"\n"):
            assert handshake(port, name, token) == "HANDSHAKE_FAILED_AUTH"
    assert handshake(workers_port.pop(), session, token) == "HANDSHAKE_FAILED_AUTH"
    assert "wrong token" in service.log()


def test_hello_comes_first_and_its_version_counts(raw) -> None:
    client = raw()
    client.tell(Ping(7))
    assert isinstance(refused := client.hear(), Refused) and (refused.request, refused.code) == (7, "invalid")
    client.hand(Grant("0" * 32))
    assert isinstance(refused := client.hear(bulk=True), Refused) and refused.code == "invalid"
    for other in (PROTOCOL + 1, PROTOCOL - 1):
        client.tell(Hello(other, "another"))
        assert isinstance(refused := client.hear(), Refused) and refused.code == "version"
        assert f"version {other}" in refused.message and f"version {PROTOCOL}" in refused.message
    client.tell(Hello(PROTOCOL, "this one"))
    welcome = client.hear()
    assert isinstance(welcome, Welcome) and welcome.session == client.session
    assert welcome.priors == ("toybox",) and set(welcome.recipes) >= {"generate", "refine"}


def test_a_session_acts_for_itself_alone(raw, watcher, service, ball) -> None:
    """Credit that another session gives is another session's, and a bulk socket without a Hello of its own does nothing."""
    service.wait_until_ready()
    job = watcher.submitted(JobRequest("refine", "a red mug", steps=12), ball, follow=False)
    mine, other = raw().hello(), raw().hello()
    mine.tell(Watch(1, job))
    other.hand(Grant(job))
    assert isinstance(other.hear(bulk=True), Snapshot)
    assert mine.hear(bulk=True, seconds=0.2) is None
    stranger = raw()
    stranger.hand(Submit(1, secrets.token_hex(16), JobRequest("generate", "a mug")))
    assert isinstance(stranger.hear(bulk=True), Refused)
    watcher.reply(watcher.cancel(job))


def test_garbage_is_answered_with_a_sentence_and_hurts_nobody(raw, service) -> None:
    client = raw().hello()
    hostile = [
        [b""],
        [b"\xc1"],
        [secrets.token_bytes(100)],
        [b"x" * (MAX_HEADER_BYTES)],
        [b"\x81" * 50_000],
        [msgpack.packb({"type": "Nonsense", "request": 3})],
        [msgpack.packb({"type": "Ping", "request": -1})],
        [msgpack.packb({"type": "Ping", "request": 1, "more": 1})],
        [msgpack.packb({"type": "Cancel", "request": 5, "job": "../../etc/passwd" + "0" * 16})],
        [msgpack.packb({"type": "Welcome"})],
        [msgpack.packb({"type": "Steer", "request": 9, "job": "0" * 32, "strength": float("nan")})],
        encode(Ping(1)) + [b"1"] * 50,
    ]
    for frames in hostile:
        for line, bulk in ((client.control, False), (client.bulk, True)):
            line.send_multipart(frames)
            refused = client.hear(bulk)
            assert isinstance(refused, Refused), frames
            assert refused.code in ("invalid", "too_large") and len(refused.message) > 20
    client.tell(ListJobs(5, 100))
    assert client.hear().request == 5
    client.tell(Watch(6, "0" * 32))
    assert client.hear().code == "unknown_job"
    assert "defect" not in service.log()


def test_a_frame_that_is_too_large_ends_its_connection_only(raw, service) -> None:
    client, other = raw().hello(), raw().hello()
    client.control.send(b"0" * (MAX_HEADER_BYTES + 1))
    assert client.hear(seconds=0.5) is None
    other.tell(Ping(1))
    assert isinstance(other.hear(), Pong)
    client.control.send_multipart(encode(Hello(PROTOCOL, "again")))  # ZeroMQ connects again by itself
    assert isinstance(client.hear(), Welcome)


def test_a_flood_is_served_in_bounded_memory(raw, service) -> None:
    """A client that asks and never reads: what does not fit its socket is dropped."""
    flooding, other = raw().hello(), raw().hello()
    process = psutil.Process(service.process.pid)
    before = process.memory_info().rss
    for number in range(20_000):
        try:
            flooding.control.send_multipart(encode(ListJobs(number, 100)), zmq.NOBLOCK)
        except zmq.Again:
            time.sleep(0.001)
    other.tell(Ping(1))
    assert isinstance(other.hear(), Pong)
    assert process.memory_info().rss - before < 60e6


@pytest.mark.parametrize("kind", [Shutdown, ListJobs])
def test_what_belongs_on_one_socket_is_refused_on_the_other(raw, kind) -> None:
    client = raw().hello()
    client.hand(kind(request=4))
    refused = client.hear(bulk=True)
    assert isinstance(refused, Refused) and (refused.request, refused.code) == (4, "invalid")


def test_done_is_said_once_events_have_been_sent(raw, watcher, service) -> None:
    """Watch: events in order from the number asked for, then Done, then how the job stands."""
    service.wait_until_ready()
    job = watcher.submitted(JobRequest("generate", "a mug", steps=2))
    watcher.result(job)
    events = watcher.events(job)
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    client = raw().hello()
    for after in range(len(events) + 1):
        client.tell(Watch(30 + after, job, after))
        for event in events[after:]:
            assert client.hear() == event
        assert client.hear() == Done(30 + after)
        assert client.hear().step == 2
