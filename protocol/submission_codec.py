"""What a job brings along beside its request, as the buffers of one Submit: mesh, pictures, masks, in this order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from .codec import WireError
from .mesh_codec import Mesh, mesh_frames, read_mesh
from .messages import MeshHeader, Submit
from .picture_codec import Picture, mask_frame, picture_sizes, picture_frames, read_mask, read_picture


@dataclass(frozen=True, eq=False)
class Attachments:
    """The mesh to refine; a picture for each of the request's references; a mask [V] float32 for each of its regions."""

    mesh: Mesh | None = None
    pictures: tuple[Picture, ...] = ()
    masks: tuple[np.ndarray, ...] = ()


def submission_frames(message: Submit, attached: Attachments) -> tuple[Submit, list[memoryview]]:
    """`message` with the headers of what is attached, and the buffers to send after it.

    Raises WireError for what `read_submission` would refuse.
    """
    _check_numbers(message, len(attached.pictures), len(attached.masks), attached.mesh is not None)
    mesh, buffers = None, []
    if attached.mesh is not None:
        mesh, buffers = mesh_frames(attached.mesh)
        if attached.mesh.faces is None:
            raise WireError("invalid", "The mesh to refine has no faces; expected at least one.")
    headers = []
    for number, picture in enumerate(attached.pictures, 1):
        with _naming(f"Picture {number}"):
            header, frames = picture_frames(picture)
        headers.append(header)
        buffers += frames
    for number, mask in enumerate(attached.masks, 1):
        with _naming(f"Region {number}"):
            buffers.append(mask_frame(mask, mesh.vertices))
    return msgspec.structs.replace(message, mesh=mesh, pictures=tuple(headers)), buffers


def read_submission(message: Submit, buffers: Sequence[memoryview]) -> Attachments:
    """What is attached to `message`, checked.

    Raises WireError for buffers of other numbers and sizes than the headers and the request say, and for what `read_mesh`,
    `read_picture` and `read_mask` refuse.
    """
    masks = len(message.job_request.regions)
    _check_numbers(message, len(message.pictures), masks, message.mesh is not None)
    of_mesh = mesh_buffers(message.mesh)
    of_pictures = [len(picture_sizes(header)) for header in message.pictures]
    expected = of_mesh + sum(of_pictures) + masks
    if len(buffers) != expected:
        raise WireError(
            "invalid",
            f"The submission came with {len(buffers)} buffers; expected {expected}: {of_mesh} of the mesh, "
            f"{sum(of_pictures)} of pictures and {masks} masks.",
        )
    mesh = None if message.mesh is None else read_mesh(message.mesh, buffers[:of_mesh])
    begin, pictures = of_mesh, []
    for number, (header, count) in enumerate(zip(message.pictures, of_pictures, strict=True), 1):
        with _naming(f"Picture {number}"):
            pictures.append(read_picture(header, buffers[begin : begin + count]))
        begin += count
    read = []
    for number, buffer in enumerate(buffers[begin:], 1):
        with _naming(f"Region {number}"):
            read.append(read_mask(buffer, message.mesh.vertices))
    return Attachments(mesh, tuple(pictures), tuple(read))


def mesh_buffers(header: MeshHeader | None) -> int:
    """How many of a submission's buffers, the first ones, are the mesh's."""
    return 0 if header is None else 1 + (header.faces > 0) + header.colors


def _check_numbers(message: Submit, pictures: int, masks: int, has_mesh: bool) -> None:
    references, regions = len(message.job_request.references), len(message.job_request.regions)
    if pictures != references:
        raise WireError("invalid", f"The job has {references} references and {pictures} pictures; expected one picture for each.")
    if masks != regions:
        raise WireError("invalid", f"The job has {regions} regions and {masks} masks; expected one mask for each.")
    if regions and not has_mesh:
        raise WireError("input", "Regions are parts of a mesh to refine, and none was sent; refine a mesh, or leave them out.")


@contextlib.contextmanager
def _naming(what: str) -> Iterator[None]:
    """Begins the sentence of a WireError with what it is about."""
    try:
        yield
    except WireError as error:
        raise WireError(error.code, f"{what}: {error.message}") from error
