"""The newest snapshot of each job under way, and the clients' credit for it.

A snapshot is made only when somebody's credit cannot be served by the one that is there. It travels from the worker's
socket to the clients' as the frames that came.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from backend.service.clients import MAX_PER_CLIENT, Client, Clients, Refusal
from backend.service.worker_messages import JobSnapshot
from protocol.codec import WireError
from protocol.mesh_codec import read_mesh
from protocol.messages import Grant, HexId, MeshHeader, Snapshot


@dataclass(frozen=True)
class _Topology:
    """`number` as clients know it, `of_worker` as the worker does; `buffer` holds the `faces` triangles of `vertices`."""

    number: int
    of_worker: int
    vertices: int
    faces: int
    buffer: memoryview


@dataclass(frozen=True)
class _Newest:
    serial: int
    step: int
    topology: _Topology
    header: MeshHeader
    positions: memoryview
    colors: memoryview | None


class Snapshots:
    """`want` asks the job's worker for a snapshot that is newer than its last; False if no worker has the job."""

    def __init__(self, clients: Clients, want: Callable[[HexId], bool]) -> None:
        self._clients, self._want = clients, want
        self._newest: dict[HexId, _Newest] = {}
        self._wanted: set[HexId] = set()
        self._serial = 0
        self._last_topology = 0

    def grant(self, client: Client, grant: Grant) -> None:
        """Note the credit and spend it if there is something to spend it on. Raises Refusal."""
        if grant.job not in client.grants and len(client.grants) >= MAX_PER_CLIENT:
            raise Refusal("conflict", f"You follow {MAX_PER_CLIENT} jobs already; stop following one first.")
        client.grants[grant.job] = grant
        self._serve(client, grant)

    def arrived(self, job: HexId, snapshot: JobSnapshot, buffers: Sequence[memoryview]) -> None:
        """The worker made one. Raises WireError if it is none."""
        known = self._newest[job].topology if job in self._newest else None
        mesh = read_mesh(snapshot.mesh, buffers, known.vertices if known else None)
        topology = known
        if mesh.faces is not None:
            topology = self._new_topology(snapshot, buffers[1])
        elif known is None or known.of_worker != snapshot.topology:
            raise WireError("invalid", "A snapshot came with a topology that is not known.")
        self._serial += 1
        colors = buffers[-1] if snapshot.mesh.colors else None
        self._newest[job] = _Newest(self._serial, snapshot.step, topology, snapshot.mesh, buffers[0], colors)
        self._wanted.discard(job)
        self.serve(job)

    def serve(self, job: HexId) -> None:
        """Spend the credit that waits for the job's snapshots."""
        for client in self._clients:
            if job in client.grants:
                self._serve(client, client.grants[job])

    def begin(self, job: HexId) -> None:
        """A worker has taken the job up anew: it knows nothing of what was wanted before."""
        self._newest.pop(job, None)
        self._wanted.discard(job)
        self.serve(job)

    def end(self, job: HexId) -> None:
        """No worker works on the job any more."""
        self._newest.pop(job, None)
        self._wanted.discard(job)

    def _new_topology(self, snapshot: JobSnapshot, buffer: memoryview) -> _Topology:
        number = 0
        if snapshot.topology:
            self._last_topology += 1
            number = self._last_topology
        return _Topology(number, snapshot.topology, snapshot.mesh.vertices, snapshot.mesh.faces, buffer)

    def _serve(self, client: Client, grant: Grant) -> None:
        newest = self._newest.get(grant.job)
        if newest is None or newest.serial <= grant.after:
            if grant.job not in self._wanted and self._want(grant.job):
                self._wanted.add(grant.job)
            return
        has_faces = grant.topology == newest.topology.number
        header = msgspec.structs.replace(newest.header, faces=0 if has_faces else newest.topology.faces)
        buffers = [newest.positions, None if has_faces else newest.topology.buffer, newest.colors]
        message = Snapshot(grant.job, newest.serial, newest.step, newest.topology.number, header)
        if self._clients.hand(client, message, [buffer for buffer in buffers if buffer is not None]):
            del client.grants[grant.job]
