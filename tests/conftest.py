"""All tests run in double precision, and warnings are errors."""

import os

import compiling
import costs
import hypothesis
import jax
import pytest

jax.config.update("jax_enable_x64", True)

hypothesis.settings.register_profile("default", deadline=None, max_examples=5)
hypothesis.settings.register_profile(
    "ci", deadline=None, max_examples=5, derandomize=True, print_blob=True
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_addoption(parser: pytest.Parser) -> None:
    help = "fail if the tests compile more programs than this"
    parser.addoption("--most-compilations", type=int, default=None, help=help)


def pytest_configure(config: pytest.Config) -> None:
    """Compiles quickly, and shares what is compiled between processes and with the next run."""
    compiling.configure(config.cache.mkdir("compiled"))
    config.pluginmanager.register(costs.Costs(config.getoption("most_compilations")), "costs")
