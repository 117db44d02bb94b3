"""The settings of a run of certified training, with defaults that suit each data set."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models import MODELS
from objectives import METHODS
from options import data_objection


class SettingError(Exception):
    """Settings that cannot be; the message is one line that says which and why."""


@dataclass(frozen=True)
class Settings:
    """All that a run depends on. It is stored in its checkpoints.

    Attributes:
      data: the name of the data set.
      data_dir: the folder with its files.
      model: a name in MODELS.
      method: a name in METHODS.
      eps: the radius to be certified, of pixels in [0, 1].
      train_eps: the radius at the end of training.
      epochs: passes over the training images.
      warmup: epochs with eps 0.
      ramp: epochs, after these, in which eps rises smoothly to `train_eps`.
      batch: images of a step.
      accumulate: steps whose gradients are averaged to one update.
      rate: Adam's learning rate; a fifth of it in the last quarter, a 25th in the last tenth.
      kappa: the share of the loss of clean images, at the beginning and at the end of the ramp.
      alpha: the share of the box (sabr), or of the certified loss (mtl-, exp-, cc-ibp).
      regularise: the weight of the regularisers of Shi et al. 2021 at eps 0.
      check: test images that are checked after every epoch.
      seed: of the initial weights, the order of images, augmentation and attacks.
    """

    data: str
    data_dir: str | None
    model: str
    method: str
    eps: float
    train_eps: float
    epochs: int
    warmup: int
    ramp: int
    batch: int
    accumulate: int = 1
    rate: float = 5e-4
    kappa: tuple[float, float] = (0.0, 0.0)
    alpha: float = 0.5
    regularise: float = 0.5
    check: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses what cannot be."""
        if objection := data_objection(self.data, self.data_dir):
            raise SettingError(objection)
        for name, value in (("eps", self.eps), ("train-eps", self.train_eps)):
            if not 0 < value <= 1:
                raise SettingError(f"--{name} {value:g}: pixels are in [0, 1], choose a part of it")
        for name in ("epochs", "batch", "accumulate", "check"):
            if getattr(self, name) < 1:
                raise SettingError(f"--{name} {getattr(self, name)}: at least 1 is needed")
        if min(self.warmup, self.ramp) < 0 or self.warmup + self.ramp > self.epochs:
            raise SettingError(
                f"--warmup {self.warmup} and --ramp {self.ramp} do not fit in {self.epochs} epochs"
            )
        for name, value in (("alpha", self.alpha), *(("kappa", share) for share in self.kappa)):
            if not 0 <= value <= 1:
                raise SettingError(f"--{name} {value:g}: a share is from 0 to 1")
        if not (0 < self.rate < math.inf and 0 <= self.regularise < math.inf):
            raise SettingError("--rate must be positive and --regularise not negative")


DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": {
        "model": "cnn_small",
        "method": "ibp",
        "eps": 0.1,
        "epochs": 30,
        "warmup": 1,
        "ramp": 11,
        "batch": 48,
        "rate": 1e-3,
    },
    "mnist": {
        "model": "cnn_small",
        "method": "ibp",
        "eps": 0.3,
        "epochs": 30,
        "warmup": 1,
        "ramp": 10,
        "batch": 128,
        "rate": 1e-3,
    },
    "cifar10": {
        "model": "cnn_7layer_bn",
        "method": "ibp",
        "eps": 8 / 255,
        "epochs": 160,
        "warmup": 1,
        "ramp": 80,
        "batch": 128,
    },
}


def from_given(given: dict[str, Any]) -> Settings:
    """The settings of a new run: those that are given, and for the others what suits the data."""
    values = DEFAULTS[given["data"]] | given
    if "epochs" in given:  # the defaults keep their proportions
        usual = DEFAULTS[given["data"]]
        for name in ("warmup", "ramp"):
            values[name] = given.get(name, usual[name] * given["epochs"] // usual["epochs"])
    values.setdefault("train_eps", values["eps"])
    values.setdefault("data_dir", None)
    return Settings(**values)


def stored(settings: Settings) -> dict[str, Any]:
    """As it can be written as JSON."""
    return dataclasses.asdict(settings)


def from_stored(values: dict[str, Any], given: dict[str, Any], folder: Path) -> Settings:
    """The settings of a stored run, to be continued or certified.

    Args:
      values: as `stored` returned them.
      given: on the command line; they must agree, but for the place of the data.
      folder: of the run, for messages.
    """
    settings = Settings(**(values | {"kappa": tuple(values["kappa"])}))
    for name, value in given.items():
        own = getattr(settings, name)
        if name != "data_dir" and value != own:
            option = name.replace("_", "-")
            raise SettingError(f"{folder} was trained with --{option} {own}, and not {value}")
    moved = {"data_dir": given["data_dir"]} if "data_dir" in given else {}
    return dataclasses.replace(settings, **moved)


def names() -> dict[str, list[str]]:
    """What can be chosen, by option."""
    return {"data": [*DEFAULTS], "model": [*MODELS], "method": [*METHODS]}
