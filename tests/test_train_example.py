"""The example of certified training: its data, its runs, how they go on, and certificates."""

from __future__ import annotations

import csv
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlirpa

for package in ("flax", "optax", "orbax.checkpoint", "tensorboardX", "matplotlib", "tqdm"):
    pytest.importorskip(package)

EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import certification  # noqa: E402
import data  # noqa: E402
import logbook  # noqa: E402
import models  # noqa: E402
import objectives  # noqa: E402
import settings as settings_  # noqa: E402
import train_certified  # noqa: E402
import training  # noqa: E402
from attack import survives  # noqa: E402
from checkpoints import CheckpointError, Checkpoints  # noqa: E402

from jaxlirpa import train  # noqa: E402

SMALL = ("--model", "tiny", "--batch", "32", "--check", "40", "--eps", "0.05", "--rate", "0.003")


@pytest.fixture(autouse=True)
def single_precision() -> Iterator[None]:
    """As the example runs."""
    with jax.enable_x64(False):
        yield


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> data.Dataset:
    """A tiny network, and few digits."""
    full = data.load("digits")
    few = data.Dataset(*(x[:n] for x, n in zip(full, (96, 96, 40, 40), strict=True)))
    monkeypatch.setitem(models.MODELS, "tiny", tiny)
    monkeypatch.setattr(train_certified, "load", lambda *_: few)
    return few


def tiny(classes: int, width: int = 4) -> models.CNN:
    """A convolution and a hidden dense layer."""
    return models.CNN(classes, ((width, 2),), window=3, dense=8)


def run(*arguments: object) -> int:
    """The example, in this process."""
    return train_certified.main([*map(str, arguments)])


def state_of(folder: Path, settings: settings_.Settings, few: data.Dataset) -> training.State:
    """The last state of a run."""
    own = training.trainer(settings, len(few.train_images))
    like = jax.device_put(training.initial(own, few.train_images[0]), own.copies)
    return Checkpoints(folder).restore(like)


def equal(one: training.State, other: training.State) -> None:
    """Bit by bit."""
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def settings(**given: object) -> settings_.Settings:
    """Of a tiny run on digits."""
    return settings_.from_given(
        {"data": "digits", "model": "tiny", "batch": 32, "check": 40, "eps": 0.05, "rate": 3e-3}
        | given
    )


