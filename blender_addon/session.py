"""The link between this Blender and the service: the one client, the jobs that are known here, what the panel must tell.

No bpy: the scene is reached through `Scene`, which `scene.py` fulfills. Everything here runs on Blender's main thread,
but for `prepare`, which the client calls in its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from .live_job import Frame, LiveJob
from .protocol import messages as m
from .protocol.client import Client
from .protocol.client_events import (
    ClientEvent,
    ConnectionChanged,
    Happened,
    JobsListed,
    ProgressMade,
    Replied,
    ResultArrived,
    SnapshotArrived,
    Submitted,
    WatchRefused,
)
from .protocol.mesh_codec import Mesh
from .protocol.picture_codec import Picture
from .service_process import ServiceProcess, ServiceState

LIST_EVERY = 10.0
LOOK_EVERY = 1.0


class NoPreview(Exception):
    """The job has no preview in the open file: it was deleted, undone, or is in another file."""


class Scene(Protocol):
    """What the pump does to Blender."""

    def prepare(self, placement: object, arrived: SnapshotArrived | ResultArrived) -> object:
        """A snapshot or a result made ready for `apply`. Called in the client's thread: touches no bpy."""

    def folder(self) -> Path:
        """The service folder that the preferences name."""

    def placements(self) -> dict[str, object]:
        """job -> placement of every preview in the open file."""

    def placement(self, job: str) -> object | None:
        """Where the job's preview lies, None if there is no preview of it in the open file."""

    def apply(self, job: str, prepared: object) -> None:
        """Put a frame into the job's preview. Raises SceneError and NoPreview."""

    def remove_preview(self, job: str) -> None:
        """Take the job's preview out of the scene and show what it stood for."""

    def refresh(self, jobs: list[LiveJob]) -> None:
        """Something that the panel shows of these jobs has changed: have it drawn again."""


