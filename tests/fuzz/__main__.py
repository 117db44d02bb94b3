"""`python -m tests.fuzz --seconds 7200`: bounds many random programs, and stops at none."""

from __future__ import annotations

import argparse
import collections
import datetime
import functools
import itertools
import multiprocessing
import pathlib
import sys
import threading
from collections.abc import Iterator

# The modules of the tests are found as pytest finds them.
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

# Seeds after which a process ends, and gives back what it has collected.
_SEEDS = 100
# What a day has at least for itself.
_A_DAY = 10**5


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, help="of processor, for each job, at least")
    parser.add_argument("--programs", type=int, help="of each precision, at least (1000)")
    parser.add_argument("--seed", type=int, help="of the first program (that of today)")
    width = parser.add_mutually_exclusive_group()
    width.add_argument("--float32", dest="dtypes", action="store_const", const=("float32",))
    width.add_argument("--float64", dest="dtypes", action="store_const", const=("float64",))
    parser.add_argument("--jobs", type=int, default=1)
    today = int(f"{datetime.date.today():%y%m%d}") * _A_DAY
    parser.set_defaults(dtypes=("float32", "float64"), seed=today)
    options = parser.parse_args()
    seconds = options.jobs * (options.seconds or 0)
    programs = (0 if seconds else 1000) if options.programs is None else options.programs
    from tqdm import tqdm

    from fuzz.campaign import check, configure

    verdicts: collections.Counter[str] = collections.Counter()
    spent, last = 0.0, options.seed
    ahead = threading.Semaphore(2 * options.jobs)

    def seeds() -> Iterator[int]:
        for seed in itertools.count(options.seed):
            ahead.acquire()
            if seed - options.seed >= programs and spent >= seconds:
                return
            yield seed

    work = functools.partial(check, dtypes=options.dtypes)
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.jobs, configure, maxtasksperchild=_SEEDS) as pool:
        bar = tqdm(unit="program")
        for outcomes, own in pool.imap_unordered(work, seeds()):
            ahead.release()
            spent += own
            for outcome in outcomes:
                last = max(last, outcome.seed)
                verdicts[outcome.verdict] += 1
                bar.update()
                if outcome.verdict in ("wrong", "refused"):
                    bar.write(f"\n{outcome.verdict}: {outcome.report}\n")
            bar.set_postfix(verdicts)
        bar.close()
    counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    print(f"seeds {options.seed} to {last} in {spent:.0f} s of processor: {counts}")
    return int(verdicts["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
