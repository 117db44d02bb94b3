"""What the examples read from the command line."""

import math


def positive(text: str) -> int:
    """A positive whole number."""
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def seed(text: str) -> int:
    """A seed: a whole number from 0 to 2^32 - 1."""
    if not 0 <= int(text) < 2**32:
        raise ValueError(text)
    return int(text)


def radius(text: str) -> float:
    """A finite positive radius."""
    if not 0 < float(text) < math.inf:
        raise ValueError(text)
    return float(text)
