"""A defect, and what becomes of the tests where it is."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]

# The tests of a mutation that take longer are taken for ones that do not end.
_SECONDS = 1800
# What pytest returns where tests have failed, and where none has.
_FAILED, _PASSED = 1, 0
# What no test reads, or is written anew.
_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.pyc")


@dataclasses.dataclass(frozen=True)
class Mutation:
    """A change of one place of the package that makes it wrong.

    Attributes:
        name: what is wrong then.
        file: below the package.
        before, after: a piece of the file that is there once, and what it becomes.
        tests: node ids below `tests`, cheap ones first, one of which should fail.
    """

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    def __str__(self) -> str:
        return self.name

    def mutated(self, package: pathlib.Path) -> str:
        """The text of the file with the change.

        Raises:
            ValueError: where the piece is not there, or more than once.
        """
        text = (package / self.file).read_text()
        found = text.count(self.before)
        if found != 1:
            raise ValueError(f"{self.name!r}: {self.file} has {found} of\n{self.before}")
        return text.replace(self.before, self.after)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a mutation.

    Attributes:
        mutation: the change.
        verdict: "caught", "survived", or "unclear" where tests could not be run to an end.
        detail: the test that failed; where it is unclear, the end of what pytest wrote.
    """

    mutation: Mutation
    verdict: str
    detail: str


def tried(
    mutation: Mutation, cache: pathlib.Path, tests: pathlib.Path = ROOT, marks: str = "not long"
) -> Outcome:
    """Runs the tests of a mutation in a copy of everything.

    Args:
        mutation: the change.
        cache: where compiled programs are kept from one run to the next.
        tests: the checkout that all but the package is taken from.
        marks: of the tests that count, as pytest's `-m`.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "copy"
        shutil.copytree(tests, copy, ignore=_LEFT_OUT)
        shutil.rmtree(copy / "jaxlirpa")
        shutil.copytree(ROOT / "jaxlirpa", copy / "jaxlirpa", ignore=_LEFT_OUT)
        (copy / "jaxlirpa" / mutation.file).write_text(mutation.mutated(copy / "jaxlirpa"))
        command = [sys.executable, "-m", "pytest", "-x", "-n", "0", "-q", "--tb=line"]
        command += ["-m", marks, "-o", f"cache_dir={cache}"]
        command += [f"tests/{test}" for test in mutation.tests]
        try:
            ended = subprocess.run(
                command, cwd=copy, capture_output=True, text=True, timeout=_SECONDS
            )
        except subprocess.TimeoutExpired:
            return Outcome(mutation, "unclear", f"no end in {_SECONDS} s")
    if ended.returncode == _PASSED:
        return Outcome(mutation, "survived", "")
    failed = re.search(r"^FAILED tests/(.*?)(?: - .*)?$", ended.stdout, re.MULTILINE)
    if ended.returncode == _FAILED and failed:
        return Outcome(mutation, "caught", failed[1])
    return Outcome(mutation, "unclear", (ended.stdout + ended.stderr)[-2000:])
