"""Certificates: what proves a property on a set, to be checked again in double precision."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxlirpa._errors import ArgumentError
from jaxlirpa._intervals import Interval
from jaxlirpa._methods.arguments import arguments
from jaxlirpa.verify import inputs
from jaxlirpa.verify.cache import kept_on_disk
from jaxlirpa.verify.condensed import (
    Condensed,
    Parameters,
    Subproblems,
    bounds_at,
    sharpen,
    starts,
)
from jaxlirpa.verify.instance import Instance
from jaxlirpa.verify.properties import Property, as_property
from jaxlirpa.verify.refine import Refinement, refined
from jaxlirpa.verify.root import neurons_of
from jaxlirpa.verify.tree import Floats, Forest, Leaf, Part, Split
from jaxlirpa.verify.walked import walked_bounds

_BATCH = 128


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What proves a property on a set. `recheck` needs it, the function and its arguments.

    Attributes:
        forest: the subproblems of those clauses whose bound by CROWN is not positive.
        leaves: parameters that prove each subproblem that is not split, by number.
        neurons: the layer and the number in it of every neuron of the condensed network, `[2,
            neurons]`; the layer is -1 where an entry only fills up.
        refinements: parameters that prove better boxes of the neurons on the whole set.
        sharpened: how many neurons were bounded anew in each part of the inputs' box; None where
            the splits are those of neurons.
        walked: whether parts were bounded by CROWN on the whole program.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxlirpa import verify
        >>> fn = lambda x: 1.1 - jnp.abs(x[0]) + jnp.abs(x[1]) - jnp.abs(x[1] - x[0])
        >>> x, eps = jnp.zeros(2), 0.5
        >>> found = verify.verify(fn)(x, eps)
        >>> again = verify.recheck(fn, found.certificate)(x, eps)
        >>> print(found.status, again > 0)
        proved True
    """

    forest: Forest
    leaves: Mapping[int, Leaf]
    neurons: NDArray[np.integer[Any]]
    refinements: Sequence[Refinement] = ()
    sharpened: int | None = None
    walked: bool = False

    def save(self, path: str | Path) -> None:
        """Writes the certificate as an `.npz` file; what is no array is in it as JSON.

        Args:
            path: of the file.
        """
        forest, numbers = self.forest, sorted(self.leaves)
        none = Leaf(np.zeros((1, 0)), np.zeros(0))
        own = [self.leaves[n] for n in numbers] or [none]
        about = {
            "roots": forest.roots,
            "refinements": len(self.refinements),
            "sharpened": self.sharpened,
            "walked": self.walked,
        }
        arrays: dict[str, Any] = {
            "split": np.array([*forest.splits], np.int64),
            "variable": np.array([s.variable for s in forest.splits.values()], np.int64),
            "point": np.array([s.point for s in forest.splits.values()], np.float64),
            "children": np.array([*forest.children.values()], np.int64).reshape(-1, 2),
            "leaf": np.array(numbers, np.int64),
            "alpha": np.stack([leaf.alpha for leaf in own]),
            "mu": np.stack([leaf.mu for leaf in own]),
            "neurons": self.neurons,
        }
        for i, refinement in enumerate(self.refinements):
            arrays[f"refined{i}"], arrays[f"by{i}"] = refinement
        np.savez_compressed(path, about=np.array(json.dumps(about)), **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Certificate:
        """Reads what `save` has written.

        Args:
            path: of the file.

        Raises:
            ArgumentError: where the file holds no certificate.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                about, arrays = json.loads(str(file["about"])), dict(file)
            names = ("split", "variable", "point", "children")
            forest = Forest([int(c) for c in about["roots"]])
            for number, variable, at, pair in zip(*(arrays[n] for n in names), strict=True):
                forest.splits[int(number)] = Split(int(variable), float(at))
                forest.children[int(number)] = int(pair[0]), int(pair[1])
            forest.size += 2 * len(forest.splits)
            triples = zip(arrays["leaf"], arrays["alpha"], arrays["mu"], strict=False)
            leaves = {int(n): Leaf(alpha, mu) for n, alpha, mu in triples}
            refinements = [
                Refinement(arrays[f"refined{i}"], arrays[f"by{i}"])
                for i in range(about["refinements"])
            ]
        except (KeyError, ValueError, TypeError) as error:
            raise ArgumentError(f"{path} holds no certificate: {error}") from error
        own = forest, leaves, arrays["neurons"], refinements
        return cls(*own, about["sharpened"], about["walked"])


@dataclasses.dataclass(frozen=True)
class Checked:
    """What a check found.

    Attributes:
        lower: the least bound of all clauses; what is not proved counts as minus infinity.
        failed: the leaves that are not proved.
        missing: clauses of which the certificate has no proof.
    """

    lower: float
    failed: Sequence[int]
    missing: Sequence[int]

    @property
    def holds(self) -> bool:
        """Whether the property is proved."""
        return not self.failed and not self.missing


def check(instance: Instance, certificate: Certificate) -> Checked:
    """Checks a certificate in double precision.

    Only the splits and the parameters are the certificate's, any of which are sound: bounds of the
    whole set and the condensed network are the instance's, and the bound of every leaf is computed
    anew. That the leaves cover the set follows from how they are made, by splitting it again.
    """
    with jax.enable_x64(True):
        bounds, left = instance.root.lower(instance.clauses), instance.left
        missing = [i for i in left if i not in certificate.forest.roots]
        failed: list[int] = []
        if left and not missing:
            proved: dict[int, float] = {}
            checker = _Checker(instance, certificate)
            for part, own in checker.bounds():
                proved[part.clause] = min(proved.get(part.clause, np.inf), own)
                if not own > instance.least:
                    failed.append(part.number)
            bounds = [max(own, proved.get(i, -np.inf)) for i, own in enumerate(bounds)]
        return Checked(-np.inf if failed or missing else min(bounds), failed, missing)


class _Checker:
    """Bounds the leaves of a certificate."""

    def __init__(self, instance: Instance, certificate: Certificate):
        self.instance, self.certificate = instance, certificate
        split_inputs = certificate.walked or certificate.sharpened is not None
        self.inputs = np.stack(inputs.limits(instance.exact.sets)) if split_inputs else None
        self.box: tuple[Floats, Floats] = (np.zeros(0), np.zeros(0))
        if not certificate.walked:
            self.net = self._condensed()
            self.box = np.asarray(self.net.box.lower), np.asarray(self.net.box.upper)

    def _condensed(self) -> Condensed:
        """The condensed network, with the boxes that the certificate's refinements prove."""
        if self.instance.root.layers is None:
            raise ArgumentError("the certificate is of another function: this one has joint nodes")
        layers, numbers = self.certificate.neurons
        chosen = [
            np.union1d(unstable, numbers[layers == i]).astype(np.int32)
            for i, unstable in enumerate(self.instance.unstable)
        ]
        keys = [key for key, _ in neurons_of(chosen)]
        at = {key: k for k, key in enumerate(keys) if key[0] >= 0}
        pairs = list(enumerate(zip(layers.tolist(), numbers.tolist(), strict=True)))
        # From the certificate's numbers of neurons to those here.
        self.places = {k: at[key] for k, key in pairs if key[0] >= 0}
        self.theirs = np.array([*self.places], int)
        self.ours = np.array([*self.places.values()], int)
        pairs_of_entries = zip(chosen, self.instance.unstable, strict=True)
        are_those = all(np.array_equal(*pair) for pair in pairs_of_entries)
        net = self.instance.net if are_those else self.instance.condensed(chosen)
        for refinement in self.certificate.refinements:
            own = np.array([self.places[int(n)] for n in refinement.neurons], np.int32)
            start = np.asarray(starts(net, net.box))
            alpha = np.empty((2, len(start), len(own), start.shape[-1]))
            alpha[:] = start[None, :, None]
            alpha[..., self.ours] = _unit(refinement.alpha[..., self.theirs])
            net = refined(net, Refinement(own, alpha))
        return net

    def bounds(self) -> Iterator[tuple[Part, float]]:
        """Every leaf, and a lower bound of its clause; minus infinity without parameters."""
        forest = self.certificate.forest
        nothing = np.zeros(len(self.box[0]))
        whole = Part(0, 0, *self.box, self.inputs, nothing[None], nothing, -np.inf, ())
        level = forest.wholes(whole)
        while level:
            sharpened = [*self._sharpened(level)]
            leaves = [part for part in sharpened if part.number not in forest.splits]
            for some, own in self._batches(leaves):
                for part, bound in zip(some, own, strict=False):
                    yield part, float(bound)
            level = []
            for part in sharpened:
                if part.number in forest.splits:
                    halves = part.halves(self._moved(forest.splits[part.number]))
                    for n, half in zip(forest.children[part.number], halves, strict=True):
                        level.append(dataclasses.replace(half, number=n))

    def _batches(self, parts: Sequence[Part]) -> Iterator[tuple[Sequence[Part], Floats]]:
        """Leaves, and the bounds that their parameters prove."""
        leaves = self.certificate.leaves
        for some, full in _in_batches(parts):
            sub = self._arrays(full, self.instance.rows)
            there = np.array([part.number in leaves for part in full])
            if self.certificate.walked:
                lower = walked_bounds(self.instance, sub).lower
            else:
                alpha = np.array(starts(self.net, sub.box))
                mu = np.zeros_like(np.asarray(sub.box.lower))
                for i, part in enumerate(full):
                    if part.number not in leaves:
                        continue
                    leaf = leaves[part.number]
                    alpha[:, i, self.ours] = _unit(leaf.alpha[:, self.theirs])
                    mu[i, self.ours] = np.nan_to_num(leaf.mu[self.theirs])
                lower = bounds_at(self.net, sub, Parameters(jnp.asarray(alpha), jnp.asarray(mu)))
            yield some, np.where(there, np.asarray(lower), -np.inf)

    def _sharpened(self, parts: Sequence[Part]) -> Iterator[Part]:
        """Parts with better boxes of their neurons, where the inputs were split."""
        most = self.certificate.sharpened
        if not most or self.certificate.walked:
            yield from parts
            return
        for some, full in _in_batches(parts):
            box = sharpen(self.net, self._arrays(full, None), most=most)
            low, up = map(np.asarray, box)
            for i, part in enumerate(some):
                yield dataclasses.replace(part, low=low[i], up=up[i])

    def _arrays(self, parts: Sequence[Part], clauses: NDArray[Any] | None) -> Subproblems:
        none = np.zeros(1, np.int32)
        rows = np.stack([none if clauses is None else clauses[p.clause] for p in parts])
        low, up = (jnp.asarray(np.stack([getattr(p, s) for p in parts])) for s in ("low", "up"))
        limits = [p.inputs for p in parts if p.inputs is not None]
        of_inputs = Interval(*map(jnp.asarray, np.stack(limits, 1))) if limits else None
        signs = jnp.ones(rows.shape)
        return Subproblems(jnp.asarray(rows, jnp.int32), signs, Interval(low, up), of_inputs)

    def _moved(self, split: Split) -> Split:
        """A split of the certificate's network as one of this one."""
        if self.certificate.walked:
            return split
        count = self.certificate.neurons.shape[1]
        if split.variable >= count:
            return split._replace(variable=split.variable - count + len(self.box[0]))
        return split._replace(variable=self.places[split.variable])


def _unit(alpha: Floats) -> Floats:
    """Parameters between 0 and 1, whatever the certificate says."""
    return np.clip(np.nan_to_num(np.asarray(alpha, float)), 0, 1)


def _in_batches(parts: Sequence[Part]) -> Iterator[tuple[Sequence[Part], Sequence[Part]]]:
    """Some parts, and the same filled up to a whole batch."""
    for at in range(0, len(parts), _BATCH):
        some = parts[at : at + _BATCH]
        yield some, [*some, *[some[0]] * (_BATCH - len(some))]


def recheck(
    fn: Callable[..., Any] | Property,
    certificate: Certificate,
    *,
    argnums: int | tuple[int, ...] | None = None,
) -> Callable[..., float]:
    """Proves again, in double precision, what `verify` has proved.

    Bounds on the whole set, the condensed network and the bound of every leaf of the certificate
    are computed anew, each by one backward pass; only the splits and the parameters of the bounds
    are the certificate's, and any of those are sound. So the result is right whatever the
    certificate says, and its origin does not matter.

    Args:
        fn: what `verify` was given.
        certificate: of the verdict.
        argnums: as for `verify`.

    Returns:
        A function of the same arguments, which returns a lower bound of the property's margin.
        It is positive, by more than what rounding may explain, if the property is proved; else
        minus infinity.

    Raises:
        ArgumentError: where the arguments do not fit, or the certificate is of another function.
    """
    prop = as_property(fn)

    def rechecked(*args: Any, **named: Any) -> float:
        call = arguments(prop.functions[0], args, argnums, named)
        with kept_on_disk():
            return check(Instance.of(prop, call), certificate).lower

    return rechecked
