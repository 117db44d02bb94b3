"""A progress bar of a search."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from jaxlirpa._errors import ArgumentError
from jaxlirpa.verify.verdict import Progress


def progress_bar() -> Callable[[Progress], None]:
    """What shows the state of a search on one line, by tqdm: `verify(fn, progress=progress_bar())`.

    Raises:
        ArgumentError: where tqdm is not installed.
    """
    try:
        tqdm: Any = importlib.import_module("tqdm").tqdm
    except ImportError as error:
        raise ArgumentError("progress_bar needs tqdm: pip install tqdm") from error
    bar = tqdm(unit=" subproblems", delay=1.0)

    def show(state: Progress) -> None:
        bar.set_postfix(open=state.open, worst=f"{state.worst:.3g}", refresh=False)
        bar.update(state.subproblems - bar.n)

    return show
