"""All tests run in double precision, and warnings are errors."""

import collections
import gc
import itertools
import os
from collections.abc import Iterator

import compiling
import costs
import hypothesis
import jax
import pytest
from arithmetic import eager
from mutations.catalogue import MUTATIONS

jax.config.update("jax_enable_x64", True)
eager.install()

# Traces are many small objects that live on: to look for garbage among them takes a third of the
# time.
gc.set_threshold(100_000, 20, 50)

hypothesis.settings.register_profile("default", deadline=None, max_examples=5)
hypothesis.settings.register_profile(
    "ci", deadline=None, max_examples=5, derandomize=True, print_blob=True
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


_finished = itertools.count(1)


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """Forgets now and then what JAX keeps of traces, which in sum take gigabytes."""
    yield
    if next(_finished) % 40 == 0:
        jax.clear_caches()
        gc.collect()


def pytest_addoption(parser: pytest.Parser) -> None:
    help = "fail if the tests compile more programs than this"
    parser.addoption("--most-compilations", type=int, default=None, help=help)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the cases of a test that is marked `few(n, slow=m)`, n run by default and m slow ones.

    The others are long. Those that run are as far apart as the list of cases allows, so that they
    are of all kinds. Those that a mutation names run besides: each defect of the list is found by
    default, or by a slow test.
    """
    named = {f"tests/{test}" for mutation in MUTATIONS for test in mutation.tests}
    groups: dict[tuple[str, int], list[pytest.Item]] = collections.defaultdict(list)
    for item in items:
        few = item.get_closest_marker("few")
        if few is None or item.get_closest_marker("long"):
            continue
        slow = item.get_closest_marker("slow") is not None
        count = few.kwargs.get("slow") if slow else next(iter(few.args), None)
        if count is not None:
            groups[f"{item.nodeid.partition('[')[0]} {slow}", count].append(item)
    for (_, count), group in groups.items():
        kept = {k * len(group) // count for k in range(count)}
        for k, item in enumerate(group):
            if k not in kept and item.nodeid not in named:
                item.add_marker("long")


def pytest_configure(config: pytest.Config) -> None:
    """Compiles quickly, and shares what is compiled between processes and with the next run."""
    compiling.configure(config.cache.mkdir("compiled"))
    config.pluginmanager.register(costs.Costs(config.getoption("most_compilations")), "costs")
