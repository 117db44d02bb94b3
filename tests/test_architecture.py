"""The architecture as it is drawn in docs/architecture.md, read off the imports."""

from __future__ import annotations

import ast
import doctest
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import jaxlirpa
from jaxlirpa import extend, landscape, sets, train, verify

PACKAGE = Path(jaxlirpa.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

# From the bottom up; a module may import from ranks below its own and from its own unit.
RANKS = [
    {"_types"},
    {"_mesh", "_arrays"},
    {"_minmax"},
    {"_intervals"},
    {"_errors"},
    {"_graph", "_relax", "sets"},
    {"_ops"},
    {"_transpose"},
    {"_walk"},
    {"_domains"},
    {"_methods"},
    {"__init__"},
    {"extend"},
    {"verify"},
    {"vnnlib"},
    {"train"},
    {"landscape"},
    {"onnx"},
    {"command"},
    {"__main__"},
]
RUN_TIME = {"jax", "numpy", "optax", "jaxlirpa", "scipy"}  # JAX needs SciPy itself
# What single modules need besides, which no other module may import.
EXTRAS = {
    PACKAGE / "landscape" / "plotting.py": {"matplotlib", "mpl_toolkits"},
    **{PACKAGE / "train" / name: {"flax"} for name in ("linen.py", "nnx.py")},
}
NAMES = {
    "ArgumentError",
    "Bounds",
    "Box",
    "ControlFlowError",
    "DomainError",
    "EffectError",
    "ExpensiveJointCallWarning",
    "Explanation",
    "ExtensionError",
    "IntermediateBounds",
    "JointBall",
    "LinearBounds",
    "LirpaError",
    "LpBall",
    "SetError",
    "UnsupportedPrimitiveError",
    "alpha_crown",
    "crown",
    "crown_ibp",
    "explain",
    "forward_crown",
    "ibp",
    "intermediate_bounds",
}


def unit(path: Path) -> str:
    """The folder or top-level file that a source belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rank(name: str) -> int:
    """The rank of a unit."""
    return next(i for i, names in enumerate(RANKS) if name in names)


def imports(path: Path) -> Iterator[str]:
    """The full names of the modules that a source imports, wherever it does so."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    """The functions of a source, nested ones too."""
    return (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    own = unit(path)
    for module in imports(path):
        parts = module.split(".")
        if parts[0] == "jaxlirpa" and len(parts) > 1 and parts[1] != own:
            assert rank(parts[1]) < rank(own), f"{path} imports {module}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_public_jax_and_run_time_dependencies(path: Path) -> None:
    standard = set(__import__("sys").stdlib_module_names)
    for module in imports(path):
        allowed = RUN_TIME | standard | EXTRAS.get(path, set())
        assert module.split(".")[0] in allowed, f"{path} imports {module}"
        assert all(
            module != ".".join(x.relative_to(PACKAGE.parent).with_suffix("").parts) for x in EXTRAS
        ), f"{path} imports {module}"
        assert not module.startswith(("jax._src", "jax.core", "jax.interpreters")), module
        if module.startswith("jax.extend"):
            assert path == PACKAGE / "_graph" / "jaxpr.py", f"{path} touches jaxpr types"
    assert "jax._src" not in path.read_text()


def test_no_two_modules_have_one_name() -> None:
    stems = [path.stem for path in SOURCES if path.stem != "__init__"]
    assert len(stems) == len({*stems})


def test_a_domain_imports_no_sibling_but_the_lowest() -> None:
    for path in (PACKAGE / "_domains").glob("*.py"):
        siblings = {m.split(".")[-1] for m in imports(path) if m.startswith("jaxlirpa._domains.")}
        lowest = {"integer_affine", "interval", "ordered", "rows", "underflow", "windows"}
        assert siblings <= lowest, path


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_stay_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500
    for function in functions(path):
        docstring = (ast.get_docstring(function) or "").count("\n") + 1
        length = function.end_lineno - function.lineno - docstring
        assert length <= 60, f"{path}: {function.name} has {length} lines"


def test_public_names() -> None:
    public = {n for n in vars(jaxlirpa) if not n.startswith("_")}
    # Those that another test has imported.
    public -= {"command", "onnx", "vnnlib"}
    assert public - {"sets", "extend", "landscape", "train", "verify"} == NAMES


@pytest.mark.parametrize("module", [jaxlirpa, extend, landscape, sets, train, verify])
def test_all_says_what_is_public(module: Any) -> None:
    public = {n for n, x in vars(module).items() if n[0] != "_" and not inspect.ismodule(x)}
    assert {*module.__all__} == public and [*module.__all__] == sorted(module.__all__)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_public_objects_are_documented(name: str) -> None:
    thing = getattr(jaxlirpa, name)
    assert len(inspect.getdoc(thing) or "") > 40
    if inspect.isfunction(thing):
        for section in ("Example:", "Args:", "Returns:", "Raises:"):
            assert section in thing.__doc__ or name == "crown_ibp", f"{name}: no {section}"


TRAINING = {n for n in vars(train) if not n.startswith("_") and callable(getattr(train, n))}


@pytest.mark.parametrize("name", sorted(TRAINING))
def test_training_is_documented(name: str) -> None:
    thing = getattr(train, name)
    assert len(inspect.getdoc(thing) or "") > 40
    assert "Example:" in (thing.__doc__ or "") or inspect.isclass(thing), f"{name}: no example"


@pytest.mark.parametrize("name", sorted(verify.__all__))
def test_verification_is_documented(name: str) -> None:
    assert len(inspect.getdoc(getattr(verify, name)) or "") > 40


DOCUMENTED = [getattr(jaxlirpa, name) for name in sorted(NAMES)]
DOCUMENTED += [x for x in vars(landscape).values() if inspect.isfunction(x)]
DOCUMENTED += [getattr(train, name) for name in sorted(TRAINING)]
VERIFICATION = {n for n in verify.__all__ if callable(getattr(verify, n))}
DOCUMENTED += [getattr(verify, name) for name in sorted(VERIFICATION)]
DOCUMENTED += [sets.relative_to_norm, sets.relative_to_entries]
EXAMPLES = [
    pytest.param(test, id=test.name)
    for thing in DOCUMENTED
    for test in doctest.DocTestFinder(recurse=False).find(thing, thing.__name__)
    if test.examples
]


@pytest.mark.few(12)
@pytest.mark.parametrize("example", EXAMPLES)
def test_docstring_examples_run(example: doctest.DocTest) -> None:
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(optionflags=options, verbose=False)
    output: list[str] = []
    result = runner.run(example, out=output.append)
    assert result.failed == 0, "".join(output)
