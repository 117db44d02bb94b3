"""Bounds of a batch, or of the rows of one example, on many devices and in two processes."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("sharded.py")
SECONDS = 300


def started(*arguments: str) -> subprocess.Popen[str]:
    """The program in a process of its own."""
    command = [sys.executable, str(PROGRAM), *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=PROGRAM.parents[1]
    )


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def check(processes: list[subprocess.Popen[str]]) -> None:
    """All of them end well."""
    try:
        outputs = [process.communicate(timeout=SECONDS)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0 and "equal" in output, output[-4000:]


def test_eight_devices_share_the_work() -> None:
    check([started()])


def test_two_processes_share_the_work() -> None:
    address = f"127.0.0.1:{free_port()}"
    check([started(address, str(number)) for number in range(2)])
