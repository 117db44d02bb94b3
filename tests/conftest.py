"""All tests run in double precision, and warnings are errors."""

import gc
import itertools
import os
from collections.abc import Iterator

import compiling
import costs
import hypothesis
import jax
import pytest

jax.config.update("jax_enable_x64", True)

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


def pytest_configure(config: pytest.Config) -> None:
    """Compiles quickly, and shares what is compiled between processes and with the next run."""
    compiling.configure(config.cache.mkdir("compiled"))
    config.pluginmanager.register(costs.Costs(config.getoption("most_compilations")), "costs")
