"""Certified training: losses that bound the worst case, as pure functions for `jax.grad`.

`certified`, `fused` and `crown_ibp` are the losses; `pgd` attacks, `small_box`, `mtl_ibp`,
`exp_ibp` and `cc_ibp` are made of both; `tightness` and `relu_balance` regularise, `ibp_normal`
initialises, `linear` and `smoothed` are schedules. BatchNorm and dropout of flax are in
`jaxlirpa.train.linen` and `jaxlirpa.train.nnx`, which are imported by name. The guide is
docs/training.md.
"""

from jaxlirpa._errors import MixedExamplesWarning as MixedExamplesWarning
from jaxlirpa._errors import UntrainedBatchNormWarning as UntrainedBatchNormWarning
from jaxlirpa.train.attack import pgd as pgd
from jaxlirpa.train.boxes import clipped_box as clipped_box
from jaxlirpa.train.expressive import cc_ibp as cc_ibp
from jaxlirpa.train.expressive import exp_ibp as exp_ibp
from jaxlirpa.train.expressive import mtl_ibp as mtl_ibp
from jaxlirpa.train.initialise import ibp_normal as ibp_normal
from jaxlirpa.train.losses import certified as certified
from jaxlirpa.train.losses import cross_entropy as cross_entropy
from jaxlirpa.train.losses import crown_ibp as crown_ibp
from jaxlirpa.train.losses import fused as fused
from jaxlirpa.train.losses import natural as natural
from jaxlirpa.train.losses import verified as verified
from jaxlirpa.train.margins import margins as margins
from jaxlirpa.train.regularisers import Boxes as Boxes
from jaxlirpa.train.regularisers import relu_balance as relu_balance
from jaxlirpa.train.regularisers import tightness as tightness
from jaxlirpa.train.schedules import linear as linear
from jaxlirpa.train.schedules import smoothed as smoothed
from jaxlirpa.train.small_boxes import small_box as small_box
