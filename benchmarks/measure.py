"""Starts one fresh process per contender and takes their times in turns."""

import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
Name = TypeVar("Name")

ENOUGH = 3  # rounds, after which none is begun later than PATIENCE seconds after the first.
PATIENCE = 60.0


@dataclass
class Measurement:
    """What one contender needed for one workload, or why there is nothing to say.

    Attributes:
        seconds: of every run, by the clock.
        cpu_seconds: of every run, of all processors together.
        trace: seconds to trace a function, or to build a bounded module.
        compile: seconds to compile it.
        base_mib: what the process held before that, the libraries.
        run_mib: the most that it held while it ran.
        peak_mib: the most that it ever held, while it compiled say.
        buffers_mib: XLA's own account of the temporary buffers of a run.
        arrays: what was computed.
        error: the last words of a contender that failed.
    """

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    trace: float = 0.0
    compile: float = 0.0
    base_mib: float = 0.0
    run_mib: float = 0.0
    peak_mib: float = 0.0
    buffers_mib: float | None = None
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    error: str = ""

    @property
    def median(self) -> float:
        """The median time of a run in seconds."""
        return statistics.median(self.seconds)

    def summary(self) -> dict[str, Any]:
        """Everything but the arrays, for the JSON file."""
        fields = {k: v for k, v in vars(self).items() if k != "arrays"}
        if not self.seconds:
            return fields
        return {**fields, "median": self.median, "best": min(self.seconds)}


class Worker:
    """A contender's process; a context manager that ends it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def send(self, line: str) -> None:
        """One command to the process."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def reply(self) -> dict[str, float]:
        """The next reply; ``RuntimeError`` that says how the process ended instead."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        if code < 0:
            raise RuntimeError(f"killed by {signal.Signals(-code).name}")
        self._log.seek(0)
        words = self._log.read().strip().splitlines()
        raise RuntimeError(words[-1] if words else f"exit status {code}")

    def ask(self, line: str) -> dict[str, float]:
        """Send and wait for the reply."""
        self.send(line)
        return self.reply()


def measure(
    commands: Mapping[Name, Sequence[str]], environment: Mapping[str, str], repeats: int
) -> dict[Name, Measurement]:
    """Prepare the contenders one after another, then let them run in turns.

    A contender that fails keeps its error; the others go on. Without repeats they only prepare.
    """
    results = {name: Measurement() for name in commands}
    with ExitStack() as stack:
        workers = {}
        for name, command in commands.items():
            workers[name] = stack.enter_context(Worker(command, environment))
            _attempt(results[name], _prepare, workers[name])
        begun = time.monotonic()
        for done in range(repeats):
            if done >= ENOUGH and time.monotonic() - begun > PATIENCE:
                break
            for name, worker in workers.items():
                _attempt(results[name], _run, worker)
        for name, worker in workers.items():
            if results[name].seconds:
                _attempt(results[name], _finish, worker)
    return results


def _attempt(
    result: Measurement, step: Callable[[Measurement, Worker], None], worker: Worker
) -> None:
    if result.error:
        return
    try:
        step(result, worker)
    except (RuntimeError, BrokenPipeError) as error:
        result.error = str(error) or type(error).__name__


def _prepare(result: Measurement, worker: Worker) -> None:
    for name, value in worker.reply().items():
        setattr(result, name, value)


def _run(result: Measurement, worker: Worker) -> None:
    for name, value in worker.ask("run").items():
        getattr(result, name).append(value)


def _finish(result: Measurement, worker: Worker) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "arrays.npz"
        for name, value in worker.ask(f"save {path}").items():
            setattr(result, name, value)
        with np.load(path) as stored:
            result.arrays = dict(stored)
