"""Which tests run by default."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest


def slowly(names: Iterable[str], *slow: str, long: Sequence[str] = ()) -> list[Any]:
    """Test parameters, some of which are marked as slow, and some as long."""
    marks: dict[str, Any] = dict.fromkeys(slow, pytest.mark.slow)
    marks |= dict.fromkeys(long, pytest.mark.long)
    return [pytest.param(name, marks=marks.get(name, ())) for name in names]
