"""Pictures and regions through a real service and a real worker: they reach the loop, outlive everything, and are told of."""

from __future__ import annotations

import secrets

import numpy as np
import pytest

from protocol.client_events import ProgressMade, Submitted
from protocol.losses import ReferenceSettings, RegionSettings
from protocol.messages import Cancelled, Failed, Finished, JobRequest, MeshHeader, PictureHeader, Refused, Started, Submit
from protocol.picture_codec import Picture
from protocol.submission_codec import Attachments, submission_frames

PAINT = JobRequest("refine", "a blue mug", steps=8, strength=1.0)


@pytest.fixture
def ready(service):
    service.wait_until_ready()


def submitted(watcher, request: JobRequest, mesh=None, pictures=(), masks=()) -> str:
    job = watcher.submit(request, mesh, None, pictures, masks)
    watcher.follow(job)
    [outcome] = watcher.wait(lambda: [one for one in watcher.said if isinstance(one, Submitted) and one.job == job])
    assert outcome.refused is None, outcome
    return job


def red_disc(size: int = 48) -> Picture:
    """A disc that fills half of the picture, cut out."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    pixels = np.zeros((size, size, 4), np.uint8)
    pixels[x**2 + y**2 < (size / 3) ** 2] = (230, 20, 30, 255)
    return Picture(pixels)


def half(ball) -> np.ndarray:
    """The upper part of the ball, with a soft border."""
    return np.clip(ball.positions[:, 1] / 0.3, 0, 1).astype(np.float32)


def test_outside_of_a_region_every_bit_stays(ready, watcher, ball) -> None:
    mask = half(ball)
    job = submitted(watcher, JobRequest("refine", "a blue mug", steps=8, strength=1.0, regions=(RegionSettings(),)), ball, masks=[mask])
    watcher.happened(job, Finished)
    result = watcher.result(job)
    moved = (result.positions != ball.positions).any(axis=1)
    assert not moved[mask == 0].any() and moved[mask == 1].all()
    assert len(np.unique(result.colors[mask == 0], axis=0)) == 1, "the gray that it came with"
    assert len(np.unique(result.colors[mask == 1], axis=0)) > 1
    for snapshot in watcher.snapshots:
        assert np.array_equal(snapshot.mesh.positions[mask == 0], ball.positions[mask == 0])


def test_a_picture_without_words_is_enough(ready, watcher) -> None:
    """Nothing but the picture says red."""
    request = JobRequest("generate", "", steps=12, references=(ReferenceSettings(),))
    job = submitted(watcher, request, pictures=[red_disc()])
    watcher.happened(job, Finished)
    red, green, blue = watcher.result(job).colors.mean(0)
    assert red > green and red > blue
    [numbers] = [one.progress.numbers for one in watcher.said if isinstance(one, ProgressMade) and one.progress.job == job][-1:]
    assert any(name.startswith("reference") for name in numbers), numbers
    assert watcher.reply(watcher.steer(job, prompt="")).code == "conflict", "it has ended; no words are no reason"


def test_pictures_and_masks_outlive_worker_and_service(ready, service, watcher, ball) -> None:
    """The same bits come out as of a run that nothing disturbed."""
    request = JobRequest(
        "refine", "a blue mug", steps=12, strength=1.0, references=(ReferenceSettings(azimuth=90),), regions=(RegionSettings("a red mug"),)
    )
    given = {"pictures": [red_disc()], "masks": [half(ball)]}
    undisturbed = submitted(watcher, request, ball, **given)
    watcher.happened(undisturbed, Finished)
    expected = watcher.result(undisturbed)
    job = submitted(watcher, request, ball, **given)
    watcher.reached(job, 3)
    assert watcher.reply(watcher.cancel(job)) is None
    watcher.happened(job, Cancelled)
    assert watcher.reply(watcher.resume(job)) is None
    watcher.happened(job, Started, times=2)
    service.worker().kill()
    service.kill()
    service.start()
    watcher.happened(job, Finished)
    result = watcher.result(job)
    assert np.array_equal(result.positions, expected.positions) and np.array_equal(result.colors, expected.colors)


def test_a_diagnosis_comes_with_the_progress(ready, watcher, ball) -> None:
    job = submitted(watcher, JobRequest("refine", "a blue mug", steps=16, strength=1.0), ball)
    watcher.happened(job, Finished)
    told = [one.progress.diagnosis for one in watcher.said if isinstance(one, ProgressMade) and one.progress.job == job]
    told = [one for one in told if one is not None]
    assert told and sum(told[-1].azimuths) > 0 and sum(told[-1].timesteps) > 0
    assert abs(sum(told[-1].gradient_shares.values()) - 1) < 1e-3


def test_lost_inputs_fail_the_job_in_words(ready, service, watcher, ball) -> None:
    """Only somebody who reaches into the service's folder can bring that about."""
    service_jobs = service.folder / "jobs"
    first = submitted(watcher, JobRequest("refine", "a red mug", steps=100_000, strength=1.0), ball)
    watcher.happened(first, Started)
    request = JobRequest("refine", "a blue mug", steps=8, regions=(RegionSettings(),))
    waiting = {what: submitted(watcher, request, ball, masks=[half(ball)]) for what in ("gone", "cut")}
    (service_jobs / waiting["gone"] / "start.inputs").unlink()
    cut = service_jobs / waiting["cut"] / "start.inputs"
    cut.write_bytes(cut.read_bytes()[:-4])
    watcher.reply(watcher.cancel(first))
    for job in waiting.values():
        failed = watcher.happened(job, Failed)
        assert failed.code == "input" and "Submit the job anew" in failed.message


