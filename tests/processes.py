"""Programs that run on devices of their own, in processes of their own."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

SECONDS = 300


def started(program: Path, *arguments: str) -> subprocess.Popen[str]:
    """The program in a process of its own, in the folder that the tests are in."""
    command = [sys.executable, str(program), *arguments]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, text=True, cwd=Path(__file__).parents[1], **pipe)


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
