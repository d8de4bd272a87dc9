"""No process outlives the stack: not when a part dies, not after a signal at any moment, not after kill -9."""

import os
import pty
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from ryml_airflow.stack.down import down
from ryml_airflow.stack.interruption import InterruptedBySignalError, Interruption
from ryml_airflow.stack.processes import MARKER, fingerprint, members
from ryml_airflow.stack.stack_file import (
    RecordedProcess,
    StackRecord,
    read_record,
    record_path,
    stack_lock,
    write_record,
)

REPOSITORY = Path(__file__).resolve().parents[2]
LAUNCHER = Path(__file__).with_name("tiny_launcher.py")
# Per service: the shell, its child, the session of its own, the one that ignores SIGTERM and what that sleeps in.
FAMILY_SIZE = 4

Launch = Callable[..., subprocess.Popen[str]]


@pytest.fixture(autouse=True)
def _hangups_are_heard() -> Iterator[None]:
    """Under nohup a hangup is ignored here and in every child, which is right for a stack and no test of it."""
    previous = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, previous)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Starts tiny launchers, each with its own root; ends whatever they leave, so that one failure stays one."""
    roots: list[Path] = []
    launchers: list[subprocess.Popen[str]] = []

    def start(scenario: str, name: str = "root") -> subprocess.Popen[str]:
        root = tmp_path / name
        root.mkdir(exist_ok=True)
        roots.append(root)
        launcher = subprocess.Popen(
            [sys.executable, str(LAUNCHER), str(root), scenario],
            env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'plugins'}"},
            stdout=subprocess.PIPE,
            text=True,
        )
        launchers.append(launcher)
        return launcher

    yield start
    for launcher in launchers:
        launcher.kill()
        launcher.communicate()
    for root in roots:
        for pid in members(root, []):
            with suppress(ProcessLookupError):  # gone by itself meanwhile
                os.kill(pid, signal.SIGKILL)


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def launched_and_ready(launch: Launch, root: Path) -> subprocess.Popen[str]:
    launcher = launch("stays", root.name)
    wait_for(lambda: (root / "ready").exists() and len(members(root, [])) >= 3 * FAMILY_SIZE)
    return launcher


def test_a_stack_that_ends_by_itself_leaves_nothing(launch: Launch, tmp_path: Path) -> None:
    launcher = launch("ends")
    assert launcher.wait(20) == 0
    assert (tmp_path / "root" / "started-2").exists()
    assert members(tmp_path / "root", []) == []
    assert not record_path(tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [("dies", ["mortal ended with status 9", "last words"]), ("fails", ["failing ended with status 3", "no good"])],
)
def test_when_a_part_dies_it_is_named_and_the_rest_ends(
    launch: Launch, tmp_path: Path, scenario: str, expected: list[str]
) -> None:
    launcher = launch(scenario)
    output, _ = launcher.communicate(timeout=20)
    assert launcher.returncode == 1
    assert all(text in output for text in expected)
    assert members(tmp_path / "root", []) == []


def test_a_signal_at_any_moment_leaves_nothing(launch: Launch, tmp_path: Path) -> None:
    """Sixteen launchers at once, each stopped at a moment of its own; some of them twice, as by an impatient hand.

    Half of the moments are random, from the first line on; half are just after a part was started, so that they hit on
    a busy machine too.
    """
    generator = random.Random(4)
    waiting, reached_at = [], {}
    for number in range(16):
        root = tmp_path / f"root-{number}"
        numbers = [generator.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP])]
        numbers += [signal.SIGINT] * (number % 3 == 0)
        milestone, seconds = generator.choice(["started-0", "started-1", "started-2", "ready"]), 0.0
        if number % 2 == 0:
            milestone, seconds = "begun", generator.uniform(0, 1.5)
        waiting.append((launch("stays", root.name), root, numbers, root / milestone, seconds))
    launchers = tuple(waiting)
    while waiting:
        for entry in tuple(waiting):
            launcher, root, numbers, milestone, seconds = entry
            if milestone.exists() and time.monotonic() >= reached_at.setdefault(root, time.monotonic()) + seconds:
                waiting.remove(entry)
                for sent in numbers:
                    launcher.send_signal(sent)
                    time.sleep(0.01)
        time.sleep(0.005)
    with_children = 0
    for launcher, root, numbers, *_ in launchers:
        status = launcher.wait(60)
        # Negative: died of it before there were handlers. Two that are pending together are handled in any order.
        assert status in {sign * sent + base for sent in numbers for sign, base in ((1, 128), (-1, 0))}, (root, status)
        assert members(root, []) == [], root
        if (root / "started-0").exists():
            with_children += 1
            assert not record_path(root).exists()
    assert with_children >= 8


def test_a_signal_while_stopping_does_not_stop_the_stopping(launch: Launch, tmp_path: Path) -> None:
    """The stack ends by itself, which takes the grace of 3 s because some ignore SIGTERM; the signal comes within."""
    launcher = launch("ends slowly")
    wait_for(lambda: (tmp_path / "root" / "ready").exists())
    time.sleep(0.2)
    launcher.terminate()
    assert launcher.wait(20) == 128 + signal.SIGTERM
    assert members(tmp_path / "root", []) == []
    assert not record_path(tmp_path / "root").exists()


def test_a_signal_is_raised_once_and_never_within_a_shield() -> None:
    before = signal.getsignal(signal.SIGINT)  # Python's own, or Spark's where its tests ran first
    interruption, passed = Interruption(), []
    with interruption.installed():
        with pytest.raises(InterruptedBySignalError, match="SIGHUP"), interruption.shield():
            passed.append(os.kill(os.getpid(), signal.SIGHUP))
        assert passed == [None]
        assert not interruption.is_impatient
        os.kill(os.getpid(), signal.SIGINT)
        interruption.raise_if_signalled()
        assert interruption.is_impatient
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_that_the_caller_ignores_stays_ignored() -> None:
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with Interruption().installed():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_a_closed_terminal_ends_the_stack_even_if_nobody_passes_the_signal_on(tmp_path: Path) -> None:
    """As under `ssh -t host make run`: the session is make's, which waits for its child before it heeds the signal."""
    command = f"trap : HUP; {sys.executable} {LAUNCHER} {tmp_path} stays; true"
    paths = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'plugins'}"}
    session, terminal = pty.fork()
    if session == 0:
        os.execvpe("bash", ["bash", "-c", command], {**os.environ, **paths})  # noqa: S606
    try:
        wait_for(lambda: (tmp_path / "ready").exists())
        assert len(members(tmp_path, [])) >= 3
        os.close(terminal)
        wait_for(lambda: not record_path(tmp_path).exists() and members(tmp_path, []) == [])
    finally:
        for pid in members(tmp_path, []):
            os.kill(pid, signal.SIGKILL)
        os.kill(session, signal.SIGKILL)
        os.waitpid(session, 0)


