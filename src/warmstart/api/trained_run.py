"""A finished run, opened from its folder."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.errors import UserError
from warmstart.runs.run_dir import RunDir

if TYPE_CHECKING:
    from warmstart.api.summarizer import Summarizer

_TEST = "test/"


class TrainedRun:
    """A finished run: its scores, its predictions and its model.

    Args:
        folder: The run's folder, of ``warmstart.fit`` or of the command line.

    Raises:
        UserError: The folder holds no finished run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        if self.result.get("status") != "complete":
            raise UserError(
                f"{self.folder} is not a finished run: {self.result.get('error', 'it has no result')}. Fit it again."
            )

    @cached_property
    def result(self) -> dict[str, Any]:
        """The contents of ``result.json``: config, scores, baselines, controls, cost and versions."""
        return RunDir(self.folder).read_result()

    @property
    def scores(self) -> dict[str, float]:
        """Numbers of the test split by name; empty if it was not scored.

        They are the scores, such as ``rouge1`` from 0 to 100, ``nll`` (the mean over references of their nats per
        token; of a decoder that selects sentences, per sentence), and facts about the summaries, such as ``examples``
        and ``words``.
        """
        return {name: value for name, value in self._metrics().items() if isinstance(value, int | float)}

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """The 95 % confidence interval of each score that has one."""
        found = {name.removesuffix("_ci"): ends for name, ends in self._metrics().items() if name.endswith("_ci")}
        return {name: (ends[0], ends[1]) for name, ends in found.items() if isinstance(ends, list) and len(ends) == 2}

    @property
    def baselines(self) -> dict[str, Any]:
        """Scores of the baselines on the same test split, such as the first sentence, by name.

        ``oracle`` reads the references: an upper bound, which no model has to beat.
        """
        found: dict[str, Any] = self.result.get("baselines", {}) if self._metrics() else {}
        return found

    @cached_property
    def predictions(self) -> list[dict[str, Any]]:
        """For each test example its id, document, reference, prediction and scores.

        They are validation examples if the test split was not scored.
        """
        return list(RunDir(self.folder).read_predictions().values())

    def summarizer(self, **options: Any) -> "Summarizer":
        """Load the run's best checkpoint; the arguments are those of ``Summarizer.from_pretrained``."""
        from warmstart.api.summarizer import Summarizer

        return Summarizer.from_pretrained(self.folder, **options)

    def _metrics(self) -> dict[str, Any]:
        metrics: dict[str, Any] = self.result.get("metrics", {})
        return {name.removeprefix(_TEST): value for name, value in metrics.items() if name.startswith(_TEST)}

    def __repr__(self) -> str:
        scores = ", ".join(f"{name} {value:.1f}" for name, value in self.scores.items() if name.startswith("rouge"))
        return f"TrainedRun({str(self.folder)!r}: {scores or 'test split not scored'})"
