"""One connection to one service, from the first TCP packet to the first failure; never used again after it.

Both sockets have a monitor, so that a wrong token, a listener that is not Galatea and a service that is gone are told
apart and each gets a sentence of its own. Nothing is sent before the handshakes have succeeded, so nothing can wait in
ZeroMQ's queues and reach another service than the one it was meant for.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import zmq
from zmq.utils.monitor import recv_monitor_message

from .client_events import ConnectionState
from .codec import (
    HANDSHAKE_SECONDS,
    LOST_SECONDS,
    MAX_BUFFERS,
    PING_SECONDS,
    WELCOME_SECONDS,
    Frame,
    Received,
    WireError,
    apply_limits,
    decode,
    encode,
)
from .location import Connection, other_version
from .messages import PROTOCOL, Hello, Ping, Pong, Refused, ToClientBulk, ToClientControl, Welcome

HOST = "127.0.0.1"
MOST_CONTROL, MOST_BULK = 16, 1
"""Messages that are read at once; a service that floods must not keep the thread from its other work."""

TRYING = "Trying again; its log says what it does."
START = "Start it (in Blender: Start in Galatea's preferences; in a terminal: python3 galatea.py serve)."
RESTART = "End what runs there, or end the Galatea service and start it again, which takes another port."


class LinkFailed(Exception):
    """The link is of no use any more: the state it leaves the client in, and a sentence for a person."""

    def __init__(self, state: ConnectionState, message: str) -> None:
        super().__init__(message)
        self.state: ConnectionState = state
        self.message = message


class Link:
    """The two sockets and how far they have come. Used by one thread only."""

    def __init__(self, context: zmq.Context[Any], connection: Connection, session: str, name: str) -> None:
        self.connection = connection
        self.welcome: Welcome | None = None
        self._session, self._name = session, name
        self._control = _Line(context, connection.control_port, session, connection.token, bulk=False)
        self._bulk = _Line(context, connection.bulk_port, session, connection.token, bulk=True)
        self._deadline = time.monotonic() + HANDSHAKE_SECONDS + 1.0
        self._greeted = False
        self._next_ping = 0.0
        self._silent_since: float | None = None

    def sockets(self) -> list[tuple[zmq.Socket[Any], int]]:
        """What to poll, and for what."""
        return [
            (self._control.socket, self._control.events()),
            (self._control.monitor, zmq.POLLIN),
            (self._bulk.socket, self._bulk.events()),
            (self._bulk.monitor, zmq.POLLIN),
        ]

    def read(self) -> list[Received[Any]]:
        """What has come, without waiting: a few messages at most. Raises LinkFailed.

        What came before a failure is returned first, and the failure raised by the next call.
        """
        try:
            received = [*self._control.receive(ToClientControl, MOST_CONTROL), *self._bulk.receive(ToClientBulk, MOST_BULK)]
        except WireError as error:
            state: ConnectionState = "refused" if self.welcome is None else "lost"
            raise LinkFailed(state, f"The service sent what cannot be read: {error.message} {UPDATE}") from None
        if received and self.welcome is not None:
            self._silent_since = None
            for one in received:
                self._check_instance(one.message)
            return received
        for line in (self._control, self._bulk):
            line.watch_handshake(connected=self.welcome is not None)
        if received:
            return self._take_welcome(received)
        return []

    def keep_alive(self, next_number: Callable[[], int]) -> None:
        """Greet, ping, and look at the clock; `next_number` numbers the pings. Raises LinkFailed."""
        now = time.monotonic()
        for line in (self._control, self._bulk):
            line.flush()
        if not self._greeted and self._control.ready and self._bulk.ready:
            self._greeted = True
            self._deadline = now + WELCOME_SECONDS
            self.send(Hello(protocol=PROTOCOL, client=self._name))
        if self.welcome is None:
            if now > self._deadline:
                raise LinkFailed("refused", self._why_so_long())
            return
        if self._silent_since is not None and now - self._silent_since > LOST_SECONDS:
            raise LinkFailed("lost", f"The service has not answered for {LOST_SECONDS:g} s. {TRYING}")
        if now < self._next_ping:
            return
        self._next_ping = now + PING_SECONDS
        if self._silent_since is None:
            self._silent_since = now
        self.send(Ping(request=next_number()))

    def next_deadline(self) -> float:
        """When `keep_alive` has something to do (monotonic seconds)."""
        if self.welcome is None:
            return self._deadline
        return self._next_ping

    def send(self, message: msgspec.Struct, buffers: Sequence[Frame] = (), *, bulk: bool = False) -> None:
        """Raises WireError for what is no message. What the service does not take yet waits here."""
        (self._bulk if bulk else self._control).send(encode(message, buffers))

    def close(self) -> None:
        self._control.close()
        self._bulk.close()

    def _take_welcome(self, received: list[Received[Any]]) -> list[Received[Any]]:
        first = received[0].message
        if isinstance(first, Refused):
            raise LinkFailed("refused", first.message)
        if not isinstance(first, Welcome):
            raise LinkFailed("refused", f"The service answered Hello with {type(first).__name__}. Update it, and start it again.")
        if first.protocol != PROTOCOL:
            raise LinkFailed("refused", other_version(first.protocol))
        if first.session != self._session or first.instance != self.connection.instance:
            raise LinkFailed("refused", "The service that answered is not the one of the connection file. Trying again with it.")
        self.welcome = first
        return received

    def _check_instance(self, message: object) -> None:
        if isinstance(message, Pong) and self.welcome is not None and message.instance != self.welcome.instance:
            raise LinkFailed("lost", "Another service answered in the place of the one that was connected. Trying again.")

    def _why_so_long(self) -> str:
        port = self.connection.control_port
        if self._greeted:
            sentence = f"The service on port {port} let this client in but did not answer for {WELCOME_SECONDS:g} s."
            return f"{sentence} Look into its log, and start it again."
        return f"What listens on port {port} does not answer like a Galatea service. {RESTART}"


class _Line:
    """A DEALER socket and its monitor."""

    def __init__(self, context: zmq.Context[Any], port: int, session: str, token: str, *, bulk: bool) -> None:
        self.ready = False
        self._port, self._kind = port, "bulk" if bulk else "control"
        self._reached = False
        self._outbox: deque[list[Frame]] = deque()
        self._full_since: float | None = None
        self.socket = context.socket(zmq.DEALER)
        apply_limits(self.socket, bulk=bulk)
        self.socket.reconnect_ivl = -1  # a link that broke is replaced, not repaired
        self.socket.plain_username = session.encode()
        self.socket.plain_password = token.encode()
        self.monitor = self.socket.get_monitor_socket()
        self.monitor.linger = 0
        self.socket.connect(f"tcp://{HOST}:{port}")

    def events(self) -> int:
        return zmq.POLLIN | zmq.POLLOUT if self._outbox else zmq.POLLIN

    def send(self, frames: list[Frame]) -> None:
        self._outbox.append(frames)
        self.flush()

    def flush(self) -> None:
        """Send what fits ZeroMQ's queue now. Raises LinkFailed if nothing has for too long."""
        while self._outbox:
            try:
                # Copied on purpose: sending without copies makes pyzmq start a thread that never ends.
                self.socket.send_multipart(self._outbox[0], zmq.NOBLOCK)
            except zmq.Again:
                now = time.monotonic()
                self._full_since = self._full_since or now
                if now - self._full_since > LOST_SECONDS:
                    raise LinkFailed("lost", f"The service has read nothing for {LOST_SECONDS:g} s. {TRYING}") from None
                return
            self._outbox.popleft()
            self._full_since = None

    def receive(self, kinds: Any, most: int) -> list[Received[Any]]:
        """Raises WireError for what is no message of `kinds`."""
        received = []
        while len(received) < most:
            try:
                frames = [self.socket.recv(zmq.NOBLOCK, copy=False)]
            except zmq.Again:
                break
            while frames[-1].more:
                if len(frames) > MAX_BUFFERS:
                    raise WireError("too_large", f"A message has more than {MAX_BUFFERS + 1} frames.")
                frames.append(self.socket.recv(zmq.NOBLOCK, copy=False))
            received.append(decode(frames, kinds))
        return received

    def watch_handshake(self, *, connected: bool) -> None:
        """Read the monitor. Raises LinkFailed when the line is gone, or never came to be."""
        while self.monitor.poll(0):
            event = recv_monitor_message(self.monitor, zmq.NOBLOCK)
            match zmq.Event(event["event"]):
                case zmq.Event.CONNECTED:
                    self._reached = True
                case zmq.Event.HANDSHAKE_SUCCEEDED:
                    self.ready = True
                case zmq.Event.HANDSHAKE_FAILED_AUTH:
                    raise LinkFailed("refused", self._wrong_token())
                case zmq.Event.HANDSHAKE_FAILED_PROTOCOL | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL:
                    raise LinkFailed("refused", self._no_galatea())
                case zmq.Event.DISCONNECTED | zmq.Event.CLOSED:
                    raise self._gone(connected)

    def close(self) -> None:
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(0)

    def _gone(self, connected: bool) -> LinkFailed:
        if connected:
            return LinkFailed("lost", "The connection to the service broke off: it has ended, or was restarted. Trying again.")
        if self.ready:
            return LinkFailed("lost", f"The service ended while its {self._kind} port was being connected. Trying again.")
        if self._reached:
            return LinkFailed("refused", self._no_galatea())
        sentence = f"No service answers on port {self._port}, where the last one was: it has ended."
        return LinkFailed("searching", f"{sentence} {START}")

    def _wrong_token(self) -> str:
        return (
            f"The service on port {self._port} refused the token of the connection file, which is another service's. "
            "End that service, delete the file and start the service again."
        )

    def _no_galatea(self) -> str:
        return f"What listens on port {self._port} is not a Galatea service. {RESTART}"


UPDATE = "Update Galatea, so that both sides are of one version, and start the service again."