class Session:
    """From enabling the extension to disabling it. Connects to nothing before `connect`."""

    def __init__(self, name: str, scene: Scene, make_client: Callable[..., Client] = Client) -> None:
        self.name, self.scene = name, scene
        self.jobs: dict[str, LiveJob] = {}
        """Newest last."""
        self.connection: ConnectionChanged | None = None
        self.taken: set[str] = set()
        """Jobs whose result was taken into the scene: a preview that undo brings back is none any more."""
        self.listed: tuple[m.JobSummary, ...] = ()
        self.service = ServiceState("stopped")
        self.problem = ""
        """What went wrong beside any job, in words."""
        self.wanted = False
        """The panel is being looked at: connect at the next tick."""
        self.changed = True
        """Something that the panel shows is different from when it was last drawn."""
        self.texts: tuple[str, ...] = ()
        """The ages as they were last drawn."""
        self.test_report: tuple[str, ...] = ()
        """What the last connection test found."""
        self.solid_before: dict[tuple[str, int], str] = {}
        """How the 3D views colored objects before vertex colors were shown."""
        self.solid_offered = False
        self.process: ServiceProcess | None = None
        self.client: Client | None = None
        self._make_client = make_client
        self._placements: dict[str, object] = {}
        self._asked: dict[int | None, tuple[str, str]] = {}
        """Request -> the job that it was about ("" for the service itself), and what to say if it is refused."""
        self._next_list = self._next_look = 0.0

    # ---- connection

    def connect(self, folder: Path) -> Client:
        """The client for the service in `folder`; one for another folder is closed."""
        if self.client is not None and self.process is not None and self.process.folder == folder:
            return self.client
        self.disconnect()
        self.process = ServiceProcess(folder)
        self.client = self._make_client(folder, self.name, self._prepare)
        self.client.start()
        for live in self.jobs.values():
            self._attend(live)
        self.take_up_strays()
        self._next_look = 0.0
        return self.client

    def disconnect(self) -> None:
        """Close the client; the service and its jobs go on."""
        if self.client is not None:
            self.client.close()
        self.client = self.connection = None
        self.listed, self._asked = (), {}
        self.changed = True

    @property
    def connected(self) -> bool:
        return self.connection is not None and self.connection.state == "connected"

    @property
    def welcome(self) -> m.Welcome | None:
        return self.connection.welcome if self.connection else None

    # ---- jobs

    @staticmethod
    def new_job_id() -> str:
        return secrets.token_hex(16)

    def submit(
        self,
        job: str,
        request: m.JobRequest,
        mesh: Mesh | None,
        placement: object,
        pictures: Sequence[Picture] = (),
        masks: Sequence[np.ndarray] = (),
    ) -> LiveJob:
        """Send a new job whose preview is in the scene. Raises WireError for what cannot be sent."""
        self._placements[job] = placement
        self._client().submit(request, mesh, job, pictures, masks)
        live = LiveJob(job, request.command, request.prompt, request.negative_prompt, request.strength)
        live.total = request.steps or 0
        self.jobs[job] = live
        self._client().follow(job)
        self.changed = True
        return live

    def attach(self, job: str, placement: object, summary: m.JobSummary | None = None) -> LiveJob:
        """Take up a job that the service has and whose preview is in the scene."""
        self._placements[job] = placement
        live = self.jobs.get(job)
        if live is None:
            live = LiveJob(job, "generate", "")
            self.jobs[job] = live
            self._next_list = 0.0
            if summary:
                live.take_summary(summary)
        live.has_preview, live.obstacle, live.problem = True, "", ""
        live.show_again()
        self._attend(live)
        self.changed = True
        return live

    def forget(self, job: str) -> None:
        """The job is no longer of this Blender's concern; the service keeps it."""
        self.jobs.pop(job, None)
        self._placements.pop(job, None)
        if self.client is not None:
            self.client.unfollow(job)
            self.client.unwatch(job)
        self.changed = True

    def settle(self, previews: dict[str, object]) -> None:
        """Another file is open: go on with the jobs whose previews (job -> placement) are in it, forget the others."""
        for job in [job for job in self.jobs if job not in previews]:
            self.forget(job)
        for job, placement in previews.items():
            self.attach(job, placement)

    def take_up_strays(self) -> None:
        """Previews in the open file whose jobs are not known here: the extension was off, or undo brought them back.

        Undoing Accept leads to the step in which there was a preview; without it, the scene is as before the job.
        """
        for job, placement in self.scene.placements().items():
            if job in self.taken:
                self.scene.remove_preview(job)
            elif job not in self.jobs:
                self.attach(job, placement)

    def show_again(self) -> None:
        """The scene has gone back or forward in time."""
        for live in self.jobs.values():
            if not live.has_preview and self.scene.placement(live.job) is not None:
                live.has_preview = True
                self._attend(live)
            live.show_again()

    def steer(self, job: str, prompt: str | None, negative_prompt: str | None, strength: float | None) -> None:
        """Send what is not None."""
        number = self._client().steer(job, prompt=prompt, negative_prompt=negative_prompt, strength=strength)
        self._asked[number] = (job, "The change was not taken")

    def ask(self, job: str, what: str) -> None:
        """`what` is "pause", "resume" or "cancel"."""
        if job in self.jobs:
            self.jobs[job].problem = ""
        number = getattr(self._client(), what)(job)
        self._asked[number] = (job, f"{what.capitalize()} was not done")

    def stop_service(self) -> None:
        """Have the service end itself if it can be talked to, and see to it that it does."""
        assert self.process is not None
        self.process.stop(self._shut_down if self.connected else None)
        self.look_soon()

    def _shut_down(self) -> None:
        self._asked[self._client().shutdown()] = ("", "")  # whether it has ended is seen by its process

    def _client(self) -> Client:
        if self.client is None:
            raise RuntimeError("connect first")
        return self.client

    def _attend(self, live: LiveJob) -> None:
        if self.client is not None:
            self.client.watch(live.job)
            self.client.follow(live.job)

    def _prepare(self, job: str, arrived: SnapshotArrived | ResultArrived) -> object:
        """Runs in the client's thread; reading a dict is safe there."""
        placement = self._placements.get(job)
        return None if placement is None else self.scene.prepare(placement, arrived)

    # ---- what the client tells

    def take(self, event: ClientEvent, now: float) -> None:
        """Work one event of the client into what is known here."""
        self.changed = True
        match event:
            case ConnectionChanged():
                self.connection = event
                self._next_list = 0.0
                if event.state == "connected":
                    self.problem = ""
            case Submitted(job=job, refused=refused) if job in self.jobs:
                live = self.jobs[job]
                live.heard = now
                if refused:
                    live.phase, live.problem = "refused", refused.message
                elif live.phase == "sending":
                    live.phase = "queued"
            case WatchRefused(job=job, refused=refused) if job in self.jobs:
                if not self.jobs[job].ended:
                    self.jobs[job].phase = "refused"
                self.jobs[job].problem = refused.message
            case Happened(event=happened) if happened.job in self.jobs:
                self._take_happening(self.jobs[happened.job], happened, now)
            case ProgressMade(progress=progress) if progress.job in self.jobs:
                self.jobs[progress.job].take_progress(progress, now)
            case SnapshotArrived(job=job) if job in self.jobs:
                self._take_snapshot(self.jobs[job], event, now)
            case ResultArrived(job=job) if job in self.jobs:
                self._take_result(self.jobs[job], event, now)
            case Replied():
                self._take_reply(event)
            case JobsListed(jobs=jobs):
                self.listed = jobs
                for summary in jobs:
                    if summary.job in self.jobs:
                        self.jobs[summary.job].take_summary(summary)

    def _take_reply(self, reply: Replied) -> None:
        """What was done shows in the job's events; what was refused is told where it was asked for."""
        job, words = self._asked.pop(reply.request, (None, ""))
        if reply.refused is None:
            return
        if job is None:
            self.problem = reply.refused.message
        elif job in self.jobs:
            self.jobs[job].problem = f"{words}: {reply.refused.message}"

    def _take_happening(self, live: LiveJob, event: m.JobEvent, now: float) -> None:
        live.take_event(event, now)
        self._client().acknowledge(event.job, event.number)
        if isinstance(event.happening, m.Steered) and live.wanted_strength is not None:
            live.want_strength(live.wanted_strength, live.wanted_at)

    def _take_snapshot(self, live: LiveJob, snapshot: SnapshotArrived, now: float) -> None:
        if snapshot.failure is not None:
            live.problem = f"An update could not be read: {snapshot.failure}"
        if snapshot.prepared is None or live.result is not None:
            self._client().applied(live.job)  # nothing to show, but the next one is welcome
            return
        frame = Frame(snapshot.step, snapshot.prepared, len(snapshot.mesh.positions), snapshot.faces_are_new)
        live.take_frame(frame, now)

    def _take_result(self, live: LiveJob, arrived: ResultArrived, now: float) -> None:
        if arrived.mesh is None:
            live.problem = f"The result did not arrive: {arrived.refused.message if arrived.refused else 'no reason given'}"
            return
        live.result = arrived.mesh
        if arrived.failure is not None:
            live.problem = f"The result could not be shown: {arrived.failure}"
        if arrived.prepared is not None:
            live.take_frame(Frame(live.step, arrived.prepared, len(arrived.mesh.positions), True), now)

    # ---- at every tick

    def look_around(self, now: float) -> None:
        """Now and then: how the service's process is doing, and which jobs it has."""
        if self.wanted:
            self.connect(self.scene.folder())
        if self.process is None:
            return
        if (self.process.stopping or not self.connected) and now >= self._next_look:
            self._next_look = now + LOOK_EVERY
            state = self.process.state()
            self.changed |= state != self.service
            self.service = state
        if self.connected and self.wanted and now >= self._next_list:
            self._next_list = now + LIST_EVERY
            self._client().list_jobs()

    def look_soon(self) -> None:
        """The process was started or stopped: see how it is doing at the next tick."""
        self._next_look, self.changed = 0.0, True

    def send_due_steering(self, now: float) -> None:
        for live in self.jobs.values():
            strength = live.take_due_strength(now)
            if strength is not None:
                self.steer(live.job, None, None, strength)

    def is_live(self) -> bool:
        """Whether anything may happen soon."""
        jobs = self.jobs.values()
        return any(not live.ended or (live.frame is not None and live.has_preview) for live in jobs)

    def close(self) -> None:
        self.disconnect()
        self.jobs.clear()
        self._placements.clear()


_session: Session | None = None


def open_session(session: Session) -> None:
    """Called by register()."""
    global _session
    _session = session


def close_session() -> None:
    """Called by unregister()."""
    global _session
    if _session is not None:
        _session.close()
    _session = None


def current() -> Session:
    """The session of the enabled extension. Raises RuntimeError if it is not enabled."""
    if _session is None:
        raise RuntimeError("The Galatea extension is not enabled.")
    return _session


def jobs() -> list[LiveJob]:
    """The jobs known in this Blender, newest last."""
    return list(current().jobs.values())
