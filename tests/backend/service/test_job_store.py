"""The job database and the files of jobs: what was written is what is read, and what cannot be written leaves no trace."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from backend.errors import InputError
from backend.recipes import settings_for
from backend.service.job_files import DamagedFile, load_mesh_file, save_mesh_file
from backend.service.job_store import KEEP_DAYS, JobRecord, JobStore
from protocol.mesh_codec import Mesh
from protocol.messages import Cancelled, Finished, JobRequest, Queued, Started, Steered, Warned

ROOT = Path(__file__).resolve().parents[3]


def record(name: str, **changes: object) -> JobRecord:
    request = JobRequest("generate", "a red mug", seed=2**63 - 1, strength=0.25)
    job = JobRecord(
        job=name * 32,
        state="queued",
        request=request,
        settings=settings_for(request),
        digest=None,
        prompt="a red mug",
        negative_prompt="",
        strength=0.25,
        created=time.time(),
    )
    return msgspec.structs.replace(job, **changes)


@pytest.fixture
def store(tmp_path: Path):
    one = JobStore(tmp_path)
    yield one
    one.close()


def test_jobs_and_events_come_back_after_reopening(store: JobStore, tmp_path: Path) -> None:
    happenings = [Queued(), Started(0, "cpu"), Steered(3, "a „blue” mug ☕", "handle", 1.0), Warned("x" * 4000), Finished(5, 1.5, 8, 12)]
    saved, events = store.save(record("a"), *happenings[:2])
    saved, more = store.save(msgspec.structs.replace(saved, state="finished", step=5, crashed_at=0), *happenings[2:])
    assert [event.number for event in events + more] == [1, 2, 3, 4, 5] and saved.last_event == 5
    assert (tmp_path / "jobs.sqlite").stat().st_mode & 0o077 == 0 or os.name == "nt"
    store.close()
    again = JobStore(tmp_path)
    assert again.get("a" * 32) == saved
    assert [event.happening for event in again.events_after("a" * 32, 0)] == happenings
    assert again.events_after("a" * 32, 3) == more[1:]
    assert again.get("b" * 32) is None and again.events_after("b" * 32, 0) == []
    again.close()


def test_queue_keeps_its_order(store: JobStore) -> None:
    for name in "cab":
        store.save(record(name, place=store.last_place() + 1))
    store.save(record("f", place=store.first_place() - 1))
    store.save(record("e", state="running"))
    assert [job[0] for job in store.queued()] == ["f", "c", "a", "b"]
    assert store.next_queued().job == "f" * 32
    assert [job.job[0] for job in store.in_state("running")] == ["e"]
    assert [job.job[0] for job in store.newest(2)] == ["e", "f"]


def test_only_old_ended_and_acknowledged_jobs_are_forgotten(store: JobStore) -> None:
    store.save(record("a", state="finished"), Queued(), Finished(1, 1.0, 3, 1))
    store.save(record("b", state="finished"), Queued(), Finished(1, 1.0, 3, 1))
    store.save(record("c", state="paused"), Queued())
    store.save(record("d", state="cancelled"), Queued(), Cancelled(0, False))
    for name, number in (("a", 2), ("b", 1), ("c", 1), ("d", 2)):
        store.acknowledge(name * 32, number)
    now = time.time()
    assert store.remove_old(now + (KEEP_DAYS - 1) * 86400) == []
    assert sorted(job[0] for job in store.remove_old(now + (KEEP_DAYS + 1) * 86400)) == ["a", "d"]
    assert store.get("a" * 32) is None and store.events_after("a" * 32, 0) == []
    assert store.get("b" * 32) and len(store.events_after("b" * 32, 0)) == 2


def test_a_crash_in_mid_write_leaves_what_was_there(tmp_path: Path) -> None:
    """A process that dies within the transaction: neither the record nor the event is there."""
    program = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from backend.service import job_store
from test_job_store import record
from protocol.messages import Queued, Started
store = job_store.JobStore(Path(sys.argv[1]))
first, _ = store.save(record("a"), Queued())
job_store._Transaction.__exit__ = lambda *_: os._exit(9)
store.save(job_store.msgspec.structs.replace(first, state="running"), Started(0, "cpu"))
"""
    here = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path), here], env=environment, timeout=60)
    assert ended.returncode == 9
    store = JobStore(tmp_path)
    assert store.get("a" * 32).state == "queued"
    assert [event.happening for event in store.events_after("a" * 32, 0)] == [Queued()]
    store.close()


