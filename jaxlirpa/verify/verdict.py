"""What verification found out."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from jaxlirpa.verify.certificate import Certificate

Status = Literal["proved", "refuted", "undecided"]


@dataclasses.dataclass(frozen=True)
class Progress:
    """The state of a search.

    Attributes:
        seconds: since the beginning.
        subproblems: how many were bounded.
        open: how many of them are neither proved nor split.
        worst: the least bound of those.
    """

    seconds: float
    subproblems: int
    open: int
    worst: float


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What a verification took.

    Attributes:
        seconds: by phase: attack, root, search, recheck. The first call of a function includes
            tracing and compilation.
        subproblems: how many were bounded.
        open: how many are left open.
        neurons: how many were unstable on the whole set.
    """

    seconds: dict[str, float]
    subproblems: int = 0
    open: int = 0
    neurons: int = 0


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The answer to the question whether a property holds on a set.

    Attributes:
        status: "proved", "refuted" or "undecided".
        lower: a lower bound of the property's margin on the set: the least of all clauses, each the
            largest of its alternatives. What is proved has a positive one.
        witness: where the property is refuted, the function's arguments at a point of the set,
            in double precision, at which the property was evaluated and fails; else None.
        certificate: of what is proved, for `recheck`; None if it was not searched for.
        statistics: what it took.
        reason: why nothing was decided, or an empty text.
    """

    status: Status
    lower: float
    witness: Any
    certificate: Certificate | None
    statistics: Statistics
    reason: str = ""

    def __bool__(self) -> bool:
        raise TypeError("a verdict is one of three; compare its status, as in v.status == 'proved'")

    def __str__(self) -> str:
        parts = [f"{name} {seconds:.2f} s" for name, seconds in self.statistics.seconds.items()]
        why = f" ({self.reason})" if self.reason else ""
        return (
            f"{self.status}{why}: lower bound {self.lower:.4g}, "
            f"{self.statistics.subproblems} subproblems, {', '.join(parts)}"
        )
