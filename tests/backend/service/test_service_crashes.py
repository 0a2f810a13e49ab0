"""Whatever dies, the jobs live: a full disk, a killed worker, a killed service; results are those of an undisturbed run."""

from __future__ import annotations

import numpy as np
import psutil
import pytest

from protocol.messages import Cancelled, Failed, Finished, JobRequest, Started, Warned

REQUEST = JobRequest("refine", "a blue mug", seed=5, steps=20)


@pytest.mark.skipif(not hasattr(psutil.Process, "rlimit"), reason="limits another process, as only Linux can")
def test_a_full_disk_fails_the_job_and_room_lets_it_go_on(service, watcher, ball) -> None:
    """A limit on the size of the worker's files stands in for the disk; cancelling is what makes it write."""
    service.wait_until_ready()
    job = watcher.submitted(REQUEST, ball)
    service.worker().rlimit(psutil.RLIMIT_FSIZE, (2000, -1))
    watcher.reached(job, 2)
    assert watcher.reply(watcher.cancel(job)).code == "conflict"
    failed = watcher.happened(job, Failed)
    assert failed.code == "disk" and "Free some space" in failed.message and not failed.resumable
    service.worker().rlimit(psutil.RLIMIT_FSIZE, (-1, -1))
    assert watcher.reply(watcher.resume(job)) is None
    watcher.happened(job, Finished)
    assert "Traceback" not in service.log()


def test_killed_worker_and_killed_service_change_nothing(service, watcher, ball) -> None:
    """Cancel (which saves), resume, kill the worker, kill the service, start it again: the same bits come out."""
    service.wait_until_ready()
    undisturbed = watcher.result(watcher.submitted(REQUEST, ball))
    job = watcher.submitted(REQUEST, ball)
    watcher.reached(job, 4)
    assert watcher.reply(watcher.cancel(job)) is None
    cancelled = watcher.happened(job, Cancelled)
    assert cancelled.resumable and cancelled.step >= 4

    assert watcher.reply(watcher.resume(job)) is None
    assert watcher.happened(job, Started, times=2).step == cancelled.step
    watcher.reached(job, cancelled.step + 2)
    service.worker().kill()
    assert "signal 9 (SIGKILL" in watcher.happened(job, Warned).message
    assert watcher.happened(job, Started, times=3).step == cancelled.step

    watcher.reached(job, cancelled.step + 1)
    service.kill()
    service.start()
    assert watcher.happened(job, Started, times=4).step == cancelled.step
    watcher.happened(job, Finished)
    result = watcher.result(job)
    assert np.array_equal(result.positions, undisturbed.positions) and np.array_equal(result.colors, undisturbed.colors)
    numbers = [event.number for event in watcher.events(job)]
    assert numbers == list(range(1, len(numbers) + 1))
