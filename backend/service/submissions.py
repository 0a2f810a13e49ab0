"""What a client submits, checked as far as that can be done without the prior, and put on disk."""

from __future__ import annotations

import errno
import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from backend.errors import InputError
from backend.recipes import settings_for
from backend.service.clients import Refusal
from backend.service.input_files import write_inputs
from backend.service.job_files import JobFiles, write_mesh
from backend.service.job_store import JobRecord, JobStore
from protocol.codec import WireError
from protocol.messages import Submit
from protocol.settings import LoadingSettings
from protocol.submission_codec import mesh_buffers, read_submission

FREE_BYTES_NEEDED = 100_000_000
MAX_QUEUED = 100
MAX_RADIUS = 1.01
"""The cameras stand at a distance that the unit sphere fits into view from; more than rounding would be cut off."""


def accept(
    folder: Path,
    store: JobStore,
    priors: Mapping[str, str],
    message: Submit,
    buffers: Sequence[memoryview],
    loading: LoadingSettings = LoadingSettings(),
) -> JobRecord | None:
    """The record of a new job, whose mesh, pictures and masks are on disk; None if the very same job is there already.

    `priors`: offered name -> the family of recipes that suits it.

    Raises:
        Refusal: it cannot be done; the sentence says why.
    """
    request = message.job_request
    _check(message, buffers)
    digest = _digest(message, buffers)
    there = store.get(message.job)
    if there is not None:
        if there.request == request and there.digest == digest:
            return None
        raise Refusal("conflict", f"There is another job {message.job} already; draw a new id for a new job.")
    if request.prior not in priors:
        raise Refusal("input", f"This service offers no prior {request.prior!r}; it offers {', '.join(priors)}.")
    try:
        settings = msgspec.structs.replace(settings_for(request, priors[request.prior]), loading=loading)
    except InputError as error:
        raise Refusal("input", str(error)) from error
    if len(store.queued()) >= MAX_QUEUED:
        raise Refusal("conflict", f"{MAX_QUEUED} jobs are waiting already; cancel some, or wait until they are done.")
    _write_files(JobFiles(folder, message.job), message, buffers)
    return JobRecord(
        job=message.job,
        state="queued",
        request=request,
        settings=settings,
        digest=digest,
        prompt=settings.prompt,
        negative_prompt=settings.negative_prompt,
        strength=settings.strength,
        created=time.time(),
        total=sum(stage.steps for stage in settings.stages),
    )


def _check(message: Submit, buffers: Sequence[memoryview]) -> None:
    request = message.job_request
    if request.command == "refine" and message.mesh is None:
        raise Refusal("input", "To refine, a mesh is needed, and none was sent.")
    if request.command == "generate" and message.mesh is not None:
        raise Refusal("input", "To generate, no mesh is used, and one was sent; refine it, or leave it out.")
    try:
        mesh = read_submission(message, buffers).mesh
    except WireError as error:
        raise Refusal(error.code, error.message) from error
    if mesh is not None:
        radius = float(np.linalg.norm(mesh.positions, axis=1).max())
        if radius > MAX_RADIUS:
            raise Refusal("input", f"The mesh reaches {radius:.3g} from the origin; scale it into the unit sphere, as jobs expect it.")


def _digest(message: Submit, buffers: Sequence[memoryview]) -> str | None:
    if not buffers:
        return None
    digest = hashlib.sha256(msgspec.msgpack.encode((message.mesh, message.pictures)))
    for buffer in buffers:
        digest.update(buffer)
    return digest.hexdigest()


def _write_files(files: JobFiles, message: Submit, buffers: Sequence[memoryview]) -> None:
    of_mesh, needed = mesh_buffers(message.mesh), FREE_BYTES_NEEDED + sum(buffer.nbytes for buffer in buffers)
    try:
        files.make()
        free = shutil.disk_usage(files.folder).free
        if free < needed:
            raise OSError(errno.ENOSPC, f"{free / 1e6:.0f} MB are free and a job needs {needed / 1e6:.0f} MB")
        if message.mesh is not None:
            write_mesh(files.start, message.mesh, buffers[:of_mesh])
        if len(buffers) > of_mesh:
            write_inputs(files.inputs, message, buffers[of_mesh:])
    except OSError as error:
        files.remove()
        raise Refusal("disk", f"The job cannot be stored: {error.strerror}. Free some space where the service keeps its jobs.") from error
