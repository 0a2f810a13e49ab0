"""Commands that await their answer, and submissions that await theirs: each gets exactly one, whatever the connection does.

A request that a broken link left unanswered is sent again over the next one: steering, pausing, resuming, cancelling,
listing and fetching may be done twice without harm. Only Shutdown is never sent again, since the service that comes
after it is one that somebody started. Where no answer comes within `PATIENCE_SECONDS`, the client itself refuses; only
submissions and results are waited for as long as it takes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from .messages import Cancel, Fetch, JobRequest, ListJobs, Pause, Refused, Resume, Shutdown, Steer
from .submission_codec import Attachments

PATIENCE_SECONDS = 60.0

Command = Steer | Pause | Resume | Cancel | ListJobs | Shutdown | Fetch


@dataclass
class Pending:
    command: Command
    deadline: float
    sent: bool = False


@dataclass
class Submission:
    request: int
    job: str
    job_request: JobRequest
    attached: Attachments
    sent: bool = False
    """On the link that there is now."""
    ever_sent: bool = False


class Requests:
    """All that is unanswered, oldest first."""

    def __init__(self) -> None:
        self._pending: dict[int, Pending] = {}
        self._submissions: dict[str, Submission] = {}

    def add(self, command: Command, now: float) -> None:
        patience = math.inf if isinstance(command, Fetch) else PATIENCE_SECONDS
        self._pending[command.request] = Pending(command, now + patience)

    def submit(self, submission: Submission) -> None:
        self._submissions[submission.job] = submission

    def take(self, request: int) -> Command | None:
        """The command that `request` numbers, which is answered by this; None if there is none, or no longer."""
        pending = self._pending.pop(request, None)
        return pending.command if pending is not None else None

    def submission_of(self, job: str) -> Submission | None:
        return self._submissions.get(job)

    def take_submission(self, request: int) -> Submission | None:
        for submission in self._submissions.values():
            if submission.request == request:
                return self._submissions.pop(submission.job)
        return None

    def to_submit(self) -> Iterator[Submission]:
        """Submissions to send now; marked as sent."""
        for submission in list(self._submissions.values()):
            if not submission.sent:
                submission.sent = submission.ever_sent = True
                yield submission

    def to_send(self) -> Iterator[Command]:
        """Commands to send now, marked as sent. What is about a job waits until the service has that job."""
        for pending in list(self._pending.values()):
            if not pending.sent and getattr(pending.command, "job", None) not in self._submissions:
                pending.sent = True
                yield pending.command

    def overdue(self, now: float) -> list[tuple[Command, Refused]]:
        """Commands whose answer is awaited no longer, with the answer they get instead."""
        late = [pending.command for pending in self._pending.values() if now >= pending.deadline]
        sentence = f"The service did not answer for {PATIENCE_SECONDS:g} s. Try again once it is connected."
        return [self._give_up(command, sentence) for command in late]

    def link_is_gone(self) -> list[tuple[Command, Refused]]:
        """All have to be sent again; returns those that must not be, with their answer."""
        for waiting in (*self._pending.values(), *self._submissions.values()):
            waiting.sent = False
        ended = [pending.command for pending in self._pending.values() if isinstance(pending.command, Shutdown)]
        sentence = "The connection broke off before the service said that it has shut down."
        return [self._give_up(command, sentence) for command in ended]

    def next_deadline(self) -> float:
        return min((pending.deadline for pending in self._pending.values()), default=math.inf)

    def _give_up(self, command: Command, sentence: str) -> tuple[Command, Refused]:
        del self._pending[command.request]
        return command, Refused(request=command.request, code="conflict", message=sentence)
