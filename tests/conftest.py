"""All tests run in double precision, and warnings are errors."""

import os

import hypothesis
import jax

jax.config.update("jax_enable_x64", True)
# Tests compile much and run little.
jax.config.update("jax_disable_most_optimizations", True)

hypothesis.settings.register_profile("default", deadline=None, max_examples=10)
hypothesis.settings.register_profile(
    "ci", deadline=None, max_examples=10, derandomize=True, print_blob=True
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")