def rows(folder: Path) -> list[dict[str, float]]:
    """The figures of a run but for the seconds."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in logbook.read(folder)]


@pytest.mark.slow
def test_a_run_goes_on_as_if_it_had_never_stopped(tmp_path, small, monkeypatch, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(*SMALL, "--epochs", 4, "--out", whole) == 0
    last = rows(whole)[-1]
    assert 0 <= last["clean_error"] <= last["pgd_error"] <= last["verified_error"] <= 1
    for name in ("curves.png", "metrics.csv", "tensorboard"):
        assert (whole / name).exists()

    save = Checkpoints.save

    def cut_off(self: Checkpoints, epoch: int, *arguments: object) -> None:
        if epoch == 3:
            raise KeyboardInterrupt
        save(self, epoch, *arguments)

    monkeypatch.setattr(Checkpoints, "save", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run(*SMALL, "--epochs", 4, "--out", parts)
    assert Checkpoints(parts).latest() == 2
    assert [row["epoch"] for row in rows(parts)] == [1, 2, 3]
    monkeypatch.setattr(Checkpoints, "save", save)
    assert run("--resume", parts) == 0
    own = settings(epochs=4)
    equal(*(state_of(folder, own, small) for folder in (whole, parts)))
    assert rows(whole) == rows(parts)

    # What does not fit the stored run is refused.
    capsys.readouterr()
    assert run(*SMALL, "--out", whole) == 2
    assert "go on with --resume" in capsys.readouterr().err
    assert run("--resume", whole, "--model", "resnext") == 2
    assert "was trained with --model tiny, and not resnext" in capsys.readouterr().err
    models.MODELS["tiny"] = lambda classes: tiny(classes, width=5)
    assert run("--resume", whole) == 2
    assert "not a checkpoint of this model" in capsys.readouterr().err


def test_a_run_that_diverges_stops_and_keeps_its_last_checkpoint(tmp_path, small, capsys):
    assert run(*SMALL[:-1], "1e30", "--epochs", 2, "--out", tmp_path) == 1
    message = capsys.readouterr().err
    assert re.search(r"the loss is (nan|inf) in epoch 1, .*after epoch 0 is kept", message)
    state = state_of(tmp_path, settings(), small)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))


@pytest.mark.slow
def test_no_checkpoint_has_parameters_that_are_no_numbers(tmp_path, small, monkeypatch, capsys):
    monkeypatch.setattr(training, "optimiser", lambda *_: optax.sgd(np.nan))
    assert run(*SMALL, "--batch", 96, "--epochs", 2, "--out", tmp_path) == 1
    assert "a parameter is no number in epoch 1" in capsys.readouterr().err
    assert Checkpoints(tmp_path).latest() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rate", "inf"), "--rate must be positive"),
        (("--eps", "1.5"), "--eps 1.5: pixels are in [0, 1]"),
        (("--eps", "nan"), "--eps nan"),
        (("--batch", "97"), "--batch 97: there are 96 training images only"),
        (("--warmup", "3", "--ramp", "3", "--epochs", "5"), "do not fit in 5 epochs"),
        (("--data", "mnist"), "--data mnist needs --data-dir"),
        (("--alpha", "2"), "--alpha 2: a share is from 0 to 1"),
        (("--kappa", "1", "-1"), "--kappa -1: a share is from 0 to 1"),
        (("--resume", "absent"), "checkpoints: there is no checkpoint"),
        (("--certify", "absent"), "checkpoints: there is no checkpoint"),
    ],
)
def test_bad_input_is_refused(tmp_path, small, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    given = SMALL if "--resume" not in arguments and "--certify" not in arguments else ()
    assert run(*given, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not [*tmp_path.iterdir()]


def test_missing_files_are_refused(tmp_path, capsys):
    assert run("--data", "cifar10", "--data-dir", tmp_path / "absent", "--out", tmp_path / "r") == 2
    assert "absent: no such directory" in capsys.readouterr().err


def trained(few: data.Dataset) -> tuple[training.Trainer, training.State]:
    """Some steps of training, enough for images of all kinds."""
    own = training.trainer(settings(epochs=12, ramp=8), len(few.train_images))
    state = jax.device_put(training.initial(own, few.train_images[0]), own.copies)
    step = training.make_step(own)
    for _ in range(own.settings.epochs):
        for batch in training.batches(own, state, few.train_images, few.train_labels):
            state, _ = step(state, training.nothing(own), *batch)
        state = state._replace(epoch=state.epoch + 1)
    return own, training.make_statistics(own)(state, few.train_images)


@pytest.mark.slow
def test_every_image_is_decided_by_the_first_method_that_can(tmp_path, small):
    own, state = trained(small)
    fn = training.network(own.model, state.batch_stats)
    images, labels, params = small.test_images, small.test_labels, state.params
    eps, names = 0.04, ["IBP", "CROWN-IBP", "CROWN"]
    found = certification.certify(
        fn, params, images, labels, eps, methods=names, key=jax.random.key(1)
    )
    kinds = {*found.verdicts}
    assert kinds >= {certification.VERIFIED, certification.WRONG}, kinds

    np.testing.assert_array_equal(found.predictions, fn(params, images).argmax(-1))
    np.testing.assert_array_equal(found.verdicts == "wrong", found.predictions != labels)
    box = jaxlirpa.Box(jnp.maximum(images - eps, 0), jnp.minimum(images + eps, 1))
    transforms = {"IBP": jaxlirpa.ibp, "CROWN-IBP": jaxlirpa.crown_ibp, "CROWN": jaxlirpa.crown}
    expected = np.full(len(images), "", object)
    for name, transform in reversed(transforms.items()):
        upper = jax.jit(transform(train.margins(fn)))(params, box, labels).upper
        expected[(upper < 0).sum(-1) == data.CLASSES - 1] = name
    verified = found.verdicts == "verified"
    np.testing.assert_array_equal(found.methods[verified], expected[verified])
    assert (found.margins[verified] > 0).all()
    assert not (expected[found.verdicts == "open"] != "").any()
    assert not (expected[found.verdicts == "attacked"] != "").any()

    def ahead(params: object, x: jax.Array, labels: jax.Array) -> jax.Array:
        others = -train.margins(fn)(params, x, labels)
        return jnp.where(jax.nn.one_hot(labels, data.CLASSES, dtype=bool), jnp.inf, others)

    held = survives(ahead, params, box.lower, box.upper, jnp.asarray(labels), key=jax.random.key(2))
    assert held[verified].all()

    decided = sum(stage.decided for stage in found.stages)
    assert decided == np.isin(found.verdicts, ("verified", "attacked")).sum()
    path = tmp_path / "images.csv"
    certification.write(path, found)
    with path.open(newline="") as file:
        written = [*csv.DictReader(file)]
    assert [row["verdict"] for row in written] == [*found.verdicts]
    assert [int(row["label"]) for row in written] == [*labels]
    open_ = (found.verdicts == "open").sum()
    assert f"({open_} open)" in certification.table(found)


def test_batches_have_one_size():
    sizes = []

    def double(x: jax.Array) -> jax.Array:
        sizes.append(len(x))
        return 2 * x

    np.testing.assert_array_equal(training.in_batches(double, 4, np.arange(10)), 2 * np.arange(10))
    np.testing.assert_array_equal(training.in_batches(double, 4, np.arange(3)), 2 * np.arange(3))
    assert sizes == [4, 4, 4, 4]


def test_augmented_images_are_moved_and_flipped():
    images = np.random.default_rng(0).uniform(0.1, 1, (16, 6, 6, 2)).astype(np.float32)
    found = np.asarray(objectives.augment(jax.random.key(0), images, margin=1))
    flips = 0
    for image, result in zip(images, found, strict=True):
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
        moved = [padded[i : i + 6, j : j + 6] for i in range(3) for j in range(3)]
        assert any(np.array_equal(m, r) for m in moved for r in (result, result[:, ::-1]))
        flips += any(np.array_equal(m[:, ::-1], result) for m in moved)
    assert 0 < flips < 16


def test_schedules_begin_and_end_where_they_should():
    own = settings(epochs=10, warmup=2, ramp=4, train_eps=0.2, kappa=(1.0, 0.5))
    found = training.schedules(own, steps=5)
    for step, eps, beta, kappa, weight in ((0, 0, 1, 1, 0.5), (10, 0, 1, 1, 0.5)):
        assert (found.eps(step), found.beta(step), found.kappa(step)) == (eps, beta, kappa)
        assert found.regularise(step) == weight
    for step in (30, 50):
        assert found.eps(step) == pytest.approx(0.2)
        assert (found.beta(step), found.kappa(step), found.regularise(step)) == (0, 0.5, 0)
    assert found.rate(0) == pytest.approx(3e-3) and found.rate(50) == pytest.approx(3e-3 / 25)


@pytest.mark.few(3)
@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3)])
def test_models_take_all_images(name, shape):
    model = models.Normalised(models.MODELS[name](10), (0.5,) * shape[-1], (0.3,) * shape[-1])
    x = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    assert set(variables) == {"params", "batch_stats"}
    logits = jax.eval_shape(model.apply, variables, x)
    assert (logits.shape, logits.dtype) == ((2, 10), jnp.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", models.MODELS)
def test_models_can_be_trained(name):
    model = models.Normalised(models.MODELS[name](10), (0.5,), (0.3,))
    x = np.random.default_rng(0).uniform(size=(2, 8, 8, 1)).astype(np.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)

    def loss(variables: dict, x: jax.Array) -> jax.Array:
        shared = train.linen.shared_statistics(model, variables, x, train=True)
        return train.certified(shared.fn)(variables["params"], x, jnp.array([1, 2]), 0.1).mean()

    gradient = jax.eval_shape(jax.grad(loss), variables, x)["params"]
    assert jax.tree.structure(gradient) == jax.tree.structure(variables["params"])


@pytest.mark.slow
@pytest.mark.few(slow=4)
@pytest.mark.parametrize("method", objectives.METHODS)
def test_methods_learn(small, method):
    own = training.trainer(settings(method=method, epochs=8, warmup=0, ramp=1), 96)
    state = jax.device_put(training.initial(own, small.train_images[0]), own.copies)
    step = training.make_step(own)
    wrong = []
    for _ in range(own.settings.epochs):
        sums = training.nothing(own)
        for batch in training.batches(own, state, small.train_images, small.train_labels):
            state, sums = step(state, sums, *batch)
        state = state._replace(epoch=state.epoch + 1)
        wrong.append(float(sums.wrong / sums.images))
        assert np.isfinite(sums.loss)
    assert wrong[-1] < 0.7 * wrong[0]
    if sums.unproved == sums.unproved:  # the loss is a certificate
        assert sums.wrong <= sums.unproved <= sums.images


@pytest.mark.slow
def test_gradients_of_several_steps_are_averaged(small):
    x, y = small.train_images[:32], small.train_labels[:32]
    clean = {"kappa": (1.0, 1.0), "regularise": 0.0}  # the same loss at every step
    once, twice = (training.trainer(settings(accumulate=n, **clean), 96) for n in (1, 2))
    start = training.initial(once, x[0])
    expected, _ = training.make_step(once)(start, training.nothing(once), x, y)
    state = training.initial(twice, x[0])
    step = training.make_step(twice)
    for _ in range(2):  # the same batch twice: the mean gradient is that of one
        state, _ = step(state, training.nothing(twice), x, y)
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def write_cifar(folder: Path) -> dict[str, np.ndarray]:
    """A tiny CIFAR-10 (four images a batch), as its archive unpacks; returns images by name."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    found = {}
    for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]:
        found[name] = random.integers(0, 256, (4, 3072), np.uint8)
        batch = {b"data": found[name], b"labels": [0, 9, 1, 2], b"batch_label": name.encode()}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return found