def test_a_database_that_is_not_ours_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").write_bytes(b"not a database, " * 100)
    with pytest.raises(InputError, match="move it away"):
        JobStore(tmp_path)
    (tmp_path / "jobs.sqlite").unlink()
    database = sqlite3.connect(tmp_path / "jobs.sqlite")
    database.execute("PRAGMA user_version = 7")
    database.close()
    with pytest.raises(InputError, match="another version"):
        JobStore(tmp_path)


def test_a_job_of_another_version_does_not_hold_up_the_others(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    for name in "ab":
        store.save(record(name, place=store.last_place() + 1), Queued())
    store.close()
    database = sqlite3.connect(tmp_path / "jobs.sqlite")
    database.execute("UPDATE jobs SET record = replace(record, '\"seed\"', '\"sown\"') WHERE job = ?", ("a" * 32,))
    database.commit()
    database.close()
    store = JobStore(tmp_path)
    assert store.next_queued().job == "b" * 32 and [job.job for job in store.newest(9)] == ["b" * 32]
    assert store.get("a" * 32) is None and store.knows("a" * 32), "its files stay for the version that can read it"
    store.close()


@pytest.mark.parametrize("colored", [True, False])
def test_a_mesh_file_is_read_as_written(ball: Mesh, tmp_path: Path, colored: bool) -> None:
    colors = np.linspace(0, 1, ball.positions.size, dtype=np.float32).reshape(-1, 3) if colored else None
    path = tmp_path / "start.mesh"
    save_mesh_file(path, Mesh(ball.positions, ball.faces, colors))
    read = load_mesh_file(path)
    assert np.array_equal(read.positions, ball.positions) and np.array_equal(read.faces, ball.faces)
    assert np.array_equal(read.colors, colors) if colored else read.colors is None
    assert [file.name for file in tmp_path.iterdir()] == ["start.mesh"]


def test_a_damaged_mesh_file_is_known_as_such(ball: Mesh, tmp_path: Path) -> None:
    path = tmp_path / "start.mesh"
    save_mesh_file(path, ball)
    whole = path.read_bytes()
    broken = [whole[:-1], whole + b"0", whole[:10], b"", b"x" + whole[1:], whole[:-4] + b"\xff\xff\xff\x7f"]
    for content in [*broken, whole[:15] + b"\xff\xff\xff\xff" + whole[19:], whole[:25] + b"\xc1" + whole[26:]]:
        path.write_bytes(content)
        with pytest.raises(DamagedFile, match=r"start\.mesh"):
            load_mesh_file(path)


@pytest.mark.skipif(os.name == "nt", reason="sets a limit that Windows lacks")
def test_a_full_disk_leaves_the_old_file(ball: Mesh, tmp_path: Path) -> None:
    path = tmp_path / "result.mesh"
    save_mesh_file(path, ball)
    program = (
        "import resource, sys; from pathlib import Path; from dataclasses import replace; "
        "from backend.service.job_files import load_mesh_file, save_mesh_file; path = Path(sys.argv[1]); "
        "mesh = load_mesh_file(path); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: save_mesh_file(path, replace(mesh, positions=mesh.positions * 2))\n"
        "except OSError: sys.exit(7)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", program, str(path)], env=environment, timeout=60).returncode == 7
    assert np.array_equal(load_mesh_file(path).positions, ball.positions)
    assert [file.name for file in tmp_path.iterdir()] == ["result.mesh"]
