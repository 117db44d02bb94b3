"""The table of what was measured, from the records of the JSON file: as text, and as Markdown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .workloads import Contender

Record = Mapping[str, Any]
OURS = Contender.OURS.value


@dataclass(frozen=True)
class Row:
    """One contender beside ours, or ours alone, in one workload.

    ``peak`` is how many multiply-adds the machine does in a second.
    """

    record: Record
    peer: str | None
    peak: float

    @property
    def ours(self) -> Record:
        """What we needed."""
        return self.record["contenders"][OURS]

    @property
    def theirs(self) -> Record:
        """What they needed; nothing is in it where there is nobody."""
        return self.record["contenders"].get(self.peer, {})

    @property
    def gap(self) -> Record:
        """How far the results are from each other."""
        return self.record["comparison"].get(self.peer, {})

    def share(self, contender: Record) -> float | None:
        """Of the machine's peak, by what is needed alone."""
        needed = self.record.get("needed")
        if not needed or "median" not in contender:
            return None
        return needed / contender["median"] / self.peak


@dataclass(frozen=True)
class Column:
    """A title, how a figure is written, and the figure, None where there is none."""

    title: str
    format: str
    figure: Callable[[Row], float | None]

    def cell(self, row: Row) -> str:
        """The figure as text."""
        figure = self.figure(row)
        return "-" if figure is None else format(figure, self.format)


def above_base(contender: Record, key: str) -> float | None:
    """Memory beyond what the libraries take, in MiB."""
    if not contender.get(key):
        return None
    return max(0.0, contender[key] - contender["base_mib"])


def _ratio(row: Row) -> float | None:
    if "median" not in row.theirs or "median" not in row.ours:
        return None
    return row.theirs["median"] / row.ours["median"]


TIMES = (
    Column("ours s", ".3g", lambda row: row.ours.get("median")),
    Column("theirs s", ".3g", lambda row: row.theirs.get("median")),
    Column("ratio", ".2f", _ratio),
    Column("width", ".4f", lambda row: row.gap.get("width")),
    Column("looser", ".0e", lambda row: row.gap.get("looser")),
    Column("gradient", ".0e", lambda row: row.gap.get("gradient")),
)
NEEDED = (
    Column("needed GMA", ".3g", lambda row: (row.record.get("needed") or 0) / 1e9 or None),
    Column("at peak s", ".3g", lambda row: (row.record.get("needed") or 0) / row.peak or None),
    Column("share", ".1%", lambda row: row.share(row.ours)),
    Column("theirs", ".1%", lambda row: row.share(row.theirs)),
)
MEMORY = (
    Column("run MiB", ".0f", lambda row: above_base(row.ours, "run_mib")),
    Column("theirs", ".0f", lambda row: above_base(row.theirs, "run_mib")),
    Column("most MiB", ".0f", lambda row: above_base(row.ours, "peak_mib")),
    Column("theirs", ".0f", lambda row: above_base(row.theirs, "peak_mib")),
    Column("buffers MiB", ".0f", lambda row: row.ours.get("buffers_mib")),
)
PREPARATION = (
    Column("trace s", ".1f", lambda row: row.ours.get("trace")),
    Column("comp. s", ".1f", lambda row: row.ours.get("compile")),
    Column("theirs", ".1f", lambda row: row.theirs.get("trace")),
)
ALL = (*TIMES, *NEEDED, *MEMORY, *PREPARATION)


def rows(record: Record, peak: float) -> list[Row]:
    """A row for each contender we are compared with, or one for ours alone."""
    peers = [name for name in record["contenders"] if name != OURS]
    return [Row(record, peer, peak) for peer in peers or [None]]


def errors(record: Record) -> list[str]:
    """Who failed, and with which words."""
    found = record["contenders"].items()
    return [f"{name} failed: {result['error']}" for name, result in found if result["error"]]


def header(columns: Sequence[Column] = ALL) -> str:
    """The first line of the text."""
    titles = "".join(f"{column.title:>{_width(column)}}" for column in columns)
    return f"{'workload':<24}{'against':<11}{titles}"


def lines(record: Record, peak: float, columns: Sequence[Column] = ALL) -> str:
    """The lines of a workload, of text."""
    found = []
    for row in rows(record, peak):
        cells = "".join(f"{column.cell(row):>{_width(column)}}" for column in columns)
        found.append(f"{record['workload']:<24}{row.peer or '-':<11}{cells}")
    return "\n".join(found + errors(record))


def _width(column: Column) -> int:
    return max(9, len(column.title) + 2)


def markdown(records: Sequence[Record], peak: float, columns: Sequence[Column]) -> str:
    """A table of Markdown of all workloads."""
    out = [f"| workload | against | {' | '.join(column.title for column in columns)} |"]
    out.append(f"| --- | --- |{' ---: |' * len(columns)}")
    for record in records:
        for row in rows(record, peak):
            cells = " | ".join(column.cell(row) for column in columns)
            out.append(f"| `{record['workload']}` | {row.peer or '-'} | {cells} |")
    return "\n".join(out)