@pytest.mark.parametrize("sub", [".", "cifar-10-batches-py"])
def test_cifar_round_trip(tmp_path, sub):
    arrays = write_cifar(tmp_path / "cifar" / sub)
    cifar = data.load("cifar10", tmp_path / "cifar")
    assert cifar.train_images.shape == (20, 32, 32, 3)
    np.testing.assert_array_equal(cifar.test_labels, (0, 9, 1, 2))
    assert cifar.train_images.dtype == np.float32 and cifar.train_labels.dtype == np.int32
    pixel = np.rint(cifar.train_images[5, 3, 7] * 255)
    np.testing.assert_array_equal(pixel, arrays["data_batch_2"][1].reshape(3, 32, 32)[:, 3, 7])


class Evil:
    """Runs a command where it is unpickled."""

    def __reduce__(self) -> tuple:
        return (subprocess.call, (["touch", "harm"],))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (b"no pickle", "no batch of CIFAR-10"),
        (pickle.dumps(Evil(), protocol=2), "which is no array"),
        (pickle.dumps({b"data": np.zeros((2, 5), np.uint8), b"labels": [1, 2]}), "shape (2, 5)"),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}), "1 labels for 2"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}), "label 10"),
    ],
    ids=["garbage", "evil", "shape", "labels", "label"],
)
def test_damaged_batches_are_refused(tmp_path, monkeypatch, batch, message):
    monkeypatch.chdir(tmp_path)
    write_cifar(tmp_path / "cifar")
    (tmp_path / "cifar" / "data_batch_3").write_bytes(batch)
    with pytest.raises(data.DataError, match=re.escape(message)) as caught:
        data.load("cifar10", tmp_path / "cifar")
    assert "data_batch_3" in str(caught.value)
    assert not (tmp_path / "harm").exists()


