"""The service as a child process: a real process that plays `galatea.py`, started, found again, and ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.blender.extension_parts import part

service_process = part("service_process")
processes = part("processes")
ServiceProcess, ServiceError = service_process.ServiceProcess, service_process.ServiceError

# Installs for a moment, then "is" the service: writes the connection file as the real one does, and waits for a sign to end.
LAUNCHER = """
import json, os, signal, sys, time
from pathlib import Path

folder = Path(sys.argv[sys.argv.index("--folder") + 1])
(folder / "seen.json").write_text(json.dumps({"arguments": sys.argv[1:], "environment": dict(os.environ), "cwd": os.getcwd()}))
print("setting up .venv: about 550 MB to download")
if (folder / "fail").exists():
    print("galatea: No space left on device; free some space and run this again.")
    sys.exit(2)
if (folder / "stubborn").exists():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
while (folder / "slow").exists():
    time.sleep(0.02)
connection = {"protocol": 2, "service": "0.1.0", "instance": "0" * 32, "pid": os.getpid(), "control_port": 1, "bulk_port": 2}
descriptor = os.open(folder / "connection.json", os.O_WRONLY | os.O_CREAT, 0o600)
os.write(descriptor, json.dumps({**connection, "token": "0" * 64}).encode())
os.close(descriptor)
print("listening")
while not (folder / "end").exists():
    time.sleep(0.02)
(folder / "connection.json").unlink()
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "a checkout"
    folder.mkdir()
    (folder / "galatea.py").write_text(LAUNCHER)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "the service"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def process(folder: Path) -> Iterator[ServiceProcess]:
    made = ServiceProcess(folder)
    yield made
    kill_all(folder)
    if made._child is not None:
        made._child.wait(10)


def kill_all(folder: Path) -> None:
    with contextlib.suppress(OSError, ValueError, KeyError):
        os.kill(json.loads((folder / "start.json").read_text())["pid"], signal.SIGKILL)


def wait_for(state: str, process: ServiceProcess, seconds: float = 20.0):
    return wait_until(lambda: (found := process.state()).kind == state and found, f"{state}, not {process.state()}", seconds)


