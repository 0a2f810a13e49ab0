"""Who may connect: the ZAP handler that answers ZeroMQ's question during each handshake (RFC 27).

The user name of PLAIN is a session id and becomes the connection's User-Id, which every message then carries: a session
is the same on all sockets. The password is the token of the socket's domain. Nothing of a peer that fails here is read.
"""

from __future__ import annotations

import hmac
import logging
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import zmq

ZAP_ADDRESS = "inproc://zeromq.zap.01"

SECONDS_BETWEEN_WARNINGS = 10.0

_SESSION = re.compile(rb"[0-9a-f]{32}\Z")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Domain:
    """The peers of one kind of socket: what they must know, and which session ids are theirs to take."""

    token: str
    admits: Callable[[str], bool] = lambda session: True


class Authentication:
    """Answers handshakes. `socket` is to be polled by the owner of the context, who calls `answer`."""

    def __init__(self, context: zmq.Context, domains: dict[str, Domain]) -> None:
        self._domains = {name.encode(): domain for name, domain in domains.items()}
        self._say_at = -math.inf
        self.socket = context.socket(zmq.REP)
        self.socket.linger = 0
        self.socket.bind(ZAP_ADDRESS)

    def answer(self) -> None:
        """Answer one handshake that waits."""
        frames = self.socket.recv_multipart()
        number = frames[1] if len(frames) > 1 else b""
        session = self._session(frames)
        status, text = (b"200", b"OK") if session else (b"400", b"Wrong token or session id")
        self.socket.send_multipart([b"1.0", number, status, text, session, b""])

    def _session(self, frames: list[bytes]) -> bytes:
        """The session id that the handshake proves; empty if it proves none."""
        if len(frames) != 8 or frames[0] != b"1.0" or frames[5] != b"PLAIN":
            return self._refuse("without user name and token")
        domain, user, password = self._domains.get(frames[2]), frames[6], frames[7]
        if domain is None or not hmac.compare_digest(password, domain.token.encode()):
            return self._refuse("with a wrong token")
        if not _SESSION.match(user) or not domain.admits(user.decode()):
            return self._refuse("with an unusable session id")
        return user

    def _refuse(self, what: str) -> bytes:
        """Said in the log, but not so often that somebody who goes on trying could fill it."""
        if time.monotonic() > self._say_at:
            self._say_at = time.monotonic() + SECONDS_BETWEEN_WARNINGS
            log.warning("a connection %s was refused", what)
        return b""


def require(socket: zmq.Socket, domain: str) -> None:
    """Have peers of `socket` authenticate in this domain; before bind."""
    socket.plain_server = True
    socket.zap_domain = domain.encode()