def broken(ball) -> dict[str, tuple]:
    """name -> (request, attachments, what is changed of message or buffers, code, words)."""
    regions, references = (RegionSettings(),), (ReferenceSettings(),)
    both = JobRequest("refine", "", steps=8, references=references, regions=regions)
    good = Attachments(ball, (red_disc(),), (half(ball),))
    message, buffers = submission_frames(Submit(1, "0" * 32, both), good)
    nan = np.array(half(ball))
    nan[3] = np.nan
    huge = (PictureHeader(2048, 2048, True, True),)
    replace = lambda **changes: Submit(**{**{name: getattr(message, name) for name in message.__struct_fields__}, **changes})  # noqa: E731
    return {
        "no picture": (replace(pictures=()), [*buffers[:2], buffers[-1]], "invalid", "1 references and 0 pictures"),
        "a picture's frame is missing": (message, [*buffers[:2], buffers[-1]], "invalid", "3 buffers; expected 4"),
        "a mask is missing": (message, buffers[:-1], "invalid", "expected 4"),
        "more masks than regions": (message, [*buffers, buffers[-1]], "invalid", "5 buffers"),
        "frames in another order": (message, buffers[::-1], "invalid", "bytes"),
        "a mask that is not a number": (message, [*buffers[:-1], memoryview(nan)], "invalid", "nan at vertex 3"),
        "a mask of another mesh": (message, [*buffers[:-1], memoryview(np.ones(65, np.float32))], "invalid", "Region 1"),
        "a header that says more than comes": (replace(pictures=huge), [*buffers[:3], buffers[2], buffers[2], buffers[3]], "invalid", "Picture 1"),
        "a mesh of two million vertices": (replace(mesh=MeshHeader(2_000_000, 4_000_000, False)), buffers, "invalid", "bytes"),
        "regions without a mesh": (
            Submit(1, "0" * 32, JobRequest("generate", "a mug", regions=regions)), [], "input", "Regions are parts of a mesh",
        ),
    }  # fmt: skip


def test_hostile_inputs_are_refused_at_once_and_leave_nothing(raw, ball, service) -> None:
    client = raw().hello()
    before = len(list((service.folder / "jobs").iterdir()))
    for what, (message, buffers, code, words) in broken(ball).items():
        job = secrets.token_hex(16)
        client.hand(Submit(**{**{name: getattr(message, name) for name in message.__struct_fields__}, "job": job}), buffers)
        refused = client.hear(bulk=True)
        assert isinstance(refused, Refused) and (refused.request, refused.code) == (1, code) and words in refused.message, (what, refused)
    assert len(list((service.folder / "jobs").iterdir())) == before


def test_the_same_pictures_make_one_job_and_others_another(ready, raw, ball) -> None:
    client, job = raw().hello(), secrets.token_hex(16)
    request = JobRequest("refine", "a mug", steps=8, references=(ReferenceSettings(),), regions=(RegionSettings(),))
    same = submission_frames(Submit(1, job, request), Attachments(ball, (red_disc(),), (half(ball),)))
    other = submission_frames(Submit(1, job, request), Attachments(ball, (red_disc(),), (half(ball) * np.float32(0.5),)))
    for (message, buffers), expected in ((same, "Accepted"), (same, "Accepted"), (other, "Refused")):
        client.hand(message, buffers)
        assert type(client.answer(1, bulk=True)).__name__ == expected