def wait_until(condition: Callable[[], object], what: str, seconds: float = 20.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return found


def test_from_start_to_stop(process: ServiceProcess, checkout: Path, folder: Path) -> None:
    assert process.state().kind == "stopped"
    (folder / "slow").touch()
    process.start(checkout)
    starting = wait_until(lambda: (found := process.state()).text and found, "the launcher says something")
    assert (starting.kind, starting.text) == ("starting", "setting up .venv: about 550 MB to download")
    process.start(checkout)
    assert process.state().pid == starting.pid, "a second start does nothing"

    (folder / "slow").unlink()
    assert wait_for("running", process).pid == starting.pid
    assert (folder / "start.log").stat().st_mode & 0o077 == 0
    process.stop(lambda: (folder / "end").touch())
    wait_for("stopped", process)
    assert not (folder / "start.json").exists()


def test_it_gets_a_clean_environment(
    process: ServiceProcess, checkout: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strays = {"PYTHONPATH": "x", "PYTHONHOME": "x", "BLENDER_USER_RESOURCES": "x", "VIRTUAL_ENV": "x"}
    for name, value in strays.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GALATEA_TEST", "kept")
    monkeypatch.setattr(service_process, "find_python", lambda checkout: Path(sys.executable))
    process.start(checkout)
    wait_for("running", process)
    seen = json.loads((folder / "seen.json").read_text())
    assert seen["arguments"] == ["serve", "--folder", str(folder)]
    assert not set(strays) & set(seen["environment"]) and seen["environment"]["GALATEA_TEST"] == "kept"
    assert Path(seen["cwd"]) == checkout


def test_it_is_in_a_process_group_of_its_own(process: ServiceProcess, checkout: Path) -> None:
    """Ctrl-C or a hang-up of Blender's terminal must not reach it."""
    process.start(checkout)
    pid = wait_for("running", process).pid
    assert os.getpgid(pid) == pid != os.getpgid(0) and os.getsid(pid) == pid


def test_another_blender_finds_it_again_and_can_end_it(process: ServiceProcess, checkout: Path, folder: Path) -> None:
    (folder / "slow").touch()
    process.start(checkout)
    wait_until(lambda: process.state().text, "the launcher says something")
    later = ServiceProcess(folder)
    assert later.state() == process.state(), "while it starts"
    (folder / "slow").unlink()
    pid = wait_for("running", later).pid
    assert pid == process.state().pid
    later.stop(None)  # not connected: nobody to ask
    wait_for("stopped", later)
    assert not processes.is_alive(pid)
    assert process.state().kind == "died", "the one that started it was not told"


def test_a_failed_start_says_why(process: ServiceProcess, checkout: Path, folder: Path) -> None:
    (folder / "fail").touch()
    process.start(checkout)
    died = wait_for("died", process)
    assert died.text.endswith("galatea: No space left on device; free some space and run this again.")
    (folder / "fail").unlink()
    process.start(checkout)
    wait_for("running", process)


def test_a_killed_service_has_died_and_can_be_started_again(process: ServiceProcess, checkout: Path, folder: Path) -> None:
    process.start(checkout)
    pid = wait_for("running", process).pid
    os.kill(pid, signal.SIGKILL)
    assert "listening" in wait_for("died", process).text
    assert ServiceProcess(folder).state().kind == "died", "another Blender sees that too: the connection file is still there"
    process.start(checkout)
    assert wait_until(lambda: process.state().kind == "running" and process.state().pid, "again") != pid


def test_one_that_does_not_end_is_ended_after_a_while(process: ServiceProcess, checkout: Path, folder: Path) -> None:
    (folder / "stubborn").touch()
    now = [0.0]
    process._clock = lambda: now[0]
    process.start(checkout)
    pid = wait_for("running", process).pid
    process.stop(lambda: None)
    assert process.state().kind == "stopping" and processes.is_alive(pid)
    now[0] = service_process.PATIENCE + 0.1
    assert process.state().kind == "stopping" and processes.is_alive(pid), "asked politely, and stubborn"
    now[0] = 2 * service_process.PATIENCE + 0.2
    wait_for("stopped", process)


@contextlib.contextmanager
def stranger_named_by(folder: Path, *arguments: str) -> Iterator[subprocess.Popen]:
    """A process of another program with the number that the connection file tells of, as after a crash and a restart."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", *arguments]) as stranger:
        connection = json.loads((folder / "connection.json").read_text()) | {"pid": stranger.pid}
        (folder / "connection.json").write_text(json.dumps(connection))
        wait_until(lambda: processes.command_line(stranger.pid), "it has begun")
        try:
            yield stranger
        finally:
            stranger.kill()


def crash(process: ServiceProcess) -> None:
    os.kill(wait_for("running", process).pid, signal.SIGKILL)
    wait_for("died", process)


def test_a_stranger_is_never_taken_for_the_service(folder: Path, process: ServiceProcess, checkout: Path) -> None:
    process.start(checkout)
    crash(process)
    with stranger_named_by(folder) as stranger:
        later = ServiceProcess(folder)
        assert later.state().kind == "died"
        later.stop(None)
        assert later.state().kind == "stopped" and stranger.poll() is None
        process.start(checkout)
        assert wait_for("running", process).pid != stranger.pid


def test_a_service_of_another_folder_is_not_ended(folder: Path, process: ServiceProcess, checkout: Path) -> None:
    process.start(checkout)
    crash(process)
    with stranger_named_by(folder, "galatea.py", "serve", "--folder", "/elsewhere") as stranger:
        later = ServiceProcess(folder)
        assert later.state().kind == "running", "as far as can be seen"
        later.stop(None)
        answer = later.state()
        assert answer.kind == "running" and str(stranger.pid) in answer.text and stranger.poll() is None
        process.start(checkout)
        wait_until(lambda: process.state().pid not in (None, stranger.pid), "a new one can be started nevertheless")


def test_an_ended_process_that_nobody_asked_about_is_not_alive() -> None:
    """As the children of a parent that neither waits nor ends."""
    code = "import subprocess, time; child = subprocess.Popen(['true']); print(child.pid, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        try:
            pid = int(parent.stdout.readline())
            wait_until(lambda: not processes.is_alive(pid), "the child has ended")
            os.kill(pid, 0)  # and is in the table all the same
        finally:
            parent.kill()


def test_a_folder_without_galatea_is_refused(process: ServiceProcess, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"holds no galatea.py: .*choose the folder"):
        process.start(tmp_path)
    assert process.state().kind == "stopped"


def test_a_python_is_tried_before_it_is_used(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def python(path: Path, answer: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{answer}\n")
        path.chmod(0o755)
        return path

    binaries = tmp_path / "bin"
    monkeypatch.setenv("PATH", str(binaries))
    python(binaries / "python3.13", "/bin/echo no such version here >&2; exit 127")
    python(binaries / "python3.12", "/bin/echo 3 9")
    good = python(binaries / "python3.11", "/bin/echo 3 11")
    assert service_process.find_python(checkout) == good

    own = python(checkout / ".venv" / "bin" / "python", "/bin/echo 3 12")
    assert service_process.find_python(checkout) == own
    python(own, "exit 1")
    assert service_process.find_python(checkout) == good, "a broken environment is the launcher's to mend"

    good.unlink()
    monkeypatch.setattr(sys, "executable", str(python(tmp_path / "blender-python", "/bin/echo 3 14")))
    with pytest.raises(ServiceError, match="3.11, 3.12 or 3.13"):
        service_process.find_python(checkout)


def test_the_log_to_open_is_the_newest(process: ServiceProcess, folder: Path) -> None:
    assert process.log_file() is None
    (folder / "log.txt").write_text("old")
    os.utime(folder / "log.txt", (1, 1))
    assert process.log_file() == folder / "log.txt"
    (folder / "start.log").write_text("new")
    assert process.log_file() == folder / "start.log"


def test_the_last_lines_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert service_process.last_lines(log, 1) == ""
    log.write_bytes(b"x" * 10_000 + b"\nfirst\n\n  second \r  12 of 550 MB\r  13 of 550 MB\n\xff\n\n")
    assert service_process.last_lines(log, 3) == "12 of 550 MB\n13 of 550 MB\n\ufffd"
