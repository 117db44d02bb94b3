"""What the examples read from the command line."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backend_bases import FigureCanvasBase


def add_data(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Adds the choice of a data set, of which the digits are the default, and of its folder."""
    parser.add_argument("--data", choices=names, default="digits", help="default: digits")
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="folder with MNIST's IDX files, plain or .gz"
    )


def data_objection(data: str, folder: Path | str | None) -> str | None:
    """Why a data set cannot be read from a folder, or None."""
    if data != "digits" and folder is None:
        return f"--data {data} needs --data-dir"
    if data == "digits" and folder is not None:
        return "--data-dir is for other data; the digits are embedded"
    return None


def picture_objection(output: Path) -> str | None:
    """Why no picture can be saved at a path, or None."""
    if not output.parent.is_dir():
        return f"--output {output}: no such directory: {output.parent}"
    if output.suffix[1:] not in FigureCanvasBase.get_supported_filetypes():
        return f"--output {output}: not a name of a picture, such as plot.png"
    return None


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
