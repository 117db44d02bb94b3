"""The margins of a batch over its sets: traced once, then bounded in several ways."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np

from jaxlirpa._arrays import where
from jaxlirpa._domains.backward_linear import BackwardBounds, BackwardLinear
from jaxlirpa._domains.rows import AffineRows
from jaxlirpa._errors import ArgumentError, MixedExamplesWarning
from jaxlirpa._graph.graph import INPUT, Node, Ref
from jaxlirpa._graph.jaxpr import is_traced
from jaxlirpa._intervals import Interval, intersect, vacuous_where_nan
from jaxlirpa._methods.affine_tail import tail_boxes
from jaxlirpa._methods.arguments import arguments
from jaxlirpa._methods.independence import mixing, proved_batch_axes
from jaxlirpa._methods.intermediate_boxes import Intermediate, Transform, intermediate_boxes
from jaxlirpa._methods.layerwise import Layerwise
from jaxlirpa._methods.named_bounds import strategy_of
from jaxlirpa._methods.problem import Problem, problem_of
from jaxlirpa._methods.solution import enclose, enclose_functionals
from jaxlirpa._ops.families import Refined
from jaxlirpa._ops.registry import record
from jaxlirpa._types import Array, ArrayLike, Bounds, PyTree
from jaxlirpa.train.regularisers import Boxes

Network: TypeAlias = Callable[[PyTree, Any], Array]
Specification: TypeAlias = Callable[[PyTree, Any, Array], Array]


def margins(fn: Network) -> Specification:
    """The specification that the losses bound: every class's logit minus the label's.

    Args:
        fn: the network.

    Returns:
        A function of (params, x, labels) that returns `logits - logits[label]`,
        `[batch, classes]`: zero at the label, and negative at all other classes if the example is
        classified correctly. The transforms bound it together with the last layer. An example whose
        label is no class has NaN.

    Raises:
        ArgumentError: by the returned function, where logits are not a matrix or labels do not fit
            them. Labels that are no classes are refused outside `jax.jit`, where they are known.

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
    """The labels, each label that is no class replaced by the number of classes.

    Indexing by that gives NaN; by a negative label it would count from the end.
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
    return where((found >= 0) & (found < classes), found, classes)


@dataclasses.dataclass(frozen=True)
class Margins:
    """The margins of a batch over the sets of a call.

    Attributes:
        inside: the boxes inside the program whose only output they are.
        target: the margins in that program, or their value if they do not depend on any input.
    """

    inside: Intermediate
    target: Ref | Array

    @property
    def problem(self) -> Problem:
        """The program, and the sets of its inputs."""
        return self.inside.problem

    def box(self) -> Interval:
        """The margins by intervals with the affine tail composed, or as in `inside` if tighter."""
        if not isinstance(self.target, Ref):
            return Interval(self.target, self.target)
        boxes = self.inside.boxes
        found = {**boxes, **tail_boxes(self.problem, boxes)}[self.target]
        tight = self.inside.tight.get(self.target, found)
        return vacuous_where_nan(intersect(found, tight))

    def crown(self) -> Interval:
        """The margins by one backward pass, with a row for each class."""
        if not isinstance(self.target, Ref):
            return self.box()
        found = enclose(self.problem, self._domain(), self.target)
        return vacuous_where_nan(found.box)

    def weighted(self, weights: Array, origin: Array) -> Array:
        """Upper bounds of a weighted sum of each example's margins, by one row.

        Args:
            weights: nonnegative, `[batch, classes]`.
            origin: subtracted from the margins, `[batch, classes]`.

        Returns:
            Upper bounds `[batch]` of `sum(weights * (margins - origin), axis=1)` over the sets.
        """
        if not isinstance(self.target, Ref):
            return jnp.sum(weights * (self.target - origin), 1)
        domain = self._domain()
        offset = jnp.sum(weights * (domain.reference[self.target] - origin), 1)
        if self.target in self.problem.graph.batch_axes:
            side = AffineRows(weights[None], offset[None])
        else:
            own = jnp.eye(len(weights), dtype=weights.dtype)
            side = AffineRows(own[:, :, None] * weights, offset)
        functional = BackwardBounds(side, slack=jnp.zeros((), offset.dtype))
        found = enclose_functionals(self.problem, domain, {self.target: functional})
        return found.box.upper.reshape(-1)

    def _domain(self) -> BackwardLinear:
        """The backward domain, with the middles of boxes as reference values.

        This saves an evaluation of the program. The reference of a nonlinear node may be any value.
        That of an affine node must be its function of the operands' references, and the middle of
        an interval bound is: an affine function maps the middle of a box to the middle of the
        image's interval bound. It is not where a `Refined` node's box is tighter than its
        operand's; there the program is evaluated. Where a middle is not finite it becomes NaN, and
        so does everything computed from it.
        """
        nodes = [self.problem.graph.nodes[index] for index in self.problem.graph.live()]
        if any(node.primitive != INPUT and isinstance(record(node), Refined) for node in nodes):
            return self.inside.relaxed().domain
        middles = {ref: _middle(box) for ref, box in self.inside.boxes.items()}
        middles.update({ref: s.point() for ref, s in self.problem.sets.items()})
        return self.inside.relaxed(middles).domain

    def boxes(self) -> Boxes:
        """The boxes that the regularisers read."""
        graph = self.problem.graph
        names = {**graph.names.first(), **{r: n for n, r in graph.names.marked.items()}}
        nodes = [graph.nodes[index] for index in graph.live()]
        refs = dict.fromkeys(node.perturbed[0] for node in nodes if _is_relu(node))
        relus = {names.get(ref, str(ref)): Bounds(*self.inside.tight[ref]) for ref in refs}
        return Boxes(tuple(Bounds(*s.hull()) for s in self.problem.sets.values()), relus)


def _middle(box: Interval) -> Array:
    middle = 0.5 * box.lower + 0.5 * box.upper
    return where(jnp.isfinite(middle), middle, jnp.nan)


def _is_relu(node: Node) -> bool:
    """Whether a node is a relu: the maximum of a value and zero."""
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
        eps: the radius, if x is not a set.
        intermediate: as for `jaxlirpa.crown`.
        wanted: whether the strategy tightens the margins, too.

    Raises:
        ArgumentError: where examples influence one another; and as `margins`.
    """
    problem = traced(fn, args, eps)
    strategy, _ = strategy_of(intermediate, Layerwise())
    wanted_refs = problem.graph.targets if wanted else ()
    (target,) = problem.graph.outputs
    return Margins(intermediate_boxes(problem, strategy, wanted=wanted_refs), target)


