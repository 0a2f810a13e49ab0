"""The worker's end of its socket to the service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import zmq

from backend.service.worker_messages import ToWorker, WorkerConfiguration
from protocol.codec import Frame, apply_limits, decode, encode

HIGH_WATER = 1000


class ServiceLink:
    """Used by the worker's main thread alone."""

    def __init__(self, configuration: WorkerConfiguration) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        apply_limits(self._socket, bulk=True)
        self._socket.sndhwm = self._socket.rcvhwm = HIGH_WATER
        self._socket.plain_username = configuration.worker.encode()
        self._socket.plain_password = configuration.token.encode()
        self._socket.connect(f"tcp://127.0.0.1:{configuration.port}")

    def send(self, message: msgspec.Struct) -> None:
        """Waits until the message is on its way: it must arrive."""
        self._socket.send_multipart(encode(message))

    def offer(self, message: msgspec.Struct, buffers: Sequence[Frame] = ()) -> bool:
        """Never waits; False if the service does not keep up. The buffers must not be written to any more."""
        try:
            self._socket.send_multipart(encode(message, buffers), zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return False
        return True

    def waiting(self) -> Iterator[msgspec.Struct]:
        """The messages that have come, one by one, without waiting."""
        while self._socket.poll(0):
            yield self.wait()

    def wait(self) -> msgspec.Struct:
        """The next message. Raises WireError if it is none, which would be a defect of the service."""
        return decode(self._socket.recv_multipart(), ToWorker).message

    def close(self) -> None:
        """What has been sent still gets a second to leave."""
        self._socket.close(linger=1000)
        self._context.term()
