"""All tests run in double precision, and warnings are errors."""

import os

import hypothesis
import jax
import pytest

jax.config.update("jax_enable_x64", True)
# Tests compile much and run little.
jax.config.update("jax_disable_most_optimizations", True)

hypothesis.settings.register_profile("default", deadline=None, max_examples=5)
hypothesis.settings.register_profile(
    "ci", deadline=None, max_examples=10, derandomize=True, print_blob=True
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_configure(config: pytest.Config) -> None:
    """Shares what is compiled between processes, and with the next run."""
    jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
