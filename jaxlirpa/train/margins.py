"""The margins of a batch, traced once, and what is known of them over a set."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np

from jaxlirpa._domains.backward_linear import BackwardLinear, Functional
from jaxlirpa._domains.rows import Side
from jaxlirpa._domains.underflow import Underflow
from jaxlirpa._errors import ArgumentError, MixedExamplesWarning
from jaxlirpa._graph.graph import INPUT, Graph, Node, Ref
from jaxlirpa._graph.jaxpr import is_traced
from jaxlirpa._methods.arguments import arguments
from jaxlirpa._methods.chain import merged
from jaxlirpa._methods.independence import examples, mixing
from jaxlirpa._methods.inner import Inner, Transform, bound_inside
from jaxlirpa._methods.solution import enclose, enclose_functional
from jaxlirpa._methods.transform import named_sets, trace_call
from jaxlirpa._ops.families import Within
from jaxlirpa._ops.registry import record
from jaxlirpa._typing import (
    Array,
    ArrayLike,
    Bounds,
    Interval,
    PyTree,
    intersect,
    vacuous_where_nan,
)
from jaxlirpa.sets import ArraySet
from jaxlirpa.train.regularisers import Boxes

Network: TypeAlias = Callable[[PyTree, Any], Array]
Specification: TypeAlias = Callable[[PyTree, Any, Array], Array]


def margins(fn: Network) -> Specification:
    """The specification that all losses are made of: how far the other classes are ahead.

    Args:
        fn: the network.

    Returns:
        A function of (params, x, labels) to `logits - logits[label]`, `[batch, classes]`: zero at
        the label, and negative elsewhere where the network classifies as labelled. The transforms
        bound it together with the last layer. NaN where a label is not a class.

    Raises:
        ArgumentError: where logits are no matrix, or labels do not fit them or are no classes, as
            far as that is known outside of `jax.jit`. By the returned function.

    Example:
        >>> import jax.numpy as jnp, jaxlirpa
        >>> from jaxlirpa import train
        >>> fn = lambda params, x: x @ params
        >>> w, x, y = jnp.array([[1.0, -1.0]]), jnp.array([[2.0]]), jnp.array([0])
        >>> print(jaxlirpa.ibp(train.margins(fn))(w, jaxlirpa.Box(x - 1, x + 1), y).upper)
        [[ 0. -2.]]
    """

    def margins(params: PyTree, x: Any, labels: ArrayLike) -> Array:
        logits = fn(params, x)
        known = _checked(labels, jnp.shape(logits))
        return logits - jnp.take_along_axis(logits, known[:, None], axis=1)

    return margins


def _checked(labels: ArrayLike, shape: tuple[int, ...]) -> Array:
    """Labels, and in the place of those that are not there a number that is no class.

    A negative one would count from the end.
    """
    if len(shape) != 2 or jnp.shape(labels) != shape[:1]:
        raise ArgumentError(
            f"labels of shape {jnp.shape(labels)} do not fit logits of shape {shape}: logits are "
            "[batch, classes] and labels [batch]."
        )
    dtype, classes = jnp.result_type(labels), shape[1]
    if not jnp.issubdtype(dtype, jnp.integer):
        raise ArgumentError(f"labels are the numbers of classes, integers, and not {dtype}.")
    if not is_traced(labels):
        known = np.asarray(labels)
        if np.any((known < 0) | (known >= classes)):
            raise ArgumentError(
                f"labels from {known.min()} to {known.max()} are not all among the {classes} "
                f"classes, 0 to {classes - 1}."
            )
    found = jnp.asarray(labels)
    return jnp.where((found >= 0) & (found < classes), found, classes)


@dataclasses.dataclass(frozen=True)
class Margins:
    """The margins of a batch over the sets of a call.

    Attributes:
        graph: computes them, as its only output.
        sets: of its inputs.
        inner: what is known inside.
        target: the margins; or their value, where no input reaches them.
    """

    graph: Graph
    sets: Mapping[Ref, ArraySet]
    inner: Inner
    target: Ref | Array

    def box(self) -> Interval:
        """The margins between intervals, together with the last layer; or as `inner` has them."""
        if not isinstance(self.target, Ref):
            return Interval(self.target, self.target)
        found = {**self.inner.boxes, **merged(self.graph, self.sets, self.inner.boxes)}[self.target]
        tight = self.inner.tight.get(self.target, found)
        return vacuous_where_nan(intersect(found, tight))

    def crown(self) -> Interval:
        """The margins by one backward pass, a row a class."""
        if not isinstance(self.target, Ref):
            return self.box()
        found = enclose(self.graph, self.sets, self._domain(), self.target)
        return vacuous_where_nan(found.box)

    def weighted(self, weights: Array, origin: Array) -> Array:
        """Upper bounds of a weighted sum of each example's margins, by one row.

        Args:
            weights: `[batch, classes]`, none of them negative.
            origin: of the margins, `[batch, classes]`.

        Returns:
            `[batch]`: `sum(weights * (margins - origin))` is nowhere above it.
        """
        if not isinstance(self.target, Ref):
            return jnp.sum(weights * (self.target - origin), 1)
        domain = self._domain()
        offset = jnp.sum(weights * (domain.reference[self.target] - origin), 1)
        if self.target in self.graph.examples:
            side = Side(weights[None], offset[None])
        else:
            own = jnp.eye(len(weights), dtype=weights.dtype)
            side = Side(own[:, :, None] * weights, offset)
        functional = Functional(side, side)
        lost = domain.underflow.behind(self.target, self.sets.keys(), whole=False)
        found = enclose_functional(self.graph, self.sets, domain, self.target, functional, lost)
        return found.box.upper.reshape(-1)

    def _domain(self) -> BackwardLinear:
        """The backward domain, around the middles of boxes, which are there already.

        Any values will do as references of nonlinear nodes; those of affine nodes must be what the
        node makes of its operands' references. So are the middles of interval bounds: an affine
        node maps the middle of a box to that of its image. (Not so where a value is another one of
        which more is known.) A middle that is not finite makes all NaN that is computed from it.
        """
        domain = self.inner.relaxed.domain
        nodes = [self.graph.nodes[index] for index in self.graph.live()]
        if any(node.primitive != INPUT and isinstance(record(node), Within) for node in nodes):
            return domain
        middles = {ref: _middle(box) for ref, box in self.inner.boxes.items()}
        middles.update({ref: s.point() for ref, s in self.sets.items()})
        underflow = Underflow(self.graph, self.inner.boxes)
        return dataclasses.replace(domain, reference=middles, underflow=underflow)

    def boxes(self) -> Boxes:
        """What the regularisers read."""
        names = {**self.graph.names.first(), **{r: n for n, r in self.graph.names.marked.items()}}
        nodes = [self.graph.nodes[index] for index in self.graph.live()]
        refs = dict.fromkeys(node.perturbed[0] for node in nodes if _is_relu(node))
        relus = {names.get(ref, str(ref)): Bounds(*self.inner.tight[ref]) for ref in refs}
        return Boxes(tuple(Bounds(*s.hull()) for s in self.sets.values()), relus)


def _middle(box: Interval) -> Array:
    middle = 0.5 * box.lower + 0.5 * box.upper
    return jnp.where(jnp.isfinite(middle), middle, jnp.nan)


def _is_relu(node: Node) -> bool:
    """Whether a node is the maximum of a value and zero."""
    if node.primitive != "max" or len(node.perturbed) != 1:
        return False
    (known,) = node.known
    return not is_traced(known) and not np.any(np.asarray(known))


def bounded(
    fn: Network,
    args: tuple[Any, ...],
    eps: ArrayLike | None,
    intermediate: Transform | None,
    wanted: bool = False,
) -> Margins:
    """The margins of a network over the sets of a call.

    Args:
        fn: the network.
        args: params, x and labels.
        eps: the radius, where x is no set.
        intermediate: as of `bound_inside`.
        wanted: whether the margins themselves are bounded like what is inside.

    Raises:
        ArgumentError: where examples influence one another; and as `margins`.
    """
    graph, sets = traced(fn, args, eps)
    inner = bound_inside(
        graph,
        sets,
        intermediate=intermediate,
        given={},
        rows_per_chunk=None,
        wanted=graph.targets if wanted else (),
    )
    (target,) = graph.outputs
    return Margins(graph, sets, inner, target)


def traced(
    fn: Network, args: tuple[Any, ...], eps: ArrayLike | None
) -> tuple[Graph, dict[Ref, ArraySet]]:
    """The graph of the margins, and the sets of its inputs; refuses what mixes examples."""
    full, argnums = (args, None) if eps is None else ((*args, eps), 1)
    specification = margins(fn)
    call = arguments(specification, full, argnums)
    graph, _ = trace_call(specification, call)
    node = mixing(graph)
    if node is not None:
        raise ArgumentError(
            f"the losses of a batch are not seen to be independent: `{node.primitive}` at "
            f"{node.source} mixes examples. A BatchNorm in training mode does, whose statistics "
            "would be those of perturbed images: shared_statistics, of jaxlirpa.train.linen or "
            "nnx, shares those of the clean batch instead. If examples are independent although "
            "that is not seen, bound each alone: jax.vmap of a batch of one."
        )
    sets = named_sets(graph, call.sets)
    _warn_of_statistics(graph, sets)
    return graph, sets


def _warn_of_statistics(graph: Graph, sets: Mapping[Ref, ArraySet]) -> None:
    """Warns where statistics are taken of a batch of one, as if it were many."""
    alone = dataclasses.replace(graph, examples=examples(graph, sets, fewest=1))
    node = mixing(alone)
    if node is not None and node.primitive == "reduce_sum":
        warnings.warn(
            f"`reduce_sum` at {node.source} adds up a batch that has one example only. Is it a "
            "BatchNorm in training mode? Its statistics would be those of the perturbed image "
            "alone: see jaxlirpa.train.linen.shared_statistics.",
            MixedExamplesWarning,
            stacklevel=4,
        )
