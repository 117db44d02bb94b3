"""Write the tables of ``docs/performance.md``: ``python -m benchmarks.page FILE FLAGGED``.

FILE is what ``python -m benchmarks.run --json FILE`` has written, and FLAGGED what it has written
with ``--xla-flags``. The text around the tables stays.
"""

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import table

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"


def conditions(report: Mapping[str, Any]) -> str:
    """Where the figures come from, as a list."""
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    peaks = ", ".join(f"{peak / 1e9:.1f} by {name}" for name, peak in report["peaks"].items())
    lines = [
        f"{report['processor']}, {report['memory_gib']} GiB; {report['threads']} threads",
        versions,
        f"a product of large matrices: {peaks}, in billions of multiply-adds a second",
        f"runs of each contender: {report['repeats']}, or fewer where they take minutes",
        f"load of the machine before the run: {report['load']:.1f}",
    ]
    if report["xla_flags"]:
        lines.append(f"XLA_FLAGS: {report['xla_flags']}")
    if report["quick"]:
        lines.append("an eighth of every batch")
    return "\n".join(f"* {line}" for line in lines)


def failures(report: Mapping[str, Any]) -> str:
    """Who failed where."""
    found = [(r["workload"], error) for r in report["rows"] for error in table.errors(r)]
    return "".join(["\n"] * bool(found) + [f"\n* `{name}`: {error}" for name, error in found])


def fill(page: str, report: Mapping[str, Any], flagged: Mapping[str, Any]) -> str:
    """The page with the tables of two reports, the second one of a run with XLA's flags set."""
    records, peak = report["rows"], report["peak"]
    columns = (*table.TIMES, *table.MEMORY[:2])
    parts = {
        "flagged": table.markdown(flagged["rows"], flagged["peak"], columns),
        "conditions": conditions(report),
        "times": table.markdown(records, peak, table.TIMES) + failures(report),
        "needed": table.markdown(records, peak, table.NEEDED),
        "memory": table.markdown(records, peak, table.MEMORY),
        "preparation": table.markdown(records, peak, table.PREPARATION),
    }
    for name, text in parts.items():
        begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
        page, found = pattern.subn(f"{begin}\n{text}\n{end}".replace("\\", r"\\"), page)
        if found != 1:
            raise ValueError(f"{PAGE.name} should have one part called {name!r}, has {found}")
    return page


def main() -> None:
    """Fill the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="written by benchmarks.run --json")
    parser.add_argument("flagged", type=Path, help="the same, with --xla-flags")
    options = parser.parse_args()
    report, flagged = (json.loads(file.read_text()) for file in (options.file, options.flagged))
    PAGE.write_text(fill(PAGE.read_text(), report, flagged))


if __name__ == "__main__":
    main()
