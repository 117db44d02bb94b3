"""Our transposes of convolutions are those of JAX."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax import lax

from jaxlirpa._transpose.convolution import transpose, turnable
from jaxlirpa.sets import Box

SIZES = {"N": 2, "H": 7, "W": 9, "C": 3, "I": 3, "O": 4}
LAYOUTS = [("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW"), ("HWCN", "OHWI", "NWHC")]
PADDINGS: list[Any] = ["SAME", "VALID", [(1, 2), (0, 3)], [(-1, 0), (2, -1)]]


def compare(image: jax.Array, kernel: jax.Array, **params: Any) -> bool:
    """Holds the transpose against JAX's, and tells whether it is one of ours."""

    def convolve(x: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, **params)

    graph, _ = oracles.trace(convolve, Box(image, image))
    node = graph.nodes[-1]
    if not graph.targets:  # the window is larger than the image: no entry is left
        assert 0 in jax.eval_shape(convolve, image).shape
        return False
    assert node.primitive == "conv_general_dilated"
    values = jnp.sin(jnp.arange(float(node.outputs[0].size))).reshape(node.outputs[0].shape)
    (ours,) = transpose(node, [jax.ShapeDtypeStruct(image.shape, image.dtype)])((values,))
    (theirs,) = jax.linear_transpose(convolve, image)(values)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    return turnable(node)


@pytest.mark.few(4)
@pytest.mark.parametrize("window", [(3, 3), (4, 2), (1, 1)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 1), (3, 2)])
def test_transposes_are_those_of_jax(strides: tuple[int, int], window: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    sizes = SIZES | dict(zip("hw", window, strict=True))
    found = []
    for dilation, padding, layout in itertools.product([(1, 1), (2, 1)], PADDINGS, LAYOUTS):
        kernel_axes = layout[1].replace("H", "h").replace("W", "w")
        image = jnp.asarray(rng.normal(size=[sizes[c] for c in layout[0]]))
        kernel = jnp.asarray(rng.normal(size=[sizes[c] for c in kernel_axes]))
        found.append(
            compare(
                image,
                kernel,
                window_strides=strides,
                padding=padding,
                rhs_dilation=dilation,
                dimension_numbers=layout,
            )
        )
    assert sum(found) >= len(found) // 2


def test_convolutions_in_groups_are_left_to_jax() -> None:
    image, kernel = jnp.ones((1, 5, 5, 4)), jnp.ones((3, 3, 1, 4))
    numbers = ("NHWC", "HWIO", "NHWC")
    params = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": numbers}
    assert not compare(image, kernel, feature_group_count=4, **params)
