"""The mutations are still those of the package as it is, and of tests that there are."""

from __future__ import annotations

import ast
import collections
import functools

from mutations.catalogue import MUTATIONS
from mutations.mutation import ROOT


def test_every_mutation_applies() -> None:
    for mutation in MUTATIONS:
        changed = mutation.mutated(ROOT / "jaxlirpa")
        assert changed != (ROOT / "jaxlirpa" / mutation.file).read_text(), mutation
        compile(changed, mutation.file, "exec")


def test_names_are_unique() -> None:
    (_, most), *_ = collections.Counter(m.name for m in MUTATIONS).most_common(1)
    assert most == 1
    assert len(MUTATIONS) >= 40


@functools.cache
def names_in(path: str) -> set[str]:
    """The names of the tests in a file."""
    tree = ast.parse((ROOT / "tests" / path).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_tests_are_there() -> None:
    for mutation in MUTATIONS:
        assert mutation.tests, mutation
        for test in mutation.tests:
            path, _, name = test.partition("::")
            assert name.partition("[")[0] in names_in(path), f"{mutation}: no {test}"
