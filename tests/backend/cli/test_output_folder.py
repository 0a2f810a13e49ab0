"""Which folder a job gets, and that whatever happens nothing half-written stays in it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from backend.cli import output_folder
from backend.cli.output_folder import begin, default_output, disk_errors_explained, take_up
from backend.errors import InputError


def unfinished(path: Path) -> None:
    folder = begin(path, "galatea generate")
    folder.write("job/job.json", b"{}")
    folder.close()


def finished(path: Path) -> None:
    folder = begin(path, "galatea generate")
    folder.write("job/job.json", b"{}")
    staging = folder.results()
    (staging / "mesh.glb").write_bytes(b"mesh")
    (staging / "report.json").write_bytes(b"{}")
    folder.finish()


@pytest.mark.parametrize(
    ("prompt", "slug"),
    [
        ("a red mushroom, with a White stem!", "a-red-mushroom-with-a-white-stem-7"),
        ("ein grüner Käse", "ein-gruner-kase-7"),
        ("../../etc/passwd", "etc-passwd-7"),
        ("蘑菇", "object-7"),
        ("CON", "con-7"),
    ],
)
def test_default_folder_is_named_after_the_prompt(prompt: str, slug: str) -> None:
    assert default_output(prompt, 7) == Path("output") / slug


def test_long_prompt_is_cut_between_words() -> None:
    name = default_output("mushroom " * 40, 0).name
    assert len(name) <= 62 and set(name.removesuffix("-0").split("-")) == {"mushroom"}


def test_finished_result_is_never_written_over(tmp_path: Path) -> None:
    finished(tmp_path / "out")
    finished(tmp_path / "out")
    finished(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out-2", "out-3"]
    assert not (tmp_path / "out" / "job").exists()


def test_unfinished_job_is_named_with_the_command_that_resumes_it(tmp_path: Path) -> None:
    unfinished(tmp_path / "out")
    with pytest.raises(InputError, match=r"galatea generate --output .*out --resume"):
        begin(tmp_path / "out", "galatea generate")


def test_resume_finds_the_unfinished_one_behind_finished_ones(tmp_path: Path) -> None:
    finished(tmp_path / "out")
    finished(tmp_path / "out")
    unfinished(tmp_path / "out-3")
    folder = take_up(tmp_path / "out")
    assert folder.path == tmp_path / "out-3"
    folder.close()


@pytest.mark.parametrize("state", ["absent", "empty", "finished"])
def test_nothing_to_resume_is_said(tmp_path: Path, state: str) -> None:
    if state == "empty":
        (tmp_path / "out").mkdir()
    if state == "finished":
        finished(tmp_path / "out")
    with pytest.raises(InputError, match="leave out --resume"):
        take_up(tmp_path / "out")


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="other files"):
        begin(tmp_path, "galatea generate")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        begin(tmp_path / "file", "galatea generate")
    with pytest.raises(InputError, match="Cannot write to"):
        begin(tmp_path / "file" / "deeper" / "out", "galatea generate")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that takes no folders")
def test_unwritable_folder_is_one_sentence() -> None:
    with pytest.raises(InputError, match="Cannot write to /proc/galatea"):
        begin(Path("/proc/galatea/out"), "galatea generate")


def test_discard_leaves_the_disk_as_it_was(tmp_path: Path) -> None:
    folder = begin(tmp_path / "a" / "b" / "out", "galatea generate")
    folder.write("job/job.json", b"{}")
    folder.write("preview.png", b"picture")
    folder.discard()
    assert list(tmp_path.iterdir()) == []


def test_discard_keeps_a_folder_that_was_there(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    folder = begin(tmp_path / "out", "galatea generate")
    folder.write("job/job.json", b"{}")
    folder.discard()
    assert list((tmp_path / "out").iterdir()) == []


def test_too_little_space_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_folder, "FREE_BYTES_NEEDED", 10**18)
    with pytest.raises(InputError, match="MB left and a job needs"):
        begin(tmp_path / "out", "galatea generate")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "disk is full"), (errno.EDQUOT, "quota"), (errno.EFBIG, "larger")])
def test_disk_errors_become_sentences(number: int, words: str) -> None:
    with pytest.raises(InputError, match=words), disk_errors_explained(Path("out")):
        raise OSError(number, os.strerror(number))


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(OSError, match="no such process"), disk_errors_explained(Path("out")):
        raise OSError(errno.ESRCH, "no such process")


@pytest.mark.skipif(os.name == "nt", reason="sets a limit that Windows lacks")
def test_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    program = (
        "import resource, sys; from pathlib import Path; from backend.cli.output_folder import begin\n"
        "folder = begin(Path(sys.argv[1]), 'x'); folder.write('preview.png', b'old')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: folder.write('preview.png', b'new' * 10000)\n"
        "except OSError as error: print(error.errno)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(errno.EFBIG)
    assert (tmp_path / "out" / "preview.png").read_bytes() == b"old"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["job", "preview.png"]


def test_two_processes_never_work_on_one_job(tmp_path: Path) -> None:
    folder = begin(tmp_path / "out", "galatea generate")
    folder.write("job/job.json", b"{}")
    program = "import sys; from pathlib import Path; from backend.cli.output_folder import take_up; take_up(Path(sys.argv[1]))"
    command = [sys.executable, "-c", program, str(tmp_path / "out")]
    while_running = subprocess.run(command, capture_output=True, text=True)
    assert "Another process is working" in while_running.stderr
    folder.close()
    assert subprocess.run(command, capture_output=True).returncode == 0


def test_job_killed_while_results_were_moved_is_still_unfinished(tmp_path: Path) -> None:
    unfinished(tmp_path / "out")
    (tmp_path / "out" / "mesh.glb").write_bytes(b"moved already")
    folder = take_up(tmp_path / "out")
    (folder.results() / "mesh.glb").write_bytes(b"again")
    (folder.results_written()[0].parent / "report.json").write_bytes(b"{}")
    folder.finish()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["mesh.glb", "report.json"]
    assert (tmp_path / "out" / "mesh.glb").read_bytes() == b"again"
