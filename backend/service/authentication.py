"""Who may connect: the ZAP handler that answers ZeroMQ's question during each handshake (RFC 27).

The user name of PLAIN is a session id and becomes the connection's User-Id, which every message then carries: a session
is the same on all sockets. The password is the token of the socket's domain. Nothing of a peer that fails here is read.
"""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass

import zmq

ZAP_ADDRESS = "inproc://zeromq.zap.01"

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
            log.warning("a connection without user name and token was refused")
            return b""
        domain, user, password = self._domains.get(frames[2]), frames[6], frames[7]
        if domain is None or not hmac.compare_digest(password, domain.token.encode()):
            log.warning("a connection with a wrong token was refused")
            return b""
        if not _SESSION.match(user) or not domain.admits(user.decode()):
            log.warning("a connection with an unusable session id was refused")
            return b""
        return user


def require(socket: zmq.Socket, domain: str) -> None:
    """Have peers of `socket` authenticate in this domain; before bind."""
    socket.plain_server = True
    socket.zap_domain = domain.encode()
