"""The grammar of random programs: lines of Python, each a call on values of earlier lines.

A program is its text, so that a counter-example can be read and pasted. Its values are of four
kinds with one shape each, and every operation maps kinds to a kind; what is defined on a part of
the numbers only is given arguments that stay inside by construction. A constant is
`c(seed, *shape)`, numbers of either sign that both precisions represent.

Operations are chosen by hashes of their text, never by their place in the table: a new template
changes the programs that it is chosen for, and all other seeds keep their meaning.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

SHAPES = {"s": (), "v": (3,), "m": (2, 3), "i": (1, 4, 3, 2)}
"""Scalars, vectors, matrices and images, by kind."""

FILE = "<program>"


def hashed(*key: Any) -> int:
    """A number that looks random, and is the same in every process."""
    digest = hashlib.blake2b("\n".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


@dataclasses.dataclass(frozen=True)
class Operation:
    """A template of an expression.

    Attributes:
        operands: the kind of each operand, named `x`, `y` and `z` in the template.
        result: the kind of its value.
        template: with `{k}` for a constant array of the first operand's shape, `{n}` for the seed
            of one, `{a}` for a number and `{p}` for a positive number.
    """

    operands: str
    result: str
    template: str

    @functools.cached_property
    def number(self) -> int:
        """By which it is chosen, a hash of all that it is."""
        return hashed(self.operands, self.result, self.template)


# For every kind.
ONE = """
-{x}
{x} + {k}
{k} - {x}
{x} * {k}
{a} * {x}
{x} / ({k} + jnp.copysign(0.5, {k}))
{x} / {p}
{k} / (1 + jnp.abs({x}))
{x} / (1 + jnp.square({x}))
jnp.reciprocal(-{p} - jnp.abs({x}))
jnp.abs({x})
jnp.square({x})
{x} ** 3
(jnp.square({x}) + {p}) ** -2
(jnp.abs({x}) + {p}) ** 1.7
(jnp.square({x}) + {p}) ** -0.4
{p} ** {x}
{p} ** jnp.tanh({x})
(jnp.abs({x}) + {p}) ** jnp.sin({x})
jnp.exp({x})
jnp.exp(-jnp.square({x}))
jnp.exp2({x})
jnp.expm1({x})
jnp.log(jnp.square({x}) + {p})
jnp.log(jnp.abs({x}))
jnp.log(jax.nn.softplus({x}))
jnp.log2(jnp.exp({x}) + {p})
jnp.log10(1 + jax.nn.relu({x}))
jnp.log1p(jnp.exp({x}))
jnp.log1p(jnp.abs({x}))
jnp.sqrt(jax.nn.relu({x}))
jnp.sqrt(jnp.square({x}) + {p})
1 / jnp.sqrt(jnp.abs({x}) + {p})
lax.rsqrt(jnp.square({x}) + {p})
jnp.cbrt({x})
jnp.sin({x})
jnp.cos({x})
jnp.sinc({x})
jnp.sinc({p} * {x})
jnp.interp({x}, np.array([-2, -1, 0.5, 0.5, 1], {x}.dtype), c({n}, 5).astype({x}.dtype))
jnp.interp({x}, np.array([-1, 0, {p}], {x}.dtype), c({n}, 3), left={a}, right="extrapolate")
jnp.searchsorted(np.array([-2, -1, 0.5, 1], {x}.dtype), {x}).astype({x}.dtype) * {x}
jnp.digitize({x}, np.array([1, 0.5, -1], {x}.dtype), right=True).astype({x}.dtype)
lax.lt_to_p.bind({x}, jnp.asarray({k})).astype({x}.dtype)
lax.le_to_p.bind({x}, jnp.asarray({k})).astype({x}.dtype)
lax.eq_to_p.bind({x}, jnp.asarray({k})).astype({x}.dtype)
1 / jnp.where({x} == 0, 1, {x})
jnp.select([{x} < {a}, {x} < {p}], [{x}, {k}], jnp.sin({x}))
jnp.piecewise({x}, [{x} < -1, {x} > {p}], [lambda t: t * t, jnp.sin, {a}])
jnp.tan(jnp.clip({x}, -1.4, 1.4))
jnp.tan(jnp.sin({x}))
jnp.arcsin(jnp.clip({x}, -1, 1))
jnp.arcsin(jnp.sin({x}) * 0.9)
jnp.arccos(jnp.tanh({x}) * 0.9)
jnp.arctan({x})
jnp.sinh({x})
jnp.sinh(jnp.clip({x}, -3, 3))
jnp.cosh({x})
jnp.arcsinh({x})
jnp.arccosh(1.1 + jnp.square({x}))
jnp.arctanh(jnp.clip({x}, -0.9, 0.9))
jax.scipy.special.erf({x})
jax.scipy.special.erfc({x})
jax.scipy.special.erfinv(jnp.clip({x}, -0.99, 0.99))
jax.scipy.special.gammaln(jnp.square({x}) + {p})
jax.scipy.special.digamma(jnp.abs({x}) + {p})
jax.scipy.special.logit(jnp.clip({x}, 0.01, 0.99))
jax.scipy.special.entr(jnp.abs({x}) + {p})
jax.scipy.special.xlogy({p}, jnp.square({x}) + {p})
jnp.tanh({x})
1 - jnp.tanh({x}) ** 2
jax.nn.sigmoid({x})
jax.nn.sigmoid({x}) * (1 - jax.nn.sigmoid({x}))
jax.nn.relu({x})
jax.nn.relu6({x})
jax.nn.leaky_relu({x})
jax.nn.leaky_relu({x}, -0.5)
jax.nn.leaky_relu({x}, {k})
jax.nn.hard_tanh({x})
jax.nn.hard_sigmoid({x})
jax.nn.hard_silu({x})
jax.nn.silu({x})
{x} * jax.nn.sigmoid({a} * {x})
jax.nn.gelu({x})
jax.nn.gelu({x}, approximate=False)
0.5 * {x} * (1 + jax.scipy.special.erf({x} / 1.4142135))
jax.nn.softplus({x})
jax.nn.elu({x})
jax.nn.elu({x}, {p})
jax.nn.celu({x})
jax.nn.celu({x}, {p})
jax.nn.selu({x})
jax.nn.mish({x})
{x} * jnp.tanh(jax.nn.softplus({x}))
jax.nn.soft_sign({x})
jax.nn.log_sigmoid({x})
jax.nn.squareplus({x})
jax.nn.sparse_plus({x})
jax.nn.sparse_sigmoid({x})
jnp.maximum({x}, {k})
jnp.minimum({a}, {x})
jnp.clip({x}, -jnp.abs({k}), jnp.abs({k}))
jnp.clip({x}, 0.5, -0.5)
lax.clamp(-jnp.abs({k}), {x}, jnp.abs({k}))
jnp.where({x} > {a}, {x}, {a} * {x})
jnp.where({x} > 0, {k}, jnp.sin({x}))
jnp.where({x} <= {k}, jnp.square({x}), 2 * {x} - 1)
jnp.where(({x} > -1) & ({x} < 1), {x}, jnp.sign({x}))
jnp.where(~({x} < {a}) | ({k} > 0), {x}, -{x})
jnp.where(({x} > 0) ^ ({x} > {p}), {x}, {k})
jnp.where({k} > 0, {x}, 0)
jnp.where({x} < -1, -{x}, jnp.where({x} < {p}, jnp.square({x}), {k}))
({x} > {a}).astype({x}.dtype)
({x} >= {k}).astype({x}.dtype) * {x}
({x} == {k}).astype({x}.dtype)
({x} != 0).astype({x}.dtype)
{x}.astype(bool).astype({x}.dtype)
jnp.isfinite({x}).astype({x}.dtype)
jnp.logical_xor({x} > 0, {k} > 0).astype({x}.dtype)
jnp.heaviside({x}, 0.5)
jnp.clip({x}, -100, 100).astype(jnp.int32).astype({x}.dtype)
(jnp.clip({x}, -5, 5).astype(jnp.int32) * 2 + 1).astype({x}.dtype)
{x}.astype(jnp.float32).astype({x}.dtype)
jnp.tanh({x}.astype(jnp.float64)).astype({x}.dtype)
lax.reduce_precision({x}, 8, 7)
lax.reduce_precision({x}, 5, 10)
jnp.floor({x})
jnp.ceil({x})
jnp.round({x})
lax.round({x}, lax.RoundingMethod.AWAY_FROM_ZERO)
jnp.trunc({x})
jnp.sign({x})
{x} - jnp.floor({x})
{x} % {p}
jnp.fmod({x}, {p})
lax.rem({x}, jnp.full({x}.shape, {a}, {x}.dtype))
jnp.nan_to_num({x})
jnp.nextafter({x}, {k})
jnp.logaddexp({x}, {k})
lax.stop_gradient({x}) * {x}
jnp.polyval(c({n}, 4), {x})
{x} - {x}
{x} + {a} * {x}
jax.checkpoint(lambda t: jnp.tanh(t) * t)({x})
jax.jit(lambda t: jnp.exp(-jnp.abs(t)))({x})
jax.grad(lambda t: jnp.sum(jnp.tanh(t) * {k}))({x})
jax.grad(lambda t: jnp.sum(jax.nn.sigmoid(t)))({x})
jax.grad(lambda t: jnp.sum(jax.nn.gelu(t)))({x})
jax.jvp(jax.grad(lambda t: jnp.sum(jnp.tanh(t))), (jnp.clip({x}, -3, 3),), ({k},))[1]
jax.jvp(jax.grad(lambda t: jnp.sum(jax.nn.sigmoid(t))), (jnp.clip({x}, -6, 6),), ({x},))[1]
jax.grad(lambda t: jnp.sum(jnp.tanh(t) * (jnp.tanh(t) - {k})))(jnp.clip({x}, -3, 3))
jax.grad(lambda t: jnp.sum(jax.nn.silu(t) ** 2))({x})
jax.grad(lambda t: jnp.sum(jax.nn.softplus(t) * t))({x})
jax.grad(lambda t: jnp.sum(jnp.sin(t) * jnp.exp(-t * t)))({x})
jax.grad(lambda t: jnp.sum(jax.nn.relu(t) ** 2))({x})
jax.grad(lambda t: jnp.sum(jnp.abs(t) * t))({x})
jax.grad(lambda t: jnp.sum(jnp.sqrt(t * t + {p})))({x})
jax.grad(lambda t: jnp.log(jnp.sum(jnp.exp(t))))({x})
lax.fori_loop(0, 3, lambda t, z: jnp.tanh(z + {k}), {x})
lax.fori_loop(1, 4, lambda t, z: z * 0.5 + t * {k}, {x})
lax.fori_loop(0, 300, lambda t, z: jnp.tanh(z + t * {k}), {x})
lax.while_loop(lambda q: q[0] < 2, lambda q: (q[0] + 1, jnp.sin(q[1]) + {x}), (0, {x}))[1]
lax.cond(jnp.sum({x}) > {a}, lambda t: jnp.sin(t), lambda t: t - {k}, {x})
lax.switch(jnp.clip(jnp.max({x}), 0, 2).astype(int), [jnp.sin, jnp.cos, jnp.tanh], {x})
lax.scan(lambda q, t: (q * t, q + t), {x}, c({n}, 2))[0]
"""

TWO = """
{x} + {y}
{x} - {y}
{x} * {y}
{x} * {y} * {k}
({x} + {y}) * ({x} - {y})
-{x} * ({k} * {y})
{k} * {x} + (1 - {k}) * {y}
{x} / (jnp.square({y}) + {p})
{x} / jnp.exp({y})
{x} / (-{p} - jnp.abs({y}))
{x} / ({p} + jax.nn.softplus({y}))
({p} + jnp.abs({x})) ** {y}
({p} + jnp.square({x})) ** jnp.tanh({y})
jnp.maximum({x}, {y})
jnp.minimum({x}, {y})
jnp.maximum({x}, {y} * {a})
jnp.clip({x}, -jnp.abs({y}), jnp.abs({y}))
lax.clamp({y} - {p}, {x}, {y} + {p})
jnp.where({x} > {y}, {x}, {y})
jnp.where({x} > {a}, {y}, {x})
jnp.where({x} < {y}, {x} * {y}, {k})
jnp.where({k} > 0, {x}, {y})
jnp.where(jnp.isfinite({x}) & ({y} >= 0), {x}, {y})
jnp.where(jnp.sum({x}) > jnp.sum({y}), {x}, {y})
jnp.logaddexp({x}, {y})
jnp.sqrt(jnp.square({x}) + jnp.square({y}) + {p})
jnp.exp(-jnp.square({x} - {y}))
jax.nn.sigmoid({x}) * jnp.tanh({y})
jax.nn.sigmoid({x}) * {y} + (1 - jax.nn.sigmoid({x})) * {x}
({x} <= {y}).astype({x}.dtype)
({x} == {y}).astype({x}.dtype)
jnp.equal(jnp.sign({x}), jnp.sign({y})).astype({x}.dtype)
jnp.nextafter({x}, {y})
jnp.arctan2({x}, {y})
jnp.arctan2({y}, jnp.abs({x}) + {p})
jnp.arctan2({k}, {x} - {y})
lax.select_n(jnp.clip({x}, 0, 2).astype(jnp.int32), {y}, {x}, {k})
lax.cond(jnp.max({x}) > {p}, lambda: {x}, lambda: {y})
lax.fori_loop(0, 2, lambda t, z: z * {y} - {k}, {x})
lax.fori_loop(0, 2, lambda t, z: jax.nn.relu(z - {y}), {x})
jax.jvp(jnp.tanh, ({x},), ({y},))[1]
jax.jvp(jax.nn.softplus, ({x},), ({y},))[1]
jax.grad(lambda t: jnp.sum(jnp.sin(t) * {y}))({x})
jax.grad(lambda t: jnp.sum(jnp.maximum(t, {y}) ** 2))({x})
{x} + lax.stop_gradient({y} - {x})
"""

SIGNATURES = {
    "m->m": """
        {x} @ c({n}, 3, 3)
        c({n}, 2, 2) @ {x}
        {x} @ {x}.T @ {x}
        {x} @ (c({n}, 3, 3) / 3) + c({n}, 3)
        {x} - {x}.mean(1, keepdims=True)
        jnp.broadcast_to({x}.mean(0), (2, 3)) + {x}
        jnp.cumsum({x}, 1)
        lax.cumsum({x}, 0, reverse=True)
        jnp.cumprod({x}, 1)
        lax.cumprod({x}, 1, reverse=True)
        lax.cummax({x}, 1)
        lax.cummin({x}, 1, reverse=True)
        lax.cumlogsumexp({x}, 1)
        jnp.diff({x}, axis=1, prepend=0)
        {x}[::-1, ::-1]
        {x}.reshape(3, 2).T
        {x}[:, np.array([2, 0, 2])]
        jnp.take_along_axis({x}, np.array([[0, 2, 1], [1, 1, 0]]), 1)
        jnp.pad({x}[:, 1:], ((0, 0), (0, 1)), mode="edge")
        jnp.pad({x}, ((1, 0), (0, 0)))[:2]
        jnp.roll({x}, 1, 1)
        jnp.tril({x})
        jnp.concatenate([{x}[:1], {k}[1:]])
        jnp.tile({x}[:, :1], (1, 3))
        lax.tile({x}[:1], (2, 1))
        jnp.repeat({x}[:1], 2, 0)
        jnp.hstack(jnp.split({x}, 3, 1)[::-1])
        jnp.stack(jnp.unstack({x})[::-1])
        {x}.at[0].add({x}[1])
        {x}.at[np.array([0, 0])].add({x})
        {x}.at[:, 1].set({k}[:, 0])
        {x}.at[:, np.array([2, 0])].set({x}[:, :2] * {a})
        {x}.at[np.array([[True, False, True], [False, False, True]])].set(c({n}, 3))
        {x}[:, np.array([True, True, True])] + jnp.argmax({x}, 1, keepdims=True)
        {x}[jnp.argmin({x}, 0)[:2]] * {k}
        jax.nn.one_hot(jnp.argmax({x}, 1), 3, dtype={x}.dtype) * {x}
        {x}.at[np.array([0, 0, 1])].multiply({k}[0])
        {x}.at[np.array([1, 7])].get(mode="clip")
        {x}.at[:, np.array([2, 9, 0])].get(mode="fill", fill_value={a})
        {x}.at[:, 2].divide({p})
        {x}.at[np.array([1, 1])].divide({p} + jnp.abs({k}))
        {x}.at[0].power(2.0)
        {x}.at[1, np.array([0, 2])].power(3)
        {x}.at[0].apply(jnp.sin)
        {x}.at[:, ::2].apply(lambda t: jnp.tanh(t) - {a} * t)
        {x}.at[np.array([1, 0, 1]), np.array([0, 2, 0])].apply(lambda t: {p} - t / 2)
        {x}.at[{k} > 0].apply(jnp.square)
        {x}.at[np.array([1, 8])].apply(jax.nn.relu, mode="drop")
        jnp.asarray({k}).at[np.array([0, 0])].max({x})
        lax.reduce({x}, {x}[0, 0], lax.min, (1,))[:, None] * {k}
        lax.reduce({x}, {x}.dtype.type(1), lambda p, q: q * p, (0,)) + {x}
        {x}.at[:, 0].set({x}[:, 1] * {x}[:, 2])
        {x}.at[np.array([1, 0, 1]), np.array([0, 1, 2])].subtract({x}[0])
        lax.dynamic_slice(jnp.pad({x}, ((1, 1), (0, 0))), (jnp.int32(1), jnp.int32(0)), (2, 3))
        lax.dynamic_update_slice({x}, {x}[:1] * {a}, (jnp.int32(1), jnp.int32(0)))
        jnp.sort({x}, 1)
        jnp.sort({x}, 0)[::-1]
        jnp.median({x}, 1, keepdims=True) + {x}
        lax.top_k({x}, 2)[0].sum(1, keepdims=True) - {x}
        jax.nn.softmax({x})
        jax.nn.softmax({x} @ c({n}, 3, 3), 0)
        jax.nn.softmax({x}, where={k} > -5)
        jax.nn.log_softmax({x})
        jnp.exp({x}) / jnp.sum(jnp.exp({x}), 1, keepdims=True)
        jnp.exp({x} - jnp.max({x}, 1, keepdims=True)) / 3
        {x} - jax.nn.logsumexp({x}, 1, keepdims=True)
        jax.nn.standardize({x}, -1)
        ({x} - {x}.mean(1, keepdims=True)) / jnp.sqrt({x}.var(1, keepdims=True) + 1e-3)
        ({x} - {x}.mean(1, keepdims=True)) * lax.rsqrt({x}.var(1, keepdims=True) + {p})
        {x} / jnp.sqrt(jnp.mean(jnp.square({x}), 1, keepdims=True) + 1e-5)
        {x} * lax.rsqrt(jnp.mean({x} * {x}, -1, keepdims=True) + {p}) * {k}
        {x} / (jnp.linalg.norm({x}, axis=1, keepdims=True) + {p})
        {x} / (1 + jnp.sum(jnp.abs({x}), 1, keepdims=True))
        ({x} == jnp.max({x}, 1, keepdims=True)).astype({x}.dtype)
        jnp.einsum("ij,kj,kl->il", {x}, {x}, {x})
        jax.nn.softmax({x} @ {x}.T / 1.7) @ {x}
        jax.nn.glu(jnp.concatenate([{x}, {k} * {x}], 1))
        lax.map(lambda r: jax.nn.softmax(r) * r, {x})
        jax.vmap(lambda r: jnp.cumsum(jnp.tanh(r)))({x})
        lax.associative_scan(jnp.add, {x}, axis=1)
        lax.associative_scan(jnp.maximum, {x}, axis=1)
        lax.scan(lambda q, r: (jnp.tanh(q + r), q * r), {x}[0], {x})[1]
        lax.scan(lambda q, r: (q + r, jax.nn.relu(q)), c({n}, 3), {x}, reverse=True)[1]
        jax.grad(lambda t: jnp.sum(jax.nn.softmax(t) * {k}))({x})
        jax.grad(lambda t: jnp.sum(jax.nn.logsumexp(t, 1)))({x})
        jax.grad(lambda t: jnp.sum(jnp.tanh(t @ c({n}, 3, 2)) @ c({n}, 2)))({x})
        jax.vmap(jax.grad(lambda r: jnp.prod(jnp.sin(r))))({x})
        jax.nn.relu({x} @ c({n}, 3, 4)) @ c({n}, 4, 3)
        jnp.where(jnp.any({x} > {a}, 1, keepdims=True), {x}, {k})
        jnp.where(jnp.all({x} > {a}, 0), {x}, -{x})
        jnp.linalg.multi_dot([{x}, c({n}, 3, 2), {x}])
        (jnp.tanh({x}.astype(jnp.bfloat16)) * 3).astype({x}.dtype)
        lax.cumsum({x}.astype(jnp.float16), 1).astype({x}.dtype)
        jnp.fft.rfft({x}, axis=0).real + jnp.fft.fft({x}).imag
        jnp.fft.irfft2(jnp.fft.rfft2({x}) * c({n}, 2, 2), (2, 3))
        jnp.abs(jnp.fft.fft({x})) ** 2
        jnp.abs(jnp.fft.fft2({x} + 1j * {k}))
        (jnp.exp(1j * {x}) * ({x} + 2j) / (3 - 1j)).real
        jnp.linalg.solve(c({n}, 2, 2) + 5 * np.eye(2, dtype={x}.dtype), {x})
        jax.scipy.linalg.cho_solve((c({n}, 2, 2) + 5 * np.eye(2, dtype={x}.dtype), True), {x})
        jax.scipy.linalg.solve_triangular(c({n}, 3, 3) + 5 * np.eye(3, dtype={x}.dtype), {x}.T).T
        lax.linalg.tridiagonal_solve({k}[:, 0], {k}[:, 1] + 9, {k}[:, 2], {x})
        """,
    "mm->m": """
        {x} @ {y}.T @ c({n}, 2, 3)
        jnp.fft.ifft(jnp.fft.fft({x}) * jnp.fft.fft({y})).real
        (lax.complex({x}, {y}) / lax.complex({k}, 1 + jnp.square({y}))).imag
        jnp.einsum("ij,kj,kl->il", {x}, {y}, {k})
        jnp.einsum("ij,ij->i", {x}, {y})[:, None] * {k}
        jax.nn.softmax({x} @ {y}.T) @ {y}
        jax.nn.softmax({x} @ {y}.T + np.array([[0, -1e9], [0, 0]], {x}.dtype)) @ {x}
        jnp.concatenate([{x}[:1], {y}[1:]])
        jnp.stack([{x}, {y}]).sum(0)
        jnp.max(jnp.stack([{x}, {y}, {x} * {a}]), 0)
        jax.nn.logsumexp(jnp.stack([{x}, {y}]), 0)
        {x}.at[:, :2].add({y}[:, 1:])
        {x}.at[1].set({y}[0])
        {x}.at[0].divide({p} + jnp.square({y}[1]))
        {x}.at[np.array([0, 1, 0])].apply(jax.nn.softplus) * {y}
        {x}.at[np.array([1, 0, 1])].multiply(jnp.stack([*{y}, {y}[0] + {x}[1]]))
        {x}.at[np.array([1, 1])].max({y})
        {x}.at[:, np.array([2, 7])].min({y}[:, :2])
        lax.dynamic_update_slice({x}, {y}[:, :2], (jnp.int32(0), jnp.int32(1)))
        lax.scan(lambda q, r: (jax.nn.sigmoid(q + r[0]) * r[1], q), {x}[0], ({x}, {y}))[1]
        lax.dot_general({x}, {y}, (((0,), (0,)), ((), ())))[:2]
        lax.batch_matmul({x}[:, None], {y}[:, :, None]).reshape(2, 1) - {x}
        jnp.sort(jnp.concatenate([{x}, {y}], 1), 1)[:, 1:4]
        """,
    "m->v": """
        {x}.sum(0)
        {x}.mean(0)
        {x}.max(0)
        {x}.min(0)
        {x}.prod(0)
        jax.nn.logsumexp({x}, 0)
        jnp.log(jnp.sum(jnp.exp({x}), 0))
        jnp.sqrt({x}.var(0) + 1e-3)
        jnp.linalg.norm({x}, axis=0)
        c({n}, 2) @ {x}
        {x}[1]
        {x}.at[1].get()
        {x}.T[:, 0] * {x}[1]
        jnp.sum(jax.nn.softmax({x}) * {x}, 0)
        jnp.any({x} > {a}, 0).astype({x}.dtype)
        jnp.all({x} < {a}, 0).astype({x}.dtype)
        jnp.count_nonzero({x} > {a}, 0).astype({x}.dtype)
        jnp.max({x}, 0, where={k} > -3, initial=-1)
        """,
    "v->v": """
        c({n}, 3, 3) @ {x}
        jax.nn.softmax({x})
        jnp.cumsum({x})
        jnp.sort({x})
        {x} + jnp.searchsorted(jnp.sort({x}), c({n}, 3), side="right")
        {x} * {x}[jnp.argmax({x})]
        {x} * jnp.sum({x})
        {x} - jnp.max({x})
        {x} / jnp.sqrt(jnp.sum(jnp.square({x})) + {p})
        jnp.convolve({x}, c({n}, 3), mode="same")
        jnp.convolve({x}, {x}, mode="same")
        jnp.fft.ifft(jnp.fft.fft(c({n}, 3))).real.astype({x}.dtype) * {x}
        jnp.interp(c({n}, 3), np.array([-1.0, 0.0, 1.0], {x}.dtype), {x})
        jax.jacfwd(lambda t: jnp.tanh(c({n}, 3, 3) @ t))({x}) @ c({n}, 3)
        jax.hessian(lambda t: jnp.sum(jnp.sin(t)) * t[0])({x})[0]
        """,
    "v->m": """
        jnp.outer(c({n}, 2), {x})
        jnp.stack([{x}, jnp.tanh({x})])
        jnp.broadcast_to({x}, (2, 3))
        jnp.zeros((2, 3), {x}.dtype).at[0].set({x})
        jnp.diag({x})[1:] + {x}
        """,
    "vm->m": """
        {x} + {y}
        {x} * {y}
        {y} / (1 + jnp.square({x}))
        jnp.maximum({y}, {x})
        {y} * jax.nn.sigmoid({x})
        jnp.where({x} > {a}, {y}, 0)
        ({y} - {y}.mean(1, keepdims=True)) * lax.rsqrt({y}.var(1, keepdims=True) + 1e-5) * {x} + {x}
        """,
    "vm->v": """
        {y}.T @ ({y} @ {x})
        jax.nn.softmax({y} @ {x}) @ {y}
        """,
    "v->s": """
        {x}.sum()
        {x}[1]
        {x}.max()
        {x} @ c({n}, 3)
        {x} @ {x}
        jnp.prod({x})
        jax.nn.logsumexp({x})
        jnp.linalg.norm({x})
        jnp.mean(jnp.square({x} - {x}.mean()))
        """,
    "vv->s": """
        {x} @ {y}
        jnp.sum(jnp.square({x} - {y}))
        jnp.max({x} - {y})
        ({x} @ {y}) / (1 + jnp.linalg.norm({x}) * jnp.linalg.norm({y}))
        """,
    "m->s": """
        {x}.mean()
        {x}.min()
        jnp.sum({x} * {k})
        jnp.sum(jax.nn.log_softmax({x})[:, 0])
        """,
    "sv->v": """
        {x} * {y}
        {y} + {x}
        {y} / (1 + jnp.square({x}))
        jnp.maximum({x}, {y})
        jnp.where({x} > {a}, {y}, {k})
        jnp.where({x} > {y}, {x}, {y})
        """,
    "sm->m": """
        {x} * {y}
        {y} - {x}
        jnp.where({x} > 0, {y}, jnp.tanh({y}))
        """,
    "s->v": """
        jnp.full(3, {x})
        jnp.stack([{x}, -{x}, jnp.sin({x})])
        c({n}, 3) * {x}
        """,
    "i->i": """
        conv({x}, c({n}, 2, 2, 2, 2))
        jnp.tile(conv({x}, c({n}, 3, 3, 2, 1)), (1, 1, 1, 2))
        conv({x}, c({n}, 3, 1, 1, 2), feature_group_count=2)
        conv({x}, c({n}, 2, 2, 2, 2), rhs_dilation=(2, 1))
        jnp.repeat(conv({x}, c({n}, 2, 2, 2, 2), window_strides=(2, 1)), 2, 1)
        pool({x})
        lax.reduce_window({x}, jnp.inf, lax.min, (1, 2, 3, 1), (1, 1, 1, 1), "SAME")
        lax.reduce_window({x}, 0.0, lax.add, (1, 2, 2, 1), (1, 1, 1, 1), "SAME") / 4
        jax.grad(lambda t: jnp.sum(pool(t) * {k}))({x})
        jax.grad(lambda t: jnp.sum(jnp.square(pool(jnp.sin(t)))))({x})
        jax.jvp(pool, ({x},), (jnp.tanh({x}),))[1]
        jnp.repeat({x}.reshape(1, 2, 2, 3, 2).max(2), 2, 1)
        ({x} - {x}.mean((1, 2), keepdims=True)) / jnp.sqrt({x}.var((1, 2), keepdims=True) + 1e-3)
        jax.nn.relu(conv({x}, c({n}, 2, 2, 2, 2)))
        jnp.transpose({x}, (0, 1, 2, 3))[..., ::-1]
        jax.nn.softmax({x}, -1)
        """,
    "mi->i": """
        {y} + conv({y}, {x}.reshape(1, 3, 2, 1))
        conv({y}, {x}.reshape(3, 1, 1, 2), feature_group_count=2)
        {y} * {x}.T
        """,
    "vi->i": """
        {y} * {x}[:, None]
        {y} + {x}[:, None]
        """,
    "i->m": """
        {x}[0, :2, :, 0]
        {x}.mean((0, 3))[:2]
        {x}.max((0, 3))[1:3]
        jnp.einsum("bhwc,hk->kw", {x}, c({n}, 4, 2))
        {x}.reshape(4, 6)[:2] @ c({n}, 6, 3)
        """,
    "i->v": """
        {x}.sum((0, 1, 3))
        {x}.max((0, 1, 3))
        {x}.reshape(-1) @ c({n}, 24, 3)
        """,
    "m->i": """
        jnp.tile({x}.reshape(1, 2, 3, 1), (1, 2, 1, 2))
        jnp.outer(c({n}, 4), {x}).reshape(1, 4, 3, 2)
        """,
}


def _operations() -> Iterator[Operation]:
    for kind in SHAPES:
        yield from (Operation(kind, kind, line) for line in ONE.split("\n") if line)
        yield from (Operation(2 * kind, kind, line) for line in TWO.split("\n") if line)
    for signature, lines in SIGNATURES.items():
        operands, result = signature.split("->")
        yield from (Operation(operands, result, x.strip()) for x in lines.split("\n") if x.strip())


OPERATIONS = tuple(_operations())

# ---- choices -------------------------------------------------------------------------------

HANDS = 128
"""Into as many hands the operations are dealt, a few each."""


def drawn(operations: Sequence[Operation], *key: Any) -> Operation:
    """One of the operations: that of the smallest hash, in which the key is mixed."""
    return min(operations, key=lambda x: hashed(*key, x.number))


def wanted(seed: int, operations: Sequence[Operation] = OPERATIONS) -> Operation:
    """The operation that the program of a seed is to have, among others.

    Every operation belongs to a hand, by its hash. Seeds take the hands in turn, and of each hand
    its operations in turn: all are met after as many rounds as the largest hand has operations. A
    new operation changes its own hand only.
    """
    hand = [x for x in operations if x.number % HANDS == seed % HANDS]
    if not hand:
        return drawn(operations, seed)
    return sorted(hand, key=lambda x: x.number)[seed // HANDS % len(hand)]


# ---- programs ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Line:
    """A value `v{number}`: an input, if it has no text, or an expression of earlier values."""

    number: int
    kind: str
    text: str = ""

    @property
    def reads(self) -> tuple[int, ...]:
        """The values that it is made of."""
        return tuple(sorted({int(n) for n in re.findall(r"\bv(\d+)\b", self.text)}))

    def reading(self, old: int, new: int) -> Line:
        """The line with another value in one's place."""
        return dataclasses.replace(self, text=re.sub(rf"\bv{old}\b", f"v{new}", self.text))


