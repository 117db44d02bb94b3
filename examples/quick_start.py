"""Bounds on the logits of a small network for every image within eps of a given one."""

import flax.linen as nn
import jax

import jaxlirpa


class Network(nn.Module):
    """One convolution and one dense layer: images (n, 8, 8, 1) to logits (n, 10)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(8, (3, 3), strides=2)(x))
        x = x.reshape(x.shape[0], -1)
        return nn.Dense(10)(x)


x = jax.random.uniform(jax.random.key(0), (1, 8, 8, 1))
params = Network().init(jax.random.key(1), x)

lower, upper = jaxlirpa.crown(Network().apply)(params, x, 0.05)  # any |x' - x| <= 0.05

for k, logit in enumerate(Network().apply(params, x)[0]):
    print(f"class {k}: {lower[0, k]:+.3f} <= {logit:+.3f} <= {upper[0, k]:+.3f}")
