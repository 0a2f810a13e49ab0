"""Pictures, masks and diagnoses at the service's borders: what was written is what is read, and nothing out of bounds goes out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from backend.errors import InputError
from backend.optimize.events import Diagnosed
from backend.recipes import settings_for
from backend.service.clients import Refusal
from backend.service.diagnosis import diagnosis_of
from backend.service.input_files import read_inputs, write_inputs
from backend.service.job_files import DamagedFile, JobFiles
from backend.service.job_store import JobStore
from backend.service.submissions import accept
from protocol.codec import decode, encode
from protocol.losses import ReferenceSettings, RegionSettings
from protocol.mesh_codec import Mesh
from protocol.messages import JobRequest, Progress, Submit, ToClientControl
from protocol.picture_codec import Picture
from protocol.submission_codec import Attachments, mesh_buffers, submission_frames

JOB = "ab" * 16


def attached(ball: Mesh) -> Attachments:
    dice = np.random.default_rng(4)
    plain = Picture(dice.integers(0, 256, (16, 21, 4), np.uint8))
    depth = np.where(dice.random((18, 17)) < 0.2, np.nan, 3.0).astype(np.float32)
    full = Picture(dice.integers(0, 256, (18, 17, 4), np.uint8), depth, np.zeros((18, 17, 3), np.float32))
    return Attachments(ball, (plain, full), (dice.random(66).astype(np.float32), np.ones(66, np.float32)))


def submit(given: Attachments) -> tuple[Submit, list[memoryview]]:
    references, regions = (ReferenceSettings(azimuth=20),) * len(given.pictures), (RegionSettings("a lid"),) * len(given.masks)
    return submission_frames(Submit(1, JOB, JobRequest("refine", "a mug", references=references, regions=regions)), given)


@pytest.fixture
def written(ball: Mesh, tmp_path: Path) -> Path:
    message, buffers = submit(attached(ball))
    write_inputs(tmp_path / "start.inputs", message, buffers[mesh_buffers(message.mesh) :])
    return tmp_path / "start.inputs"


def test_inputs_are_read_as_written(ball: Mesh, written: Path) -> None:
    pictures, masks = read_inputs(written)
    expected = attached(ball)
    for one, other in zip(pictures, expected.pictures, strict=True):
        for name in ("pixels", "depth", "normals"):
            a, b = getattr(one, name), getattr(other, name)
            assert (a is None) == (b is None) and (a is None or (a.shape, a.tobytes()) == (b.shape, b.tobytes()))
    assert [mask.tobytes() for mask in masks] == [mask.tobytes() for mask in expected.masks]


def test_a_damaged_file_is_known_as_such(written: Path) -> None:
    whole = written.read_bytes()
    for broken in (b"", b"Galatea", whole[:-1], whole + b"x", b"x" + whole, whole[:20] + whole[24:], whole.replace(b"pictures", b"pictur3s")):
        written.write_bytes(broken)
        with pytest.raises(DamagedFile, match="start.inputs"):
            read_inputs(written)
    written.write_bytes(whole[:-4] + np.float32(np.nan).tobytes())
    with pytest.raises(DamagedFile, match="nan at vertex 65"):
        read_inputs(written)


def test_accepting_stores_all_and_refuses_another_under_the_same_id(ball: Mesh, tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    message, buffers = submit(attached(ball))
    made = accept(tmp_path, store, {"toybox": "toybox"}, message, buffers)
    assert [one.azimuth for one in made.settings.references] == [20, 20] and [one.prompt for one in made.settings.regions] == ["a lid"] * 2
    files = JobFiles(tmp_path, JOB)
    assert sorted(path.name for path in files.folder.iterdir()) == ["start.inputs", "start.mesh"]
    store.save(made)
    assert accept(tmp_path, store, {"toybox": "toybox"}, message, buffers) is None
    for number, other in enumerate(buffers):
        changed = bytearray(other)
        changed[0] ^= 1
        try:
            accept(tmp_path, store, {"toybox": "toybox"}, message, [*buffers[:number], memoryview(bytes(changed)), *buffers[number + 1 :]])
        except Refusal as refusal:
            assert refusal.code in ("conflict", "invalid")
        else:
            raise AssertionError(f"buffer {number} makes no difference")
    store.close()


def test_no_words_are_enough_with_a_picture_only() -> None:
    assert settings_for(JobRequest("generate", " ", references=(ReferenceSettings(),))).prompt == ""
    with pytest.raises(InputError, match="give a reference picture"):
        settings_for(JobRequest("generate", " "))
    with pytest.raises(InputError, match="Regions are parts of a mesh"):
        settings_for(JobRequest("generate", "a mug", regions=(RegionSettings(),)))


def test_what_a_job_tells_of_itself_can_always_be_sent() -> None:
    told = Diagnosed(
        7, 0, {"a": 1.0 + 1e-12, "b": float("nan")}, {"a": -1e-15}, {"positions": float("inf"), "colors": 0.5}, (1,) * 12, 1.0 + 1e-9,
        (2,) * 10, float("nan"), float("nan"),
    )  # fmt: skip
    for event, janus in ((told, None), (replace(told, janus=1.0 + 1e-12), 1.0)):
        progress = Progress(JOB, "running", "x", 7, 9, 0, None, 0.1, 1.0, {}, diagnosis_of(event))
        again = decode(encode(progress), ToClientControl).message.diagnosis
        assert (again.loss_shares, again.gradient_shares, again.update_norms) == ({"a": 1.0}, {"a": 0.0}, {"colors": 0.5})
        assert (again.azimuth_uniformity, again.saturation, again.janus) == (1.0, 0.0, janus)
        assert msgspec.to_builtins(again)["azimuths"] == (1,) * 12