@dataclasses.dataclass(frozen=True)
class Program:
    """Lines in order, inputs first. What no later line reads is returned."""

    lines: tuple[Line, ...]

    @property
    def inputs(self) -> tuple[Line, ...]:
        """The lines that are inputs."""
        return tuple(line for line in self.lines if not line.text)

    @property
    def outputs(self) -> tuple[int, ...]:
        """The values that no line reads."""
        read = {n for line in self.lines for n in line.reads}
        return tuple(line.number for line in self.lines if line.number not in read)

    def __str__(self) -> str:
        names = ", ".join(f"v{line.number}" for line in self.inputs)
        body = [f"    v{line.number} = {line.text}" for line in self.lines if line.text]
        result = ", ".join(f"v{n}" for n in self.outputs)
        return "\n".join([f"def program({names}):", *body, f"    return {result},"])

    def function(self, dtype: Any) -> Callable[..., Any]:
        """The program in a precision."""

        def constant(seed: int, *shape: int) -> np.ndarray:
            found = np.random.default_rng(seed).normal(size=shape)
            return found.astype(np.float32).astype(dtype)

        names = {"jax": jax, "jnp": jnp, "lax": lax, "np": np}
        names |= {"c": constant, "conv": conv, "pool": pool}
        exec(compile(str(self), FILE, "exec"), names)
        return names["program"]


