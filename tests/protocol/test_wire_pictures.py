"""Pictures and masks come back as they were, in their places, and what is broken is refused with a sentence that names it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from protocol.codec import WireError, decode, encode
from protocol.losses import ReferenceSettings, RegionSettings
from protocol.mesh_codec import Mesh
from protocol.messages import JobRequest, MeshHeader, PictureHeader, Submit, ToServiceBulk
from protocol.picture_codec import MAX_DEPTH, Picture, mask_frame, picture_frames, read_mask, read_picture
from protocol.submission_codec import Attachments, read_submission, submission_frames

JOB = "0123456789abcdef" * 2


@st.composite
def pictures(draw: st.DrawFn) -> Picture:
    size = draw(st.tuples(st.integers(16, 24), st.integers(16, 24)))
    dice = np.random.default_rng(draw(st.integers(0, 99)))
    depth = dice.uniform(-MAX_DEPTH, MAX_DEPTH, size).astype(np.float32)
    depth[dice.random(size) < 0.3] = np.nan
    normals = dice.uniform(-1, 1, (*size, 3)).astype(np.float32)
    with_depth, with_normals = draw(st.booleans()), draw(st.booleans())
    return Picture(dice.integers(0, 256, (*size, 4), np.uint8), depth if with_depth else None, normals if with_normals else None)


@st.composite
def attachments(draw: st.DrawFn) -> Attachments:
    shown = tuple(draw(st.lists(pictures(), max_size=4)))
    if draw(st.booleans()):
        return Attachments(None, shown)
    vertices = draw(st.integers(3, 20))
    mesh = Mesh(np.zeros((vertices, 3), np.float32), np.array([[0, 1, 2]], np.int32), draw(st.sampled_from([None, np.ones((vertices, 3), np.float32)])))
    masks = draw(st.lists(arrays.arrays(np.float32, vertices, elements=st.floats(0, 1, width=32)), max_size=8))
    return Attachments(mesh, shown, tuple(masks))


def submit(attached: Attachments) -> Submit:
    references, regions = (ReferenceSettings(),) * len(attached.pictures), (RegionSettings(),) * len(attached.masks)
    return Submit(1, JOB, JobRequest("refine", "a mug", references=references, regions=regions))


def same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return (a is None) == (b is None) and (a is None or (a.shape, a.tobytes()) == (b.shape, b.tobytes()))


@settings(max_examples=50)
@given(attachments(), st.integers(0, 3))
def test_all_that_is_attached_comes_back_as_it_was(attached: Attachments, offset: int) -> None:
    message, buffers = submission_frames(submit(attached), attached)
    # Wherever ZeroMQ put the bytes.
    frames = [memoryview(b"." * offset + bytes(frame))[offset:] for frame in encode(message, buffers)]
    received = decode(frames, ToServiceBulk)
    again = read_submission(received.message, received.buffers)
    assert (again.mesh is None) == (attached.mesh is None)
    assert again.mesh is None or same(again.mesh.positions, attached.mesh.positions)
    assert len(again.pictures) == len(attached.pictures) and len(again.masks) == len(attached.masks)
    for one, other in zip(again.pictures, attached.pictures, strict=True):
        assert same(one.pixels, other.pixels) and same(one.depth, other.depth) and same(one.normals, other.normals)
    for one, other in zip(again.masks, attached.masks, strict=True):
        assert same(one, other) and one.flags.aligned and not one.flags.writeable


@settings(max_examples=50)
@given(attachments(), st.data())
def test_buffers_that_are_lost_doubled_cut_or_grown_are_refused(attached: Attachments, data: st.DataObject) -> None:
    message, buffers = submission_frames(submit(attached), attached)
    if not buffers:
        with pytest.raises(WireError):
            read_submission(message, [memoryview(b"more")])
        return
    which = data.draw(st.integers(0, len(buffers) - 1))
    broken = list(buffers)
    how = data.draw(st.sampled_from(["lost", "doubled", "cut", "grown"]))
    if how == "lost":
        del broken[which]
    elif how == "doubled":
        broken.insert(which, broken[which])
    else:
        raw = bytes(broken[which])
        broken[which] = memoryview(raw[:-1] if how == "cut" else raw + b"x")
    with pytest.raises(WireError) as caught:
        read_submission(message, broken)
    assert caught.value.message.endswith(".") and caught.value.code == "invalid"


@given(
    st.lists(st.builds(PictureHeader, st.integers(16, 18), st.integers(16, 18), st.booleans(), st.booleans()), max_size=4),
    st.integers(0, 4), st.integers(0, 8), st.none() | st.builds(MeshHeader, st.integers(3, 9), st.integers(0, 9), st.booleans()),
    st.lists(st.binary(max_size=130) | st.integers(0, 4000).map(bytes), max_size=8),
)
def test_random_bytes_are_sound_or_refused(
    headers: list[PictureHeader], references: int, regions: int, mesh: MeshHeader | None, garbage: list[bytes]
) -> None:
    request = JobRequest("refine", "x", references=(ReferenceSettings(),) * references, regions=(RegionSettings(),) * regions)
    try:
        read = read_submission(Submit(1, JOB, request, mesh, tuple(headers)), [memoryview(one) for one in garbage])
    except WireError as error:
        assert error.message.endswith(".") and error.code in ("invalid", "input")
        return
    assert len(read.pictures) == references and len(read.masks) == regions
    assert all(np.isfinite(mask).all() and len(mask) == mesh.vertices for mask in read.masks)


def picture(**changes: Any) -> Picture:
    values = {"pixels": np.zeros((16, 20, 4), np.uint8), "depth": np.zeros((16, 20), np.float32), "normals": np.zeros((16, 20, 3), np.float32)}
    return Picture(**{**values, **changes})


def with_value(shape: tuple[int, ...], value: float) -> np.ndarray:
    array = np.zeros(shape, np.float32)
    array[3, 5] = value
    return array


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"depth": with_value((16, 20), np.inf)}, "depth inf"),
        ({"depth": with_value((16, 20), -2e6)}, "depth -2e\\+06"),
        ({"normals": with_value((16, 20, 3), 1.5)}, "normal component 1.5"),
        ({"normals": with_value((16, 20, 3), -np.inf)}, "normal component -inf"),
    ],
)
def test_broken_values_are_named_in_and_out(changes: dict[str, np.ndarray], sentence: str) -> None:
    header, buffers = picture_frames(picture())
    [(name, broken)] = changes.items()
    buffers[{"depth": 1, "normals": 2}[name]] = memoryview(broken)
    for act in (lambda: picture_frames(picture(**changes)), lambda: read_picture(header, buffers)):
        with pytest.raises(WireError, match=sentence):
            act()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"pixels": np.zeros((16, 20, 3), np.uint8)}, r"shape \[16, 20, 3\]; expected \[H, W, 4\]"),
        ({"pixels": np.zeros((16, 20, 4), np.float32)}, "float32; expected uint8"),
        ({"pixels": np.zeros((15, 20, 4), np.uint8), "depth": None, "normals": None}, "20 x 15 pixels; expected 16 to 2048"),
        ({"pixels": np.zeros((16, 2049, 4), np.uint8), "depth": None, "normals": None}, "2049 x 16"),
        ({"pixels": [[1], [2, 3]]}, "no array"),
        ({"depth": np.zeros((20, 16), np.float32)}, r"depth have the shape \[20, 16\]; expected \[16, 20\]"),
        ({"normals": np.zeros((16, 20), np.float32)}, r"expected \[16, 20, 3\]"),
        ({"normals": np.full((16, 20, 3), "x")}, "<U1"),
    ],
)
def test_other_arrays_are_not_sent(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(WireError, match=sentence):
        picture_frames(picture(**changes))


@pytest.mark.parametrize(("value", "words"), [(np.nan, "nan at vertex 2"), (1.001, "1.001 at"), (-1e-6, "-1e-06"), (np.inf, "inf")])
def test_masks_are_within_their_bounds(value: float, words: str) -> None:
    mask = np.array([0, 1, value, 0.5], np.float32)
    for act in (lambda: mask_frame(mask, 4), lambda: read_mask(memoryview(mask), 4)):
        with pytest.raises(WireError, match=words):
            act()
    with pytest.raises(WireError, match="4 vertices"):
        mask_frame(np.zeros((4, 1)), 4)


def test_numbers_have_to_agree() -> None:
    mesh = Mesh(np.eye(4, 3, dtype=np.float32), np.array([[0, 1, 2]], np.int32))
    one = Attachments(mesh, (picture(),), (np.ones(4, np.float32),))
    message, buffers = submission_frames(submit(one), one)
    for attached, words in [
        (Attachments(mesh, (), one.masks), "1 references and 0 pictures"),
        (Attachments(mesh, one.pictures * 2, one.masks), "1 references and 2 pictures"),
        (Attachments(mesh, one.pictures), "1 regions and 0 masks"),
        (Attachments(None, one.pictures, one.masks), "Regions are parts of a mesh"),
    ]:
        with pytest.raises(WireError, match=words):
            submission_frames(submit(one), attached)
    with pytest.raises(WireError, match="6 buffers; expected 5"):
        read_submission(Submit(1, JOB, message.job_request, MeshHeader(4, 0, False), message.pictures), buffers)


def test_nothing_is_copied() -> None:
    one = Attachments(Mesh(np.eye(4, 3, dtype=np.float32), np.array([[0, 1, 2]], np.int32)), (picture(),), (np.ones(4, np.float32),))
    again = read_submission(*submission_frames(submit(one), one))
    assert np.shares_memory(again.pictures[0].pixels, one.pictures[0].pixels) and np.shares_memory(again.masks[0], one.masks[0])
