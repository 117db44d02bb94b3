"""The examples: the loader of image data, the command line and one short run of the whole."""

import gzip
import importlib.util
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPT = "certify_digits.py"
_spec = importlib.util.spec_from_file_location("example_data", EXAMPLES / "data.py")
data = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(data)


def idx(values: np.ndarray, magic: int | None = None) -> bytes:
    """The IDX file of an array of bytes, with the magic number of its rank or another one."""
    magic = 0x0800 + values.ndim if magic is None else magic
    return struct.pack(f">{values.ndim + 1}I", magic, *values.shape) + values.tobytes()


def write_mnist(folder: Path, zipped: bool = False) -> dict[str, np.ndarray]:
    """Writes a tiny MNIST (7 training and 3 test images) and returns the arrays by file name."""
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 7), ("t10k", 3)):
        images = random.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"{part}-images-idx3-ubyte"] = images
        arrays[f"{part}-labels-idx1-ubyte"] = random.integers(0, 10, count, np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in arrays.items():
        content = idx(values)
        path = folder / (f"{name}.gz" if zipped else name)
        path.write_bytes(gzip.compress(content) if zipped else content)
    return arrays


def run(*arguments: object, cwd: Path, script: str = SCRIPT) -> subprocess.CompletedProcess:
    """Runs an example as a user would, with jaxlirpa from this checkout."""
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_digits():
    digits = data.load("digits")
    assert digits.train_images.shape == (1440, 8, 8, 1)
    assert digits.test_images.shape == (357, 8, 8, 1)
    assert digits.train_images.dtype == np.float32
    assert digits.train_labels.dtype == np.int32
    assert digits.train_images.min() == 0
    assert digits.train_images.max() == 1
    assert set(digits.test_labels) == set(range(10))
    for first, second in zip(digits, data.load("digits"), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("sub", [".", "raw", "MNIST/raw"])
def test_mnist_round_trip(tmp_path, sub, zipped):
    arrays = write_mnist(tmp_path / sub, zipped)
    mnist = data.load("mnist", tmp_path)
    for part, images, labels in (("train", *mnist[:2]), ("t10k", *mnist[2:])):
        expected = arrays[f"{part}-images-idx3-ubyte"]
        np.testing.assert_array_equal(np.rint(images[..., 0] * 255), expected)
        np.testing.assert_array_equal(labels, arrays[f"{part}-labels-idx1-ubyte"])
        assert images.dtype == np.float32
        assert images.shape[1:] == (28, 28, 1)


LABELS = np.zeros(7, np.uint8)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-labels-idx1-ubyte", idx(LABELS, magic=0x0803), "bad magic number 0x00000803"),
        ("train-labels-idx1-ubyte", idx(LABELS)[:-1], "wrong length: 6 bytes of data where 7"),
        ("train-labels-idx1-ubyte", idx(LABELS) + b"0", "wrong length: 8 bytes of data where 7"),
        ("train-labels-idx1-ubyte", b"", "truncated: 0 bytes"),
        ("train-labels-idx1-ubyte", idx(LABELS[:5]), "5 labels for 7 images"),
        ("train-labels-idx1-ubyte", idx(LABELS + 10), "label 10, expected 0 to 9"),
        ("train-images-idx3-ubyte", idx(LABELS.reshape(7, 1, 1)), "images of shape (7, 1, 1)"),
        ("train-images-idx3-ubyte", idx(LABELS[:0].reshape(0, 28, 28)), "images of shape (0,"),
    ],
)
def test_damaged_file(tmp_path, name, content, message):
    write_mnist(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(data.DataError, match=re.escape(message)) as caught:
        data.load("mnist", tmp_path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "damage",
    [lambda content: b"no gzip file", lambda content: content[:-20], lambda content: b""],
    ids=["not gzip", "truncated", "empty"],
)
def test_damaged_gzip(tmp_path, damage):
    write_mnist(tmp_path, zipped=True)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(data.DataError, match=re.escape(f"{path}: ")):
        data.load("mnist", tmp_path)


def test_missing(tmp_path):
    with pytest.raises(data.DataError, match="no such directory"):
        data.load("mnist", tmp_path / "absent")
    with pytest.raises(data.DataError, match="no train-images-idx3-ubyte"):
        data.load("mnist", tmp_path)
    with pytest.raises(data.DataError, match="needs a data directory"):
        data.load("mnist")
    with pytest.raises(data.DataError, match="unknown data set 'letters'"):
        data.load("letters")


def require_script() -> None:
    """Skips the test where a package that the script needs is not installed."""
    for package in ("flax", "optax", "matplotlib", "tqdm"):
        pytest.importorskip(package)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "mnist", "--data-dir", "absent"), "absent: no such directory"),
        (("--eps", "0.1", "nan"), "invalid radius value: 'nan'"),
        (("--output", "absent/plot.png"), "no such directory: absent"),
    ],
)
def test_script_refuses(tmp_path, arguments, message):
    require_script()
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_script_refuses_a_corrupt_file(tmp_path):
    require_script()
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(b"0123456789")
    result = run("--data", "mnist", "--data-dir", tmp_path, cwd=tmp_path)
    assert result.returncode == 2
    assert re.fullmatch(r"certify_digits\.py: error: \S+: bad magic .*\n", result.stderr)