def test_stop_from_another_terminal(launch: Launch, tmp_path: Path) -> None:
    launcher = launched_and_ready(launch, tmp_path / "root")
    assert down(tmp_path / "root") == "Stopped."
    assert launcher.wait(5) == 128 + signal.SIGTERM
    assert members(tmp_path / "root", []) == []


def test_stop_after_the_launcher_was_killed(launch: Launch, tmp_path: Path) -> None:
    root = tmp_path / "root"
    launcher = launched_and_ready(launch, root)
    left = set(members(root, [])) - {launcher.pid}
    launcher.kill()
    launcher.wait()
    assert len(left) >= 3 * FAMILY_SIZE
    assert all(fingerprint(pid) for pid in left if psutil.pid_exists(pid))
    assert "had lost their launcher" in down(root, grace_seconds=0.5)
    assert members(root, []) == []
    assert not record_path(root).exists()
    assert down(root) == "Nothing was running."


def test_stop_without_a_record_finds_processes_by_their_marker(launch: Launch, tmp_path: Path) -> None:
    root = tmp_path / "root"
    launcher = launched_and_ready(launch, root)
    launcher.kill()
    launcher.wait()
    record_path(root).write_text('{"url": "http://127.')
    assert "had lost their launcher" in down(root, grace_seconds=0.5)
    assert members(root, []) == []


@pytest.mark.parametrize("is_recycled", [True, False])
def test_a_recycled_pid_is_never_killed(tmp_path: Path, is_recycled: bool) -> None:
    """The record names a pid that now is somebody else's; with the true fingerprint the same process is ended."""
    (tmp_path / ".airflow").mkdir()
    with subprocess.Popen(["sleep", "1000"]) as bystander:
        true = fingerprint(bystander.pid)
        assert true is not None
        other = str(int(true.rpartition("/")[2]) - 1) if "/" in true else "0.00"
        written = f"{true.rpartition('/')[0]}/{other}" if is_recycled else true
        processes = tuple(RecordedProcess(name, bystander.pid, written) for name in ("launcher", "scheduler"))
        write_record(tmp_path, StackRecord("http://127.0.0.1:1", processes))
        if is_recycled:
            assert down(tmp_path) == "Nothing was running."
            assert bystander.poll() is None
            bystander.kill()
        else:
            down(tmp_path)
            assert bystander.wait(5) == -signal.SIGTERM


def test_a_process_of_another_checkout_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"], env={**os.environ, MARKER: str(tmp_path / "other")}) as bystander:
        wait_for(lambda: members(tmp_path / "other", []) == [bystander.pid])
        assert members(tmp_path, []) == []
        assert down(tmp_path) == "Nothing was running."
        assert bystander.poll() is None
        bystander.kill()


def test_only_one_launcher_at_a_time(launch: Launch, tmp_path: Path) -> None:
    root = tmp_path / "root"
    first = launched_and_ready(launch, root)
    assert launch("stays").wait(10) == 77
    record = read_record(root)
    assert record is not None
    assert record.launcher is not None
    assert record.launcher.pid == first.pid
    assert record.launcher.is_running
    first.kill()
    first.wait()
    with stack_lock(root) as is_held:  # children of the killed launcher live on, but do not hold its lock
        assert members(root, []) != []
        assert is_held
