"""`python -m tests.mutations`: puts defects into copies of the package, and sees tests find them.

The exit status is 1 if a mutation survives its tests, or if they could not be run to an end.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import functools
import pathlib
import sys
import tempfile
import time

# The modules of the tests are found as pytest finds them.
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from mutations.catalogue import MUTATIONS
from mutations.mutation import ROOT, Mutation, Outcome, tried


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[m.name for m in MUTATIONS])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, help="after which no further one is begun")
    parser.add_argument("--marks", default="not long", help="of the tests that count")
    parser.add_argument(
        "--tests", type=pathlib.Path, default=ROOT, help="another checkout, for its tests"
    )
    options = parser.parse_args()
    chosen = [m for m in MUTATIONS if not options.only or m.name in options.only]
    end = time.monotonic() + options.seconds if options.seconds else float("inf")
    counts: collections.Counter[str] = collections.Counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        concurrent.futures.ThreadPoolExecutor(options.jobs) as pool,
    ):
        work = functools.partial(
            tried, cache=pathlib.Path(folder), tests=options.tests.resolve(), marks=options.marks
        )

        def timely(mutation: Mutation) -> Outcome:
            late = time.monotonic() > end
            return Outcome(mutation, "not tried", "") if late else work(mutation)

        for found in pool.map(timely, chosen):
            counts[found.verdict] += 1
            print(f"{found.verdict:9} {found.mutation.name}: {found.detail}", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())))
    return int(counts["survived"] + counts["unclear"] > 0)


if __name__ == "__main__":
    sys.exit(main())
