"""How tests compile: much, to run it once or twice."""

from __future__ import annotations

import os
import pathlib

import jax
import jaxlib


def configure(cache: pathlib.Path) -> None:
    """Compiles in as little time as it can take. To be called before the first array is made.

    Args:
        cache: the folder in which processes share what is compiled, and with the next run.
    """
    # Jaxlib 0.10 has a second way to compile loops, which takes less than half of the time; later
    # ones do not know the flag.
    if jaxlib.__version__.startswith("0.10."):
        flags = (os.environ.get("XLA_FLAGS", ""), "--xla_cpu_use_fusion_emitters=false")
        os.environ["XLA_FLAGS"] = " ".join(flags).strip()
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