def test_missing_batches_are_refused(tmp_path):
    with pytest.raises(data.DataError, match="needs a data directory"):
        data.load("cifar10")
    with pytest.raises(data.DataError, match="no such directory"):
        data.load("cifar10", tmp_path / "absent")
    with pytest.raises(data.DataError, match="data_batch_1: no such file"):
        data.load("cifar10", tmp_path)


def test_checkpoints_of_one_epoch(tmp_path, small):
    own = training.trainer(settings(), 96)
    state = jax.device_put(training.initial(own, small.train_images[0]), own.copies)
    checkpoints = Checkpoints(tmp_path)
    for epoch in range(5):
        checkpoints.save(epoch, state._replace(epoch=jnp.int32(epoch)), {"data": "digits"})
    checkpoints.close()
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [2, 3, 4]
    single = Checkpoints(tmp_path / "checkpoints" / "3")
    assert single.latest() == 3 and single.run == tmp_path
    assert int(single.restore(state).epoch) == 3 and single.settings() == {"data": "digits"}
    with pytest.raises(CheckpointError, match="no checkpoint"):
        Checkpoints(tmp_path / "checkpoints" / "7").settings()


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path):
    """Killed in the middle of an epoch, in a process of its own."""
    common = ("--epochs", "3", "--model", "cnn_small", "--check", "40")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    command = [sys.executable, str(EXAMPLES / "train_certified.py")]
    environment = {
        **os.environ,
        "PYTHONPATH": str(EXAMPLES.parent),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    subprocess.run([*command, *common, "--out", whole], check=True, env=environment)
    process = subprocess.Popen([*command, *common, "--out", parts], env=environment)
    while not (parts / "checkpoints" / "1").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert Checkpoints(parts).latest() in (1, 2)
    subprocess.run([*command, "--resume", parts], check=True, env=environment)
    own = settings(epochs=3, model="cnn_small", batch=48, eps=0.1)
    full = data.load("digits")
    equal(*(state_of(folder, own, full) for folder in (whole, parts)))
    assert rows(whole) == rows(parts)


@pytest.mark.slow
def test_eight_devices_train_as_one():
    program = Path(__file__).with_name("sharded_training.py")
    result = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, cwd=EXAMPLES.parent
    )
    assert result.returncode == 0 and "equal" in result.stdout, result.stderr[-4000:]
