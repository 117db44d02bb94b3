"""Compiled programs on disk: what a verification compiles, the next process need not."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

_VARIABLE = "JAXLIRPA_CACHE"
# What is compiled in less time, in seconds, is not worth a file.
_LEAST_SECONDS = 0.2


def cache_folder() -> Path | None:
    """Where `verify` keeps compiled programs; None if it keeps none.

    It is `jaxlirpa` in the user's folder of caches (`XDG_CACHE_HOME`, or `~/.cache`), or what the
    environment variable `JAXLIRPA_CACHE` says; if that is empty, there is none.
    """
    own = os.environ.get(_VARIABLE)
    if own is not None:
        return Path(own) if own else None
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxlirpa"


def clear_cache() -> None:
    """Removes the compiled programs that `verify` keeps."""
    folder = cache_folder()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def kept_on_disk() -> Iterator[None]:
    """Keeps what is compiled inside on disk, unless JAX does so already."""
    folder = cache_folder()
    config: Any = jax.config
    if folder is None or config.jax_compilation_cache_dir is not None:
        yield
        return
    options = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": _LEAST_SECONDS,
    }
    before = {name: getattr(config, name) for name in options}
    for name, value in options.items():
        config.update(name, value)
    compilation_cache.reset_cache()  # JAX looks at the options only once
    try:
        yield
    finally:
        for name, value in before.items():
            config.update(name, value)
        compilation_cache.reset_cache()
