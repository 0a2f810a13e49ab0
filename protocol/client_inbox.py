"""What waits for the consumer: in order, and bounded however long nobody looks."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Hashable

from .client_events import (
    ClientEvent,
    ConnectionChanged,
    Happened,
    ProgressMade,
    Replied,
    ResultArrived,
    SnapshotArrived,
    Submitted,
    WatchRefused,
)

MAX_HAPPENINGS = 1000


class Inbox:
    """Filled by the client's thread, emptied by the consumer's.

    An event of which only the newest counts replaces the one that waits, and goes to the end. Happenings are never
    replaced: beyond `MAX_HAPPENINGS` they are turned away, and the client asks the service for them again later.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, ClientEvent] = {}
        self._numbers = itertools.count()
        self._happenings = 0
        self.turned_away = False
        """Happenings were, and have not been asked for again."""

    def put(self, event: ClientEvent) -> bool:
        """Whether there was room."""
        with self._lock:
            if isinstance(event, Happened):
                if self._happenings >= MAX_HAPPENINGS:
                    self.turned_away = True
                    return False
                self._happenings += 1
            key = _key(event)
            if key is None:
                key = next(self._numbers)
            self._waiting.pop(key, None)
            self._waiting[key] = event
            return True

    def take(self, limit: int) -> list[ClientEvent]:
        """The first `limit` events that wait."""
        with self._lock:
            keys = list(itertools.islice(self._waiting, max(limit, 0)))
            events = [self._waiting.pop(key) for key in keys]
            self._happenings -= sum(isinstance(event, Happened) for event in events)
            return events

    def has_room_again(self) -> bool:
        """True once after happenings were turned away, as soon as half of those that waited are gone."""
        with self._lock:
            if not self.turned_away or self._happenings > MAX_HAPPENINGS // 2:
                return False
            self.turned_away = False
            return True

    def forget(self, job: str, *kinds: type[ClientEvent]) -> None:
        """Drop events of these kinds that wait and are about watching `job`."""
        with self._lock:
            for key in [key for key, event in self._waiting.items() if isinstance(event, kinds) and _watched_job(event) == job]:
                self._happenings -= isinstance(self._waiting.pop(key), Happened)


def _key(event: ClientEvent) -> Hashable | None:
    """Equal keys: the newer replaces the older. None: kept for itself."""
    match event:
        case ConnectionChanged():
            return ConnectionChanged
        case ProgressMade(progress):
            return ProgressMade, progress.job
        case SnapshotArrived() | ResultArrived() | Submitted() | WatchRefused():
            return type(event), event.job
        case Replied(None):
            return Replied
        case _:
            return None


def _watched_job(event: ClientEvent) -> str | None:
    match event:
        case Happened(happened):
            return happened.job
        case ProgressMade(progress):
            return progress.job
        case SnapshotArrived() | WatchRefused():
            return event.job
        case _:
            return None
