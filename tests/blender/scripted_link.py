"""The two ends of a session under test: a client that tells what the test has it tell, and a scene that is a notebook.

Both keep to the signatures of the real ones (held by test_session.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tests.blender.extension_parts import part

m = part("protocol.messages")
events = part("protocol.client_events")
Mesh = part("protocol.mesh_codec").Mesh
NoPreview = part("session").NoPreview

JOB, OTHER = "a" * 32, "b" * 32


class ScriptedClient:
    """Takes the commands down in `said`; `poll` gives out what `tell` was given."""

    def __init__(self, folder: Path, name: str, prepare=None) -> None:
        self.folder, self.prepare = folder, prepare
        self.said: list[tuple] = []
        self.waiting: list = []
        self.closed = False
        self.attached: tuple = ()
        """What came with the last submission: mesh, pictures, masks."""

    def tell(self, *told) -> None:
        self.waiting += told

    def happen(self, *happenings, job: str = JOB, first: int = 1) -> None:
        for number, happening in enumerate(happenings, first):
            self.tell(events.Happened(m.JobEvent(job=job, number=number, time=0.0, happening=happening)))

    def snapshot(self, step: int, vertices: int = 4, job: str = JOB, faces_are_new: bool = False) -> None:
        mesh = Mesh(np.zeros((vertices, 3), np.float32), np.array([[0, 1, 2]], np.int32))
        arrived = events.SnapshotArrived(job, step, step, 1, mesh, faces_are_new)
        prepared = self.prepare(job, arrived) if self.prepare else None
        self.tell(events.SnapshotArrived(job, step, step, 1, mesh, faces_are_new, prepared))

    def result(self, mesh, job: str = JOB) -> None:
        arrived = events.ResultArrived(job, mesh)
        prepared = self.prepare(job, arrived) if self.prepare else None
        self.tell(events.ResultArrived(job, mesh, None, prepared))

    def poll(self, limit: int = 64) -> list:
        taken, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return taken

    def start(self) -> None:
        self.said.append(("start",))

    def close(self) -> None:
        self.closed = True

    def submit(self, request, mesh=None, job=None, pictures=(), masks=()) -> str:
        self.said.append(("submit", job, request))
        self.attached = (mesh, tuple(pictures), tuple(masks))
        return job

    def watch(self, job: str, after: int = 0) -> None:
        self.said.append(("watch", job))

    def unwatch(self, job: str) -> None:
        self.said.append(("unwatch", job))

    def follow(self, job: str) -> None:
        self.said.append(("follow", job))

    def unfollow(self, job: str) -> None:
        self.said.append(("unfollow", job))

    def applied(self, job: str) -> None:
        self.said.append(("applied", job))

    def acknowledge(self, job: str, number: int) -> None:
        self.said.append(("acknowledge", job, number))

    def steer(self, job: str, *, prompt=None, negative_prompt=None, strength=None) -> int:
        return self._ask("steer", job, prompt, negative_prompt, strength)

    def pause(self, job: str) -> int:
        return self._ask("pause", job)

    def resume(self, job: str) -> int:
        return self._ask("resume", job)

    def cancel(self, job: str) -> int:
        return self._ask("cancel", job)

    def list_jobs(self, limit: int = 20) -> int:
        return self._ask("list_jobs")

    def shutdown(self) -> int:
        return self._ask("shutdown")

    def _ask(self, *words) -> int:
        self.said.append(words)
        return len(self.said)

    def asked(self, *verbs: str) -> list[tuple]:
        return [words for words in self.said if words[0] in verbs]


class NotebookScene:
    """`previews` are the jobs that have one; `applied` lists what was shown, `trouble` is raised instead."""

    def __init__(self, folder: Path, previews: Iterable[str] = ()) -> None:
        self.where = folder
        self.previews = set(previews)
        self.applied: list[tuple[str, object]] = []
        self.refreshed = 0
        self.trouble: Exception | None = None

    def prepare(self, placement, arrived) -> object:
        return (placement, getattr(arrived, "step", "result"))

    def folder(self) -> Path:
        return self.where

    def placements(self) -> dict[str, object]:
        return {job: f"placement of {job[0]}" for job in sorted(self.previews)}

    def placement(self, job: str) -> object | None:
        return self.placements().get(job)

    def apply(self, job: str, prepared: object) -> None:
        if self.trouble is not None:
            raise self.trouble
        if job not in self.previews:
            raise NoPreview(job)
        self.applied.append((job, prepared))

    def remove_preview(self, job: str) -> None:
        self.previews.remove(job)

    def refresh(self, jobs: list) -> None:
        self.refreshed += 1