@pytest.mark.slow
def test_quick_run(tmp_path):
    require_script()
    result = run("--quick", "--output", "plot.png", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = re.findall(r"^ +(0\.\d+)((?: +[\d.]+%(?: +[\d.]+ s)?){5})$", result.stdout, re.MULTILINE)
    assert [float(eps) for eps, _ in rows] == [0.02, 0.06, 0.1, 0.14]
    for _, cells in rows:
        clean, attack, *methods = (float(cell) for cell in re.findall(r"([\d.]+)%", cells))
        assert max(methods) <= attack <= clean
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_flat_landscape(tmp_path):
    """A short run: what is found lies below what is certified, and three plots are saved."""
    require_script()
    arguments = ("--quick", "--steps", "40", "--output", "plots")
    result = run(*arguments, cwd=tmp_path, script="flat_landscape.py")
    assert result.returncode == 0, result.stderr
    number = r"(-?[\d.]+) ± [\d.]+"
    line = re.compile(rf"^(\S.{{25}}) *{number} +{number} +{number}$", re.MULTILINE)
    rows = {name.strip(): [*map(float, cells)] for name, *cells in line.findall(result.stdout)}
    assert len(rows) == 6 + 2 * 6
    for k in (0, 1):
        least, found, most = (rows[name][k] for name in LOSSES)
        assert 0 < least <= found <= most
    pictures = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert pictures == [f"{kind}_digits_all.png" for kind in ("bands", "bits", "slices")]


LOSSES = "loss", "worst loss found", "worst loss certified"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "mnist", "--data-dir", "absent"), "absent: no such directory"),
        (("--data", "mnist"), "--data mnist needs --data-dir"),
        (("--eps", "0"), "invalid radius value: '0'"),
    ],
)
def test_flat_landscape_refuses(tmp_path, arguments, message):
    require_script()
    result = run(*arguments, cwd=tmp_path, script="flat_landscape.py")
    assert result.returncode == 2
    assert message in result.stderr.splitlines()[-1]


@pytest.mark.slow
def test_quick_start(tmp_path):
    pytest.importorskip("flax")
    result = run(cwd=tmp_path, script="quick_start.py")
    assert result.returncode == 0, result.stderr
    rows = re.findall(r"class \d: (\S+) <= (\S+) <= (\S+)", result.stdout)
    assert len(rows) == 10
    assert all(float(low) <= float(logit) <= float(high) for low, logit, high in rows)


@pytest.mark.slow
def test_deciding_digits(tmp_path: Path) -> None:
    """The short form of the example that verifies completely."""
    found = run("--quick", "--output", "plot.png", cwd=tmp_path, script="verify_digits.py")
    assert found.returncode == 0, found.stderr
    rows = re.findall(r"^ +0\.\d+ +(.*)$", found.stdout, re.MULTILINE)
    assert len(rows) == 2
    for row in rows:
        clean, attacked, crown, alpha, decided = map(float, re.findall(r"([\d.]+)%", row))
        assert clean >= attacked >= decided >= alpha >= 0 and decided >= crown
    assert "branch and bound was asked" in found.stdout
    assert (tmp_path / "plot.png").stat().st_size > 10_000
