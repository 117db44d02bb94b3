"""The Python blocks of the README and the guides run, in order, and the commands are CI's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(<!-- not run -->\n)?```python\n(.*?)```", re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_snippets_run(page: Path) -> None:
    names: dict[str, object] = {}
    for skip, code in BLOCK.findall(page.read_text()):
        if not skip:
            exec(compile(code, str(page), "exec"), names)


def test_continuous_integration_runs_the_test_command_of_the_readme() -> None:
    commands = re.findall(r"```bash\n(.*?)\n```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tests,) = [c for c in commands if c.endswith("pytest")]
    assert tests in (ROOT / ".ci" / "run").read_text()
