"""`python -m tests.fuzz --programs 10000`: bounds many random programs, and stops at none."""

from __future__ import annotations

import argparse
import collections
import functools
import multiprocessing
import pathlib
import sys

# The modules of the tests are found as pytest finds them.
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

# Programs that a process reports at once.
_BATCH = 5
# Reports after which a process ends: compiled operations take gigabytes in sum.
_REPORTS = 60


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first program")
    width = parser.add_mutually_exclusive_group()
    width.add_argument("--float32", dest="dtype", action="store_const", const="float32")
    width.add_argument("--float64", dest="dtype", action="store_const", const="float64")
    parser.add_argument("--jobs", type=int, default=1)
    parser.set_defaults(dtype="float64")
    options = parser.parse_args()
    from tqdm import tqdm

    from fuzz.campaign import batch, configure
    from fuzz.check import wanted

    verdicts: collections.Counter[str] = collections.Counter()
    # Programs of one operation share much of what is compiled: one after the other.
    seeds = sorted(range(options.seed, options.seed + options.programs), key=wanted)
    batches = [seeds[a : a + _BATCH] for a in range(0, len(seeds), _BATCH)]
    work = functools.partial(batch, dtype=options.dtype)
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.jobs, configure, maxtasksperchild=_REPORTS) as pool:
        bar = tqdm(total=options.programs, unit="program")
        for outcomes in pool.imap_unordered(work, batches):
            for outcome in outcomes:
                verdicts[outcome.verdict] += 1
                bar.update()
                if outcome.verdict in ("wrong", "refused"):
                    bar.write(f"\n{outcome.verdict}: {outcome.report}\n")
            bar.set_postfix(verdicts)
        bar.close()
    print(", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())))
    return int(verdicts["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
