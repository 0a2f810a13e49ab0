"""The clients that are connected: who they are, what they watch, and how something is sent to them without ever waiting.

A client that does not read costs nothing but the few messages that fit its socket's high-water mark: what does not fit is
dropped, if it is progress, or stays due, if it is an event; events are sent in order from the store, so that none is
skipped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import zmq

from backend.service.job_store import JobStore
from protocol.codec import FORGET_SECONDS, PING_SECONDS, Frame, encode
from protocol.messages import ErrorCode, Grant, HexId, Progress

MAX_CLIENTS = 64
MAX_PER_CLIENT = 200
"""Jobs that one client may watch, follow or be waiting for the result of, each."""

log = logging.getLogger(__name__)


class Refusal(Exception):
    """What a client asked for cannot be done; answered as `Refused`."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code: ErrorCode = code
        self.message = message


@dataclass
class Client:
    """One session. Its addresses change when it connects again."""

    session: HexId
    heard: float
    name: str = ""
    """Empty until it has said Hello."""
    control: bytes = b""
    bulk: bytes = b""
    watches: dict[HexId, int] = field(default_factory=dict)
    """Job -> number of the last event that was sent."""
    behind: set[HexId] = field(default_factory=set)
    """Watched jobs with events that did not fit into the socket yet."""
    grants: dict[HexId, Grant] = field(default_factory=dict)
    fetches: dict[int, HexId] = field(default_factory=dict)
    """Request -> job, for results that did not fit into the socket yet."""

    def begin(self, name: str) -> None:
        """It said Hello: whatever an earlier connection of this session asked for, it will ask for again."""
        self.name, self.bulk = name, b""
        self.watches.clear()
        self.behind.clear()
        self.grants.clear()
        self.fetches.clear()


class Clients:
    """All sessions, and the two sockets that they are reached through."""

    def __init__(self, control: zmq.Socket, bulk: zmq.Socket, store: JobStore) -> None:
        self._control, self._bulk, self._store = control, bulk, store
        self._clients: dict[HexId, Client] = {}

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._clients.values()))

    def hear(self, session: HexId) -> Client:
        """The session that a message came from."""
        client = self._clients.get(session)
        if client is None:
            if len(self._clients) >= MAX_CLIENTS:
                self._forget(min(self._clients.values(), key=lambda other: other.heard))
            client = self._clients[session] = Client(session, time.monotonic())
        client.heard = time.monotonic()
        return client

    def forget_gone(self, probe: Callable[[Client], msgspec.Struct]) -> None:
        """Let go of the clients that have said nothing for FORGET_SECONDS and cannot be reached any more.

        One that is only busy, and reads when it wakes, keeps what it watches; `probe` is sent to find out.
        """
        for client in self:
            silent = time.monotonic() - client.heard > FORGET_SECONDS
            if silent and not _is_there(self._control, client.control, encode(probe(client))):
                self._forget(client)

    def _forget(self, client: Client) -> None:
        del self._clients[client.session]
        if client.name:
            log.info("client %r has gone", client.name)

    # ---- sending

    def tell(self, client: Client, message: msgspec.Struct) -> bool:
        """Send on the control socket; False if it did not fit or the client is not there."""
        return _send(self._control, client.control, encode(message))

    def hand(self, client: Client, message: msgspec.Struct, buffers: Sequence[Frame] = ()) -> bool:
        """Send on the bulk socket; False if it did not fit or the client is not there."""
        return _send(self._bulk, client.bulk, encode(message, buffers))

    # ---- watching

    def watch(self, client: Client, job: HexId, after: int) -> None:
        """Send the job's events after `after`, and from now on those that come. Raises Refusal."""
        if job not in client.watches and len(client.watches) >= MAX_PER_CLIENT:
            raise Refusal("conflict", f"You watch {MAX_PER_CLIENT} jobs already; stop watching one first.")
        client.watches[job] = after
        self.catch_up(client, job)

    def catch_up(self, client: Client, job: HexId) -> None:
        """Send what the client has not been sent of the job's events; what does not fit is noted as due."""
        client.behind.discard(job)
        for event in self._store.events_after(job, client.watches[job]):
            if not self.tell(client, event):
                client.behind.add(job)
                return
            client.watches[job] = event.number

    def unwatch(self, client: Client, job: HexId) -> None:
        client.watches.pop(job, None)
        client.behind.discard(job)
        client.grants.pop(job, None)

    def announce(self, job: HexId) -> None:
        """The job has new events."""
        for client in self:
            if job in client.watches:
                self.catch_up(client, job)

    def show(self, progress: Progress) -> None:
        """Send progress to those who watch and have been heard lately; the newest wins, so nothing is kept for later."""
        lately = time.monotonic() - 3 * PING_SECONDS
        frames = encode(progress)
        for client in self:
            if progress.job in client.watches and client.heard > lately:
                _send(self._control, client.control, frames)

    def watched(self) -> set[HexId]:
        return {job for client in self for job in client.watches}


def _send(socket: zmq.Socket, address: bytes, frames: Sequence[Frame]) -> bool:
    """Whether the frames are on their way."""
    return _try_send(socket, address, frames) == 0


def _is_there(socket: zmq.Socket, address: bytes, frames: Sequence[Frame]) -> bool:
    """Whether the peer is connected, be it that it does not read."""
    return _try_send(socket, address, frames) != zmq.EHOSTUNREACH


def _try_send(socket: zmq.Socket, address: bytes, frames: Sequence[Frame]) -> int:
    if not address:
        return zmq.EHOSTUNREACH
    try:
        socket.send_multipart([address, *frames], zmq.NOBLOCK, copy=False)
    except zmq.ZMQError as error:
        if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
            raise
        return error.errno
    return 0
