"""How tests compile: much, to run it once or twice."""

from __future__ import annotations

import os
import pathlib

import jax
import jaxlib

# An unknown flag ends the process, so it is set only where it is known to be one.
KNOWN = ("0.10.",)
FLAG = "--xla_cpu_use_fusion_emitters"


def configure(cache: pathlib.Path) -> None:
    """Compiles in as little time as it can take, here and in child processes.

    It must be called before JAX runs anything: XLA reads its flags once.

    Args:
        cache: the folder in which processes share what is compiled, and with the next run.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if FLAG not in flags and jaxlib.__version__.startswith(KNOWN):
        os.environ["XLA_FLAGS"] = f"{flags} {FLAG}=false".strip()
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
