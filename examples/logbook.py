"""The figures of a run, one row an epoch: as CSV, and for TensorBoard."""

import csv
from pathlib import Path

from tensorboardX import SummaryWriter

FILE = "metrics.csv"
FOLDER = "tensorboard"


class Logbook:
    """Writes rows of figures; a row is there when `write` returns.

    Args:
      run: the folder of the run.
      epoch: rows after this one are of a run that was cut off, and are removed.
    """

    def __init__(self, run: Path, epoch: int) -> None:
        self.path = run / FILE
        rows = [row for row in read(run) if row["epoch"] <= epoch]
        self.path.unlink(missing_ok=True)
        for row in rows:
            self._append(row)
        self._writer = SummaryWriter(str(run / FOLDER), purge_step=epoch + 1)

    def write(self, row: dict[str, float]) -> None:
        """One row; "epoch" numbers it."""
        self._append(row)
        for name, value in row.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, int(row["epoch"]))
        self._writer.flush()

    def close(self) -> None:
        """Ends the writer's thread."""
        self._writer.close()

    def _append(self, row: dict[str, float]) -> None:
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, row.keys())
            if new:
                writer.writeheader()
            writer.writerow({name: f"{value:.6g}" for name, value in row.items()})


def read(run: Path) -> list[dict[str, float]]:
    """The rows of a run so far; a last one that was cut off is left out."""
    if not (run / FILE).exists():
        return []
    with (run / FILE).open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if all(row.values())]
    return [{name: float(value) for name, value in row.items()} for row in rows]
