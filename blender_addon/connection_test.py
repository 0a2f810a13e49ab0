"""The connection test: what was tried, what was found, what to do. No bpy; takes at most a few seconds."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from .protocol.client import Client
from .protocol.client_events import ConnectionChanged
from .protocol.location import LocationError, read_connection
from .service_process import ServiceState

PORT_PATIENCE = 1.0
ANSWER_PATIENCE = 3.0


def test_connection(folder: Path, state: ServiceState, name: str) -> tuple[bool, list[str]]:
    """Whether the service can be talked to, and sentences for a person that say how that was found out."""
    try:
        connection = read_connection(folder)
    except LocationError as error:
        return False, [str(error)]
    if connection is None:
        return False, [f"Looked in {folder}: no service has written there how to reach it.", advice(state)]
    lines = [f"Found a service of version {connection.service} in {folder} (process {connection.pid})."]
    for port in (connection.control_port, connection.bulk_port):
        try:
            socket.create_connection(("127.0.0.1", port), PORT_PATIENCE).close()
        except OSError as error:
            return False, [*lines, f"Nothing answers at port {port} of this machine ({error.strerror or error}).", advice(state)]
    lines.append(f"Ports {connection.control_port} and {connection.bulk_port} answer.")
    answer = ask(folder, name)
    if answer is None:
        wedged = f"The service did not answer within {ANSWER_PATIENCE:g} s: stop it, start it again, and see its log."
        return False, [*lines, wedged]
    if answer.state != "connected":
        return False, [*lines, answer.message]
    priors, devices = ", ".join(answer.welcome.priors), ", ".join(answer.welcome.devices)
    return True, [*lines, f"It works: the service answers, and has the prior {priors} on {devices}."]


def advice(state: ServiceState) -> str:
    match state.kind:
        case "starting":
            return f"It is starting ({state.text or 'one moment'}): wait until that is done."
        case "stopping":
            return "It is stopping: start it again when that is done."
        case "died":
            return f"It has ended by itself; its last words: {state.text}. Start it again, and see its log."
        case "running":
            return "Its process is there but does not answer: stop it, start it again, and see its log."
    return "Press Start."


def ask(folder: Path, name: str) -> ConnectionChanged | None:
    """How a client of its own fares; None if nothing was decided in time."""
    client = Client(folder, f"{name}, connection test")
    client.start()
    try:
        deadline = time.monotonic() + ANSWER_PATIENCE
        while time.monotonic() < deadline:
            for event in client.poll():
                if isinstance(event, ConnectionChanged) and event.state in ("connected", "refused"):
                    return event
            time.sleep(0.02)
        return None
    finally:
        client.close()
