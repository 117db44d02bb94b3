"""Image data for the examples: handwritten digits (embedded), MNIST and CIFAR-10 (from files).

The embedded digits are the UCI "Optical Recognition of Handwritten Digits" test set by E. Alpaydin
and C. Kaynak, licensed under CC BY 4.0; see `data/README.md`.
"""

import gzip
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

DIGITS = Path(__file__).parent / "data" / "digits.npz"
FOLDERS = (".", "raw", "MNIST/raw")  # where an MNIST folder may keep its files (torchvision: last)
MAGIC = {1: 0x0801, 3: 0x0803}  # by rank: vectors (labels) and stacks of images, both of bytes
SIDE = 28  # an MNIST image is 28 x 28 pixels
CIFAR_FOLDER = "cifar-10-batches-py"  # as the archive of CIFAR-10 unpacks it
CIFAR_SHAPE = (3, 32, 32)  # channels, height, width, as its rows are laid out
CLASSES = 10

# The mean and the standard deviation of every channel of the training images.
CHANNELS = {
    "digits": ((0.3050,), (0.3759,)),
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}


class DataError(Exception):
    """The data are missing or damaged; the message is one line that says which file and how."""


class Dataset(NamedTuple):
    """Images, float32 of shape (n, height, width, channels) in [0, 1]; labels, int32 of (n,)."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load(name: str, data_dir: str | Path | None = None) -> Dataset:
    """Loads a data set, always with the same split into training and test images.

    Args:
      name: "digits" (1440 training and 357 test images, 8 x 8), "mnist" (60000 and 10000,
        28 x 28) or "cifar10" (50000 and 10000, 32 x 32 in three colours).
      data_dir: the folder with MNIST's four IDX files, plain or gzipped; or the folder that
        torchvision made, with the files in `MNIST/raw`. Or that with CIFAR-10's six batches
        of the Python version, or with its `cifar-10-batches-py`. Digits need none.
    """
    if name == "digits":
        return _load_digits()
    if name == "mnist":
        if data_dir is None:
            raise DataError("MNIST needs a data directory with its IDX files")
        return _load_mnist(Path(data_dir))
    if name == "cifar10":
        if data_dir is None:
            raise DataError("CIFAR-10 needs a data directory with its batches, the Python version")
        return _load_cifar10(Path(data_dir))
    raise DataError(f"unknown data set {name!r}: choose 'digits', 'mnist' or 'cifar10'")


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


def _load_cifar10(folder: Path) -> Dataset:
    """CIFAR-10 from the folder that holds its six batches, or from its `cifar-10-batches-py`."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such directory")
    inside = folder / CIFAR_FOLDER
    folder = inside if inside.is_dir() else folder
    parts = [_read_batch(folder / f"data_batch_{k}") for k in range(1, 6)]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Dataset(images, labels, *_read_batch(folder / "test_batch"))


def _read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of one of CIFAR-10's pickled batches."""
    try:
        with path.open("rb") as file:
            batch = _ArraysOnly(file, encoding="bytes").load()
        rows, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; CIFAR-10 has six batches") from error
    except Exception as error:  # unpickling raises what it likes
        raise DataError(f"{path}: no batch of CIFAR-10: {error}") from error
    if rows.ndim != 2 or rows.shape[1] != np.prod(CIFAR_SHAPE) or rows.dtype != np.uint8:
        raise DataError(f"{path}: images of shape {rows.shape}, expected (n, 3072) bytes")
    if labels.shape != rows.shape[:1] or not len(labels):
        raise DataError(f"{path}: {labels.size} labels for {len(rows)} images")
    if not 0 <= labels.min() <= labels.max() < CLASSES:
        raise DataError(f"{path}: label {labels.max()}, expected 0 to {CLASSES - 1}")
    images = rows.reshape(-1, *CIFAR_SHAPE).transpose(0, 2, 3, 1)
    return images.astype(np.float32) / 255, labels.astype(np.int32)


class _ArraysOnly(pickle.Unpickler):
    """Unpickles arrays of numpy and builtin containers: a pickle could run anything else."""

    def find_class(self, module: str, name: str) -> Any:
        """What numpy's arrays are pickled by, whatever its version was."""
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.empty(0).__reduce__()[0]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")
