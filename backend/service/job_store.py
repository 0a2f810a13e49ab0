"""What the service remembers of its jobs: SQLite, synced before anybody is told.

A job is one row, its events are rows of their own, numbered from 1 without gaps. `save` writes both in one transaction.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from backend.errors import InputError
from protocol.messages import (
    EventNumber,
    Happening,
    HexId,
    JobEvent,
    JobRequest,
    JobState,
    JobSummary,
    Words,
)
from protocol.settings import Fraction, JobSettings

FILE_NAME = "jobs.sqlite"
VERSION = 1
KEEP_DAYS = 30
"""Jobs that have ended and whose end a client has acknowledged are removed after so many days."""

_TABLES = """
CREATE TABLE jobs (
    job TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    place INTEGER NOT NULL,
    created REAL NOT NULL,
    changed REAL NOT NULL,
    acknowledged INTEGER NOT NULL DEFAULT 0,
    record BLOB NOT NULL
);
CREATE INDEX jobs_by_state ON jobs (state, place);
CREATE INDEX jobs_by_age ON jobs (created);
CREATE TABLE events (
    job TEXT NOT NULL REFERENCES jobs ON DELETE CASCADE,
    number INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;
"""


log = logging.getLogger(__name__)


class StoreError(Exception):
    """The database cannot be written now, mostly because the disk is full; nothing of the change is in it."""


class JobRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that is known of a job; a change is another record."""

    job: HexId
    state: JobState
    request: JobRequest
    settings: JobSettings
    digest: str | None = msgspec.field(name="mesh_digest")
    """Of all that was attached, to know the same submission again. (Stored under the name that it had for meshes alone.)"""
    prompt: Words
    negative_prompt: Words
    strength: Fraction
    created: Annotated[float, Meta(ge=0)]
    place: int = 0
    """Queued jobs are taken up in this order."""
    step: int = 0
    total: int = 0
    last_event: EventNumber = 0
    checkpoint: int = 0
    """Step of the newest checkpoint that the worker told of; 0 if it told of none."""
    crashed_at: int | None = None
    """What `checkpoint` was when a worker last died over the job."""

    def summary(self) -> JobSummary:
        return JobSummary(
            self.job, self.state, self.request.command, self.prompt, self.step, self.total, self.created, self.last_event
        )


class JobStore:
    """Used by one thread. Methods that write raise StoreError."""

    def __init__(self, folder: Path) -> None:
        """Opens or makes the database in `folder`. Raises InputError if it cannot be used."""
        self.path = folder / FILE_NAME
        self._path_is_private()
        try:
            self._database = sqlite3.connect(self.path, isolation_level=None)
            for setting in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                self._database.execute(f"PRAGMA {setting}")
            self._check_version()
            self._set_unreadable_aside()
        except sqlite3.Error as error:
            raise InputError(
                f"The job database {self.path} cannot be used ({error}); move it away to begin with an empty one, or choose "
                "another folder with --folder."
            ) from error

    def close(self) -> None:
        self._database.close()

    # ---- reading

    def get(self, job: HexId) -> JobRecord | None:
        return self._one("SELECT record FROM jobs WHERE job = ? AND state != 'unreadable'", job)

    def knows(self, job: str) -> bool:
        """Also of a job that cannot be read."""
        return self._database.execute("SELECT 1 FROM jobs WHERE job = ?", (job,)).fetchone() is not None

    def next_queued(self) -> JobRecord | None:
        return self._one("SELECT record FROM jobs WHERE state = 'queued' ORDER BY place LIMIT 1")

    def queued(self) -> list[HexId]:
        """In the order in which they will be taken up."""
        return [job for job, in self._database.execute("SELECT job FROM jobs WHERE state = 'queued' ORDER BY place")]

    def in_state(self, state: JobState) -> list[JobRecord]:
        return self._many("SELECT record FROM jobs WHERE state = ? ORDER BY place", state)

    def newest(self, limit: int) -> list[JobRecord]:
        return self._many("SELECT record FROM jobs WHERE state != 'unreadable' ORDER BY created DESC, rowid DESC LIMIT ?", limit)

    def events_after(self, job: HexId, number: int, limit: int = 1000) -> list[JobEvent]:
        query = "SELECT body FROM events WHERE job = ? AND number > ? ORDER BY number LIMIT ?"
        return [msgspec.json.decode(body, type=JobEvent) for body, in self._database.execute(query, (job, number, limit))]

    # ---- writing

    def save(self, record: JobRecord, *happenings: Happening) -> tuple[JobRecord, list[JobEvent]]:
        """Write the record and what has happened to it; both are on disk when this returns.

        Returns the record with its last event's number, and the events.
        """
        now = time.time()
        numbers = range(record.last_event + 1, record.last_event + 1 + len(happenings))
        events = [JobEvent(record.job, number, now, happening) for number, happening in zip(numbers, happenings)]
        record = msgspec.structs.replace(record, last_event=record.last_event + len(events))
        with self._transaction():
            self._database.execute(
                "INSERT INTO jobs (job, state, place, created, changed, record) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (job) "
                "DO UPDATE SET state = excluded.state, place = excluded.place, changed = excluded.changed, record = excluded.record",
                (record.job, record.state, record.place, record.created, now, msgspec.json.encode(record)),
            )
            self._database.executemany(
                "INSERT INTO events (job, number, body) VALUES (?, ?, ?)",
                [(event.job, event.number, msgspec.json.encode(event)) for event in events],
            )
        return record, events

    def last_place(self) -> int:
        """The place of the last queued job, 0 if none is queued."""
        return self._database.execute("SELECT coalesce(max(place), 0) FROM jobs WHERE state = 'queued'").fetchone()[0]

    def first_place(self) -> int:
        """The place of the first queued job, 0 if none is queued."""
        return self._database.execute("SELECT coalesce(min(place), 0) FROM jobs WHERE state = 'queued'").fetchone()[0]

    def acknowledge(self, job: HexId, number: int) -> None:
        query = "SELECT 1 FROM jobs WHERE job = ? AND acknowledged < ?"
        if self._database.execute(query, (job, number)).fetchone() is None:
            return  # nothing new: not worth a sync
        with self._transaction():
            self._database.execute("UPDATE jobs SET acknowledged = ? WHERE job = ?", (number, job))

    def remove_old(self, now: float) -> list[HexId]:
        """Forget the jobs that ended more than KEEP_DAYS ago and whose last event a client has acknowledged."""
        old = "state IN ('finished', 'failed', 'cancelled') AND changed < ?"
        waiting = "acknowledged < (SELECT coalesce(max(number), 0) FROM events WHERE events.job = jobs.job)"
        with self._transaction():
            query = f"DELETE FROM jobs WHERE {old} AND NOT {waiting} RETURNING job"
            return [job for job, in self._database.execute(query, (now - KEEP_DAYS * 86400,)).fetchall()]

    # ----

    def _path_is_private(self) -> None:
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise InputError(f"{self.path} cannot be written: {error.strerror}. Choose another folder with --folder.") from error

    def _check_version(self) -> None:
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if version == VERSION:
            return
        if version != 0:
            raise InputError(
                f"The job database {self.path} was made by another version of Galatea (format {version}, this one reads "
                f"{VERSION}); use that version, or move the file away to begin with an empty one."
            )
        self._database.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")

    def _set_unreadable_aside(self) -> None:
        """Jobs whose settings another version of Galatea wrote differently must not keep the others from going on."""
        rows = self._database.execute("SELECT job, record FROM jobs WHERE state != 'unreadable'").fetchall()
        for job, record in rows:
            try:
                msgspec.json.decode(record, type=JobRecord)
            except msgspec.DecodeError as error:
                log.warning("job %s was written by another version of Galatea and is left out: %s", job[:8], error)
                self._database.execute("UPDATE jobs SET state = 'unreadable' WHERE job = ?", (job,))

    def _one(self, query: str, *values: object) -> JobRecord | None:
        return next(iter(self._many(query, *values)), None)

    def _many(self, query: str, *values: object) -> list[JobRecord]:
        return [msgspec.json.decode(record, type=JobRecord) for record, in self._database.execute(query, values)]

    def _transaction(self) -> _Transaction:
        return _Transaction(self._database)


class _Transaction:
    """All of what is written within, or nothing."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._run("BEGIN IMMEDIATE")

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            try:
                self._run("COMMIT")
                return
            except StoreError:
                self._undo()
                raise
        self._undo()
        if isinstance(error, sqlite3.Error):
            raise StoreError(str(error)) from error

    def _run(self, statement: str) -> None:
        try:
            self._database.execute(statement)
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

    def _undo(self) -> None:
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")
