"""Where a value is computed, as plain data."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Source:
    """The user's line that computes a value, and the scopes around it.

    Attributes:
        place: `file:line (function)`; empty where it is not known.
        line: the same without folders, `function:line`.
        scope: the scopes' names, outermost first: of `jax.named_scope`, or a module's path.
    """

    place: str = ""
    line: str = ""
    scope: str = ""

    def __str__(self) -> str:
        return f"{self.place} in {self.scope}" if self.place and self.scope else self.place

    def within(self, outer: Source) -> Source:
        """The source of what is computed in a function that is called at `outer`."""
        scope = "/".join(filter(None, (outer.scope, self.scope)))
        own = self if self.place else outer
        return Source(own.place, own.line, scope)

    def label(self, primitive: str) -> str:
        """What to call a value: by its scope or, where there is none, by its line."""
        return "/".join(filter(None, (self.scope or self.line, primitive)))