def traced(fn: Network, args: tuple[Any, ...], eps: ArrayLike | None) -> Problem:
    """The program of the margins, and the sets of its inputs; raises if it mixes examples."""
    full, argnums = (args, None) if eps is None else ((*args, eps), 1)
    specification = margins(fn)
    call = arguments(specification, full, argnums)
    problem, _ = problem_of(specification, call)
    node = mixing(problem.graph)
    if node is not None:
        raise ArgumentError(
            f"the losses of a batch are not seen to be independent: `{node.primitive}` at "
            f"{node.source} mixes examples. A BatchNorm in training mode does, whose statistics "
            "would be those of perturbed images: shared_statistics, of jaxlirpa.train.linen or "
            "nnx, shares those of the clean batch instead. If examples are independent although "
            "that is not seen, bound each alone: jax.vmap of a batch of one."
        )
    _warn_of_statistics(problem)
    return problem


def _warn_of_statistics(problem: Problem) -> None:
    """Warns where a batch of one example is averaged over, as by BatchNorm in training mode."""
    axes = proved_batch_axes(problem.graph, problem.sets, fewest=1)
    alone = dataclasses.replace(problem.graph, batch_axes=axes)
    node = mixing(alone)
    if node is not None and node.primitive == "reduce_sum":
        warnings.warn(
            f"`reduce_sum` at {node.source} adds up a batch that has one example only. Is it a "
            "BatchNorm in training mode? Its statistics would be those of the perturbed image "
            "alone: see jaxlirpa.train.linen.shared_statistics.",
            MixedExamplesWarning,
            stacklevel=4,
        )
