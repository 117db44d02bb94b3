"""Certified landscapes: what a loss can be, anywhere within a distance of the weights.

All of it is the transforms of `jaxlirpa` with sets in the weights' place. `plotting`, which
needs matplotlib, is imported on its own: `from jaxlirpa.landscape import plotting`.
"""

from jaxlirpa.landscape.band import certified_band as certified_band
from jaxlirpa.landscape.band import flat_loss as flat_loss
from jaxlirpa.landscape.neighbourhoods import every_leaf as every_leaf
from jaxlirpa.landscape.neighbourhoods import every_matrix as every_matrix
from jaxlirpa.landscape.neighbourhoods import jointly as jointly
from jaxlirpa.landscape.predictions import unchanged as unchanged
from jaxlirpa.landscape.quantisation import NEVER as NEVER
from jaxlirpa.landscape.quantisation import certified_bits as certified_bits
from jaxlirpa.landscape.quantisation import quantisation_cell as quantisation_cell
from jaxlirpa.landscape.quantisation import quantise as quantise
from jaxlirpa.landscape.radius import accuracy_radius as accuracy_radius
from jaxlirpa.landscape.radius import flat_radius as flat_radius
from jaxlirpa.landscape.radius import largest_certified as largest_certified
from jaxlirpa.landscape.radius import stable_radii as stable_radii
from jaxlirpa.landscape.search import attained as attained
from jaxlirpa.landscape.search import extreme as extreme
from jaxlirpa.landscape.search import sampled as sampled
from jaxlirpa.landscape.sharpness import curvature_bounds as curvature_bounds
from jaxlirpa.landscape.sharpness import gradient_bounds as gradient_bounds
from jaxlirpa.landscape.sharpness import hessian_vector_bounds as hessian_vector_bounds
from jaxlirpa.landscape.sharpness import slope_bounds as slope_bounds
from jaxlirpa.landscape.sharpness import steepness as steepness
from jaxlirpa.landscape.slices import Slice as Slice
from jaxlirpa.landscape.slices import certified_slice as certified_slice
from jaxlirpa.landscape.slices import random_directions as random_directions
