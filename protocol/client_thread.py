"""The client's thread: it alone touches sockets, finds the service, and finds it again."""

from __future__ import annotations

import logging
import socket
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from .client_conversation import Conversation
from .client_events import ConnectionChanged, ConnectionState
from .client_inbox import Inbox
from .client_link import START, Link, LinkFailed
from .codec import WireError
from .location import CONNECTION_FILE, Connection, LocationError, other_version, read_connection
from .messages import PROTOCOL, Pong, Welcome

LOOK_SECONDS = 0.5
"""How often the connection file is looked at: one stat."""
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.25, 4.0
REST_SECONDS, LONGEST_REST_SECONDS = 0.005, 0.1
BYTES_PER_SECOND = 100e6
"""After a turn in which something came, the thread rests: whatever a service sends, most of the interpreter's and the
memory's time is others', above all Blender's main thread's. What comes faster waits in ZeroMQ until the service has to stop."""

log = logging.getLogger(__name__)


class ClientThread:
    """`run` is the thread; other threads only append to `commands`, set `closing`, and write a byte to `wake`'s other end."""

    def __init__(
        self, folder: Path, name: str, session: str, conversation: Conversation, inbox: Inbox, wake: socket.socket
    ) -> None:
        self.commands: deque[Callable[[], None]] = deque()
        self.closing = False
        self._folder, self._name, self._session = folder, name, session
        self._conversation, self._inbox, self._wake = conversation, inbox, wake
        self._context: zmq.Context[Any] | None = None
        self._link: Link | None = None
        self._said: tuple[ConnectionState, str] | None = None
        self._tried: Connection | None = None
        self._file_mark: tuple[int, int, int] | None = None
        self._next_look = self._next_try = 0.0
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._rest = 0.0

    def run(self) -> None:
        self._context = zmq.Context()
        self._context.linger = 0
        try:
            while not self.closing:
                try:
                    self._turn()
                except LinkFailed as failure:
                    self._drop_link(failure.state, failure.message)
                except Exception:
                    log.exception("a defect in the client of the Galatea service")
                    self._drop_link("lost", "The client failed over a defect of its own, which the log shows. Trying again.")
                    time.sleep(0.1)
        finally:
            if self._link is not None:
                self._link.close()
            self._context.destroy(linger=0)
            self._wake.close()

    def _turn(self) -> None:
        self._wait()
        while self.commands and not self.closing:
            self.commands.popleft()()
        if self.closing:
            return
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            self._look_at_file()
        if self._link is None and now >= self._next_try:
            self._try_to_connect()
        if self._link is not None:
            self._read(self._link)
            self._send(self._link, now)
        self._conversation.give_up_overdue(now)

    def _wait(self) -> None:
        """Until something comes, a command is given or something is due."""
        if self._rest:
            time.sleep(self._rest)
        poller = zmq.Poller()
        poller.register(self._wake, zmq.POLLIN)
        for one, events in self._link.sockets() if self._link is not None else ():
            poller.register(one, events)
        wake_at = self._link.next_deadline() if self._link is not None else self._next_try
        wake_at = min(wake_at, self._next_look, self._conversation.next_due())
        poller.poll(max(0, round((wake_at - time.monotonic()) * 1000)))
        try:
            self._wake.recv(4096)
        except BlockingIOError:
            pass

    def _read(self, link: Link) -> None:
        received = link.read()
        size = sum(buffer.nbytes for one in received for buffer in one.buffers)
        self._rest = min(LONGEST_REST_SECONDS, REST_SECONDS + size / BYTES_PER_SECOND) if received else 0.0
        for one in received:
            if isinstance(one.message, Welcome):
                self._conversation.connected(one.message.instance)
                self._say("connected", "Connected to the service.", one.message)
            elif isinstance(one.message, Pong):
                self._retry_seconds = FIRST_RETRY_SECONDS  # a link that is worth having
            try:
                self._conversation.take(one)
            except WireError as error:
                raise LinkFailed("lost", f"The service sent a broken mesh. {error.message} Trying again.") from None

    def _send(self, link: Link, now: float) -> None:
        link.keep_alive(self._conversation.next_number)
        if link.welcome is None:
            return
        for outgoing in self._conversation.due(now):
            try:
                link.send(outgoing.message, outgoing.buffers, bulk=outgoing.bulk)
            except WireError as error:
                self._conversation.unsendable(outgoing.message, error)

    # ---- finding and losing the service

    def _look_at_file(self) -> None:
        """Try at once when the connection file has changed, and leave a service that is no longer the folder's."""
        mark = _mark_of(self._folder / CONNECTION_FILE)
        if mark == self._file_mark:
            return
        self._file_mark = mark
        self._next_try, self._retry_seconds = 0.0, FIRST_RETRY_SECONDS
        if self._link is not None and mark is not None:
            try:
                if read_connection(self._folder) == self._link.connection:
                    return
            except LocationError as error:
                log.info("the connection file changed while connected: %s", error)
                return
            raise LinkFailed("lost", "The service was restarted. Connecting to the new one.")

    def _try_to_connect(self) -> None:
        self._next_try = time.monotonic() + self._retry_seconds
        self._retry_seconds = min(self._retry_seconds * 2, LAST_RETRY_SECONDS)
        try:
            connection = read_connection(self._folder)
        except LocationError as error:
            self._say("refused", str(error))
            return
        if connection is None:
            self._say("searching", f"No service is running. {START}")
            return
        if connection.protocol != PROTOCOL:
            self._say("refused", other_version(connection.protocol))
            return
        if connection != self._tried:
            self._tried = connection
            self._say("connecting", "Connecting to the service.")
        self._link = Link(self._context, connection, self._session, self._name)

    def _drop_link(self, state: ConnectionState, message: str) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
            self._rest = 0.0
            self._conversation.link_is_gone()
        self._next_try = time.monotonic() + self._retry_seconds
        self._say(state, message)

    def _say(self, state: ConnectionState, message: str, welcome: Welcome | None = None) -> None:
        if (state, message) != self._said:
            self._said = state, message
            self._inbox.put(ConnectionChanged(state, message, welcome))


def _mark_of(path: Path) -> tuple[int, int, int] | None:
    """What changes when the file does; None if it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
