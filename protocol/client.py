"""The connection to the service, as a program with a main thread of its own (Blender) wants it: nothing here waits.

Commands go to a background thread that alone touches sockets; what comes back is taken with `poll`. The client finds
the service by its folder, connects, and after any failure connects again by itself: submissions that were not answered
are sent again under the same id, watched jobs are watched again from their last event, followed jobs get new credit.
"""

from __future__ import annotations

import itertools
import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .client_conversation import Conversation, Prepare
from .client_events import ClientEvent
from .client_inbox import Inbox
from .client_requests import Command
from .client_thread import ClientThread
from .mesh_codec import Mesh
from .messages import Cancel, Fetch, JobRequest, ListJobs, Pause, Resume, Shutdown, Steer
from .picture_codec import Picture
from .submission_codec import Attachments

CLOSE_SECONDS = 2.0


class Client:
    """One connection to the service of `folder`; every method may be called from any thread and returns at once.

    `name` is what speaks, for the service's log. `prepare(job, arrived)` is called in the client's thread for each
    snapshot and each result before it is handed out; what it returns (or raises) comes with it. What is asked for before the
    service is found is sent when it is: submissions and results wait for as long as it takes, other requests are refused
    by the client itself after a minute. After `close`, commands raise RuntimeError.
    Raises ValueError for a name that is empty or longer than 200 characters.
    """

    def __init__(self, folder: Path, name: str, prepare: Prepare | None = None) -> None:
        if not 1 <= len(name) <= 200:
            raise ValueError(f"The client's name has {len(name)} characters; expected 1 to 200.")
        numbers = itertools.count(1)
        self._next_number: Callable[[], int] = numbers.__next__
        self._inbox = Inbox()
        self._conversation = Conversation(self._inbox, self._next_number, prepare)
        self._wake, wake = socket.socketpair()
        self._wake.setblocking(False)
        wake.setblocking(False)
        self._worker = ClientThread(folder, name, secrets.token_hex(16), self._conversation, self._inbox, wake)
        self._other_end = wake
        self._thread = threading.Thread(target=self._worker.run, name="galatea-client", daemon=True)
        self._lock = threading.Lock()
        self._closed = False

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Let go of the service and of everything held here, within two seconds whatever the service does.

        Jobs go on. Only a `prepare` that does not return can keep the thread any longer; it ends as soon as that does.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._worker.closing = True
            self._ring()
        if self._thread.ident is None:
            self._other_end.close()
        else:
            self._thread.join(CLOSE_SECONDS)
        self._wake.close()

    # ---- jobs

    def submit(
        self,
        request: JobRequest,
        mesh: Mesh | None = None,
        job: str | None = None,
        pictures: Sequence[Picture] = (),
        masks: Sequence[np.ndarray] = (),
    ) -> str:
        """Send a job, with the mesh to refine if there is one; returns the id it has (drawn here unless given) at once.

        `pictures` belong to the request's references and `masks` [V] float32 to its regions, in their order. `Submitted`
        tells the outcome. The job is watched from its first event. No array must be written to until then.
        """
        job = job or secrets.token_hex(16)
        attached = Attachments(mesh, tuple(pictures), tuple(masks))
        self._command(self._conversation.submit, self._next_number(), job, request, attached)
        return job

    def watch(self, job: str, after: int = 0) -> None:
        """Hand out the job's events after number `after` in order, and its progress. Where it is watched already it begins
        again from there; events of it that wait are dropped."""
        self._command(self._conversation.watch, job, after)

    def unwatch(self, job: str) -> None:
        """Hand out nothing more of the job; it goes on."""
        self._command(self._conversation.unwatch, job)

    def follow(self, job: str) -> None:
        """Watch the job's snapshots as well, one at a time: `applied` asks for the next. Its result is fetched when it is
        finished. For a job that is followed already, the object as it is comes again."""
        self._command(self._conversation.follow, job)

    def unfollow(self, job: str) -> None:
        self._command(self._conversation.unfollow, job)

    def applied(self, job: str) -> None:
        """The last snapshot has been dealt with."""
        self._command(self._conversation.applied, job)

    def acknowledge(self, job: str, number: int) -> None:
        """The job's events up to `number` have been dealt with for good."""
        self._command(self._conversation.acknowledge, job, number)

    # ---- requests: each returns its number, and is answered by one event

    def steer(
        self, job: str, *, prompt: str | None = None, negative_prompt: str | None = None, strength: float | None = None
    ) -> int:
        """Answered by `Replied`, like pause, resume, cancel and shutdown."""
        request = self._next_number()
        return self._ask(Steer(request=request, job=job, prompt=prompt, negative_prompt=negative_prompt, strength=strength))

    def pause(self, job: str) -> int:
        return self._ask(Pause(request=self._next_number(), job=job))

    def resume(self, job: str) -> int:
        return self._ask(Resume(request=self._next_number(), job=job))

    def cancel(self, job: str) -> int:
        """A job that was never sent is given up here, with a refused `Submitted`."""
        return self._ask(Cancel(request=self._next_number(), job=job))

    def list_jobs(self, limit: int = 20) -> int:
        """Answered by `JobsListed`, or `Replied` if refused."""
        return self._ask(ListJobs(request=self._next_number(), limit=limit))

    def shutdown(self) -> int:
        return self._ask(Shutdown(request=self._next_number()))

    def fetch(self, job: str) -> int:
        """Ask for a finished job's result, answered by `ResultArrived`. A followed job's comes without asking."""
        return self._ask(Fetch(request=self._next_number(), job=job))

    # ---- what came

    def poll(self, limit: int = 64) -> list[ClientEvent]:
        """Up to `limit` events, oldest first; never waits."""
        events = self._inbox.take(limit)
        if events and self._inbox.turned_away:
            self._ring()
        return events

    def _ask(self, command: Command) -> int:
        self._command(self._conversation.command, command)
        return command.request

    def _command(self, function: Callable[..., None], *arguments: Any) -> None:
        with self._lock:
            if self._closed:
                raise RuntimeError("This client is closed; make another one.")
            self._worker.commands.append(lambda: function(*arguments))
            self._ring()

    def _ring(self) -> None:
        try:
            self._wake.send(b".")
        except OSError:
            pass  # it is awake, with more rings to come, or gone
