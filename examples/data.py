"""Image data for the examples: small handwritten digits (embedded) and MNIST (from its IDX files).

The embedded digits are the UCI "Optical Recognition of Handwritten Digits" test set by E. Alpaydin
and C. Kaynak, licensed under CC BY 4.0; see `data/README.md`.
"""

import gzip
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

DIGITS = Path(__file__).parent / "data" / "digits.npz"
FOLDERS = (".", "raw", "MNIST/raw")  # where an MNIST folder may keep its files (torchvision: last)
MAGIC = {1: 0x0801, 3: 0x0803}  # by rank: vectors (labels) and stacks of images, both of bytes
SIDE = 28  # an MNIST image is 28 x 28 pixels
CLASSES = 10


class DataError(Exception):
    """The data are missing or damaged; the message is one line that says which file and how."""


class Dataset(NamedTuple):
    """Images as float32 of shape (n, height, width, 1) in [0, 1], labels as int32 of shape (n,)."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load(name: str, data_dir: str | Path | None = None) -> Dataset:
    """Loads a data set, always with the same split into training and test images.

    Args:
      name: "digits" (1437 training and 360 test images, 8 x 8) or "mnist" (60000 and 10000,
        28 x 28).
      data_dir: the folder with MNIST's four IDX files, plain or gzipped; or the folder that
        torchvision made, with the files in `MNIST/raw`. Digits need none.
    """
    if name == "digits":
        return _load_digits()
    if name == "mnist":
        if data_dir is None:
            raise DataError("MNIST needs a data directory with its IDX files")
        return _load_mnist(Path(data_dir))
    raise DataError(f"unknown data set {name!r}: choose 'digits' or 'mnist'")


def read_idx(path: Path, rank: int) -> np.ndarray:
    """Reads an IDX file of bytes, gzipped where its name ends in `.gz`.

    Args:
      path: the file.
      rank: the number of dimensions it must have: 1 (labels) or 3 (images).
    """
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    header = 4 * (rank + 1)
    if len(content) < header:
        raise DataError(f"{path}: truncated: {len(content)} bytes, shorter than an IDX header")
    magic, *shape = (int(number) for number in np.frombuffer(content[:header], ">u4"))
    if magic != MAGIC[rank]:
        raise DataError(f"{path}: bad magic number 0x{magic:08x}, expected 0x{MAGIC[rank]:08x}")
    size = int(np.prod(shape, dtype=object))
    if len(content) != header + size:
        found = len(content) - header
        raise DataError(f"{path}: wrong length: {found} bytes of data where {size} were announced")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _load_digits() -> Dataset:
    """The embedded digits: of every fifty images in a row, the last ten are for testing."""
    try:
        with np.load(DIGITS) as archive:
            images, labels = archive["images"], archive["labels"]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{DIGITS}: cannot be read: {error}") from error
    images, labels = _normalise(images, 16), labels.astype(np.int32)
    test = np.arange(len(images)) // 10 % 5 == 4
    return Dataset(images[~test], labels[~test], images[test], labels[test])


def _load_mnist(folder: Path) -> Dataset:
    """MNIST from the folder that holds its four files, or from its `raw` or `MNIST/raw`."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such directory")
    return Dataset(*_load_part(folder, "train"), *_load_part(folder, "t10k"))


def _load_part(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of one part of MNIST, "train" or "t10k", checked for consistency."""
    image_path = _find(folder, f"{part}-images-idx3-ubyte")
    label_path = _find(folder, f"{part}-labels-idx1-ubyte")
    images, labels = read_idx(image_path, rank=3), read_idx(label_path, rank=1)
    if images.shape[1:] != (SIDE, SIDE) or not len(images):
        raise DataError(f"{image_path}: images of shape {images.shape}, expected (n, 28, 28)")
    if len(labels) != len(images):
        raise DataError(f"{label_path}: {len(labels)} labels for {len(images)} images")
    if labels.max() >= CLASSES:
        raise DataError(f"{label_path}: label {labels.max()}, expected 0 to {CLASSES - 1}")
    return _normalise(images, 255), labels.astype(np.int32)


def _find(folder: Path, name: str) -> Path:
    """The file of this name, plain or with `.gz`, in one of the usual places below the folder."""
    candidates = [folder / sub / f"{name}{end}" for sub in FOLDERS for end in ("", ".gz")]
    for path in candidates:
        if path.is_file():
            return path
    raise DataError(f"{folder}: no {name} or {name}.gz in it, nor in its folder raw or MNIST/raw")


def _normalise(images: np.ndarray, white: int) -> np.ndarray:
    """Bytes (n, height, width) from 0 to `white` as floats (n, height, width, 1) in [0, 1]."""
    return (images.astype(np.float32) / white)[..., None]
