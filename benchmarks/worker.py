"""The measured process: prepares one computation, then runs it once for every line it is sent.

The parent writes ``run`` or ``save FILE`` to standard input, and reads one JSON object per line.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


def use_cores(count: int) -> None:
    """Keep this process, and the threads it will start, to its first ``count`` cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def serve(
    prepare: Callable[[], tuple[Callable[[], Any], dict[str, float]]],
    arrays: Callable[[Any], Arrays],
) -> None:
    """Answer the parent until it closes standard input.

    Args:
        prepare: Builds or compiles the computation; returns it (it must block until it is done) and
            what the preparation cost.
        arrays: Turns a result into the arrays to compare, by name.
    """
    replies = os.dup(1)
    os.dup2(2, 1)  # What a library prints must not mix with the replies.
    base = peak_mib()
    run, costs = prepare()
    result = run()
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
            np.savez(path[0].strip(), allow_pickle=False, **arrays(result))
            _reply(replies, peak_mib=peak_mib())


def _reply(descriptor: int, **values: float) -> None:
    os.write(descriptor, (json.dumps(values) + "\n").encode())


def peak_mib() -> float:
    """The largest resident set of this process so far."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
