"""Rows of affine functions of one value, which both linear domains speak of."""

from __future__ import annotations

from typing import NamedTuple

from jaxlirpa._typing import Array


class Side(NamedTuple):
    """Affine rows: coefficients `[rows, *shape]` and offset `[rows]`."""

    coefficients: Array
    offset: Array
