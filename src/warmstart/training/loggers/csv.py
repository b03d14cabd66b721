"""``metrics.csv`` in the run directory: all logged values, one row for each call of the logger.

Lightning's own CSVLogger deletes the file when a run resumes. This one appends, and drops the rows of steps that the
resumed run takes again.
"""

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from warmstart.atomic import naming, write_text
from warmstart.runs.run_dir import RunDir


class MetricsCsv(Logger):
    """Appends rows to ``metrics.csv``; for a new metric it rewrites the file with another column.

    Args:
        run_dir: folder of the file.
    """

    def __init__(self, run_dir: Path) -> None:
        """Keep the path; the file is opened at the first row."""
        super().__init__()
        self.run_dir = RunDir(run_dir)
        self.path = self.run_dir.metrics
        self._columns: list[str] | None = None

    @property
    def name(self) -> str:
        """Empty: Lightning would make a folder of this name."""
        return ""

    @property
    def version(self) -> str:
        """Empty: Lightning would make a folder of this name."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run directory."""
        return str(self.path.parent)

    @property
    def log_dir(self) -> str:
        """The run directory."""
        return self.save_dir

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run's ``.hydra`` folder and its checkpoints hold the config."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Append one row.

        Args:
            metrics: values by name.
            step: optimizer step; None for a test after the fit.
        """
        row: dict[str, Any] = {"step": "" if step is None else step, **{k: float(v) for k, v in metrics.items()}}
        if "epoch" in row:
            row["epoch"] = int(row["epoch"])
        if self._columns is None:
            self._columns = self._open(step)
        if new := [name for name in row if name not in self._columns]:
            self._columns += sorted(new)
            self._rewrite(self.run_dir.read_metrics())
        with naming(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns, restval="").writerow(row)

    def _open(self, step: int | None) -> list[str]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._drop_half_row()
        earlier = self.run_dir.read_metrics()
        if not earlier:
            return []
        columns = list(earlier[0])
        # Rows without a step come from the test after the fit, which runs again.
        kept = [row for row in earlier if row.get("step", "").isdecimal() and (step is None or int(row["step"]) < step)]
        if len(kept) < len(earlier):
            self._columns = columns
            self._rewrite(kept)
        return columns

    def _drop_half_row(self) -> None:
        """Remove the incomplete last row that a killed run can leave; the next row would be appended to it."""
        if self.path.exists():
            text = self.path.read_bytes()
            os.truncate(self.path, text.rfind(b"\n") + 1)

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        assert self._columns is not None
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, text.getvalue())