def conv(x: Any, kernel: Any, **options: Any) -> Any:
    """A convolution of an image, of the image's size unless it strides."""
    options = {"window_strides": (1, 1), "padding": "SAME", **options}
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, dimension_numbers=numbers, **options)


def pool(x: Any) -> Any:
    """Max pooling of an image, to its size."""
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "SAME")


def random_program(
    seed: int, rng: np.random.Generator, length: int, operations: Sequence[Operation] = OPERATIONS
) -> Program:
    """A program of some lines.

    Args:
        seed: of the choice of its operations, one of which is the wanted one.
        rng: random numbers, for all else.
        length: how many lines.
        operations: to choose from.
    """
    first = wanted(seed, operations)
    kinds = [*first.operands, *(first.operands[:1] if rng.uniform() < 0.3 else "")]
    lines = [Line(i, kind) for i, kind in enumerate(kinds)]
    place = int(rng.integers(length))
    for i in range(length):
        there = {line.kind for line in lines}
        possible = [x for x in operations if there.issuperset(x.operands)]
        lines.append(_line(rng, first if i == place else drawn(possible, seed, i), lines))
    read = {n for line in lines for n in line.reads}
    return Program(tuple(x for x in lines if x.text or x.number in read))


def _line(rng: np.random.Generator, operation: Operation, lines: Sequence[Line]) -> Line:
    """An operation on earlier values, recent ones more often."""
    names = {}
    for name, kind in zip("xyz", operation.operands, strict=False):
        found = [line.number for line in lines if line.kind == kind]
        weights = 1.0 + np.arange(len(found))
        names[name] = f"v{rng.choice(found, p=weights / weights.sum())}"
    shape = SHAPES[operation.operands[0]]
    seed = int(rng.integers(100))
    names["k"] = f"c({', '.join(map(str, (seed, *shape)))})"
    names["n"] = str(seed)
    names["a"] = f"{rng.choice([-2, -1, -0.5, 0.3, 1, 3]):g}"
    names["p"] = f"{rng.choice([0.1, 0.5, 1, 2, 7]):g}"
    return Line(len(lines), operation.result, operation.template.format(**names))
