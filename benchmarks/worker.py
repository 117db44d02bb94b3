"""The measured process: prepares one computation, then runs it once for every line it is sent.

The parent writes ``run`` or ``save FILE`` to standard input, and reads one JSON object per line.
"""

import ctypes
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
Costs = dict[str, float]

MIB = 2**20


def use_cores(count: int) -> None:
    """Keep this process, and the threads it will start, to its first ``count`` cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def serve(
    prepare: Callable[[], tuple[Callable[[], Any] | None, Costs]],
    arrays: Callable[[Any], Arrays],
) -> None:
    """Answer the parent until it closes standard input.

    Args:
        prepare: Builds or compiles the computation; returns it (it must block until it is done), or
            None where it is not to be run, and what the preparation cost.
        arrays: Turns a result into the arrays to compare, by name.
    """
    replies = os.dup(1)
    os.dup2(2, 1)  # What a library prints must not mix with the replies.
    base = resident_mib()
    run, costs = prepare()
    if run is None:
        _reply(replies, **costs, base_mib=base, peak_mib=peak_mib())
        return
    result = run()
    prepared = peak_mib()
    restart_peak()
    _reply(replies, **costs, base_mib=base)
    for line in sys.stdin:
        command, *path = line.split(maxsplit=1)
        if command == "run":
            result = None
            cpu, start = time.process_time(), time.perf_counter()
            result = run()
            seconds = time.perf_counter() - start
            _reply(replies, seconds=seconds, cpu_seconds=time.process_time() - cpu)
        else:
            running = peak_mib()
            np.savez(path[0].strip(), allow_pickle=False, **arrays(result))
            _reply(replies, run_mib=running, peak_mib=max(prepared, running))


def _reply(descriptor: int, **values: float) -> None:
    os.write(descriptor, (json.dumps(values) + "\n").encode())


def resident_mib() -> float:
    """The resident set of this process now, or the largest so far where that cannot be told."""
    return _status("VmRSS:") or peak_mib()


def peak_mib() -> float:
    """The largest resident set of this process since `restart_peak`, or so far."""
    unit = MIB if sys.platform == "darwin" else 2**10
    return _status("VmHWM:") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB


def restart_peak() -> None:
    """Give back what is free, and forget the largest resident set; on Linux only."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        pass


def _status(key: str) -> float | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(x.split()[1]) / 1024 for x in lines if x.startswith(key)), None)
