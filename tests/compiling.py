"""How tests compile: much, to run it once or twice."""

from __future__ import annotations

import pathlib

import jax


def configure(cache: pathlib.Path) -> None:
    """Compiles in as little time as it can take.

    Args:
        cache: the folder in which processes share what is compiled, and with the next run.
    """
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
