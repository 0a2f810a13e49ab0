"""Whatever dies, the jobs live: killed workers, a killed service, a full disk; results are those of an undisturbed run."""

from __future__ import annotations

import numpy as np
import psutil
import pytest

from protocol.messages import Cancelled, Failed, Finished, JobRequest, Queued, Started, Warned

REQUEST = JobRequest("generate", "a blue chair", seed=5, steps=18)


@pytest.fixture(scope="module")
def undisturbed(service, make_watcher):
    """The result of REQUEST."""
    service.wait_until_ready()
    watcher = make_watcher()
    return watcher.result(watcher.submitted(REQUEST))


def test_killed_worker_and_killed_service_change_nothing(service, watcher, undisturbed) -> None:
    """Cancel (which saves), resume, kill the worker, then kill the service, start it again: the same bits come out."""
    job = watcher.submitted(REQUEST)
    watcher.reached(job, 4)
    assert watcher.reply(watcher.cancel(job)) is None
    cancelled = watcher.happened(job, Cancelled)
    assert cancelled.resumable and cancelled.step >= 4

    assert watcher.reply(watcher.resume(job)) is None
    assert watcher.happened(job, Started, times=2).step == cancelled.step
    watcher.reached(job, cancelled.step + 2)
    ready = service.log().count("ready:")
    service.worker().kill()
    assert "signal 9 (SIGKILL" in watcher.happened(job, Warned).message
    assert watcher.happened(job, Started, times=3).step == cancelled.step
    assert service.log().count("ready:") == ready + 1

    watcher.reached(job, cancelled.step + 1)
    service.kill()
    service.start()
    assert watcher.happened(job, Started, times=4).step == cancelled.step
    watcher.happened(job, Finished)
    result = watcher.result(job)
    assert np.array_equal(result.positions, undisturbed.positions)
    assert np.array_equal(result.faces, undisturbed.faces) and np.array_equal(result.colors, undisturbed.colors)
    numbers = [event.number for event in watcher.events(job)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_job_that_kills_its_worker_twice_at_one_point_is_given_up(service, watcher, ball) -> None:
    service_ready(service)
    job = watcher.submitted(JobRequest("refine", "a red mug", steps=100_000), ball)
    watcher.happened(job, Started)
    service.worker().kill()
    watcher.happened(job, Started, times=2)
    service.worker().kill()
    failed = watcher.happened(job, Failed)
    assert failed.code == "worker" and "SIGKILL" in failed.message and not failed.resumable
    assert watcher.reply(watcher.resume(job)) is None
    assert watcher.happened(job, Queued, times=2)
    assert watcher.reply(watcher.cancel(job)) is None


@pytest.mark.skipif(not hasattr(psutil.Process, "rlimit"), reason="limits another process, as only Linux can")
def test_a_full_disk_fails_the_job_and_room_lets_it_go_on(service, watcher) -> None:
    """A limit on the size of the worker's files stands in for the disk."""
    service_ready(service)
    job = watcher.submitted(JobRequest("generate", "a red mushroom", steps=16))
    watcher.happened(job, Started)
    service.worker().rlimit(psutil.RLIMIT_FSIZE, (20_000, -1))
    watcher.reached(job, 2)
    assert watcher.reply(watcher.cancel(job)).code == "conflict"
    failed = watcher.happened(job, Failed)
    assert failed.code == "disk" and "Free some space" in failed.message and not failed.resumable
    service.worker().rlimit(psutil.RLIMIT_FSIZE, (-1, -1))
    assert watcher.reply(watcher.resume(job)) is None
    watcher.happened(job, Finished)


def service_ready(service) -> None:
    """Its present worker is ready, however many there were before."""
    service.wait_until_ready(service.log().count("loading torch"))


def test_a_paused_job_stays_paused_when_its_worker_dies(service, watcher, ball) -> None:
    service_ready(service)
    job = watcher.submitted(JobRequest("refine", "a red mug", steps=100_000), ball)
    watcher.happened(job, Started)
    assert watcher.reply(watcher.pause(job)) is None
    service.worker().kill()
    assert "paused job" in watcher.happened(job, Warned).message
    assert watcher.reply(watcher.resume(job)) is None
    watcher.happened(job, Started, times=2)
    assert watcher.reply(watcher.cancel(job)) is None
