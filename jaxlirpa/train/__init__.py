"""Certified training: losses that bound the worst case, as pure functions for `jax.grad`.

`certified`, `fused` and `crown_ibp` are the losses; `pgd` attacks, `small_box`, `mtl_ibp`,
`exp_ibp` and `cc_ibp` are made of both; `tightness` and `relu_balance` regularise, `ibp_normal`
initialises, `linear` and `smoothed` are schedules. BatchNorm and dropout of flax are in
`jaxlirpa.train.linen` and `jaxlirpa.train.nnx`, which are imported by name. The guide is
docs/training.md.
"""

from jaxlirpa._errors import MixedExamplesWarning, UntrainedBatchNormWarning
from jaxlirpa.train.attack import pgd
from jaxlirpa.train.boxes import clipped_box
from jaxlirpa.train.expressive import cc_ibp, exp_ibp, mtl_ibp
from jaxlirpa.train.initialise import ibp_normal
from jaxlirpa.train.losses import certified, cross_entropy, crown_ibp, fused, natural, verified
from jaxlirpa.train.margins import margins
from jaxlirpa.train.regularisers import Boxes, relu_balance, tightness
from jaxlirpa.train.schedules import linear, smoothed
from jaxlirpa.train.small_boxes import small_box

__all__ = [
    "Boxes",
    "MixedExamplesWarning",
    "UntrainedBatchNormWarning",
    "cc_ibp",
    "certified",
    "clipped_box",
    "cross_entropy",
    "crown_ibp",
    "exp_ibp",
    "fused",
    "ibp_normal",
    "linear",
    "margins",
    "mtl_ibp",
    "natural",
    "pgd",
    "relu_balance",
    "small_box",
    "smoothed",
    "tightness",
    "verified",
]
