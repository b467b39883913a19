"""A child process runs one function of ours and ends with its parent."""

import os
import signal
import subprocess
import sys
import time

import pytest

from storage.child_process import ChildProcess, receive
from tests.test_layers import ROOT

PARENT = """
from storage.child_process import ChildProcess
from tests.storage.test_child_process import wait_for_input
child = ChildProcess(wait_for_input)
print(child.pid, flush=True)
input()
"""


def double() -> None:
    import pickle

    number = receive()
    assert isinstance(number, int)
    pickle.dump(2 * number, sys.stdout.buffer)
    sys.stdout.flush()


def wait_for_input() -> None:
    try:
        receive()
    except EOFError:
        sys.exit(3)


def test_a_child_receives_values_and_answers() -> None:
    child = ChildProcess(double, answers=True)
    assert not child.has_answer(0)
    child.send(21)
    assert child.has_answer(None)
    assert child.take() == 42
    assert child.end() == 0


def test_a_child_that_died_has_no_answer() -> None:
    child = ChildProcess(double, answers=True)
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(EOFError):
        child.take()
    assert child.end() == -signal.SIGKILL


def test_a_child_ends_when_its_parent_closes_its_input() -> None:
    child = ChildProcess(wait_for_input)
    assert child.end() == 3


def test_a_child_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        parent.kill()
    until = time.monotonic() + 30
    while is_running(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - a file of the system
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
