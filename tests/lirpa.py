"""The package's transforms, computed in NumPy: what tests that compile nothing call instead."""

from arithmetic import computed

import jaxlirpa

alpha_crown = computed(jaxlirpa.alpha_crown)
crown = computed(jaxlirpa.crown)
crown_ibp = computed(jaxlirpa.crown_ibp)
forward_crown = computed(jaxlirpa.forward_crown)
ibp = computed(jaxlirpa.ibp)
intermediate_bounds = computed(jaxlirpa.intermediate_bounds)
