"""The models that the page offers, and what is known of each: its parts, its training texts and its scores."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from warmstart.api.summarizer import Summarizer
from warmstart.config.metrics import SCORES, TITLES, primary_of, split_of
from warmstart.config.schema import Config
from warmstart.data.cleaning import clean_document, steps_named
from warmstart.errors import UserError
from warmstart.evaluation.baselines import to_beat
from warmstart.evaluation.score_table import NAMES, statements
from warmstart.runs.load import load_writer
from warmstart.runs.run_dir import RunDir
from warmstart.runs.saved_model import SavedModel
from warmstart.runs.writer import Writer

LOADED = 2  # models in memory
EXAMPLES = 8
_OWN_EXAMPLES = (
    "The Danube is a river in Europe, the second-longest after the Volga. It rises in the Black Forest of Germany and "
    "flows through ten countries into the Black Sea, more than any other river in the world.",
    "The council of Harbour Street voted on Monday to close the old bridge for two years. Engineers had found cracks "
    "in three of its seven arches in spring. A ferry will carry pedestrians free of charge, while cars have to take "
    "the northern bypass. The mayor said that the work will cost nine million and be finished before the jubilee.",
)


@dataclass
class Model:
    """A loaded model, and how its texts are prepared and scored."""

    summarizer: Summarizer
    tokenizers: Any
    """Its ``TokenizerPair``."""
    language: str = "en"
    baselines: Sequence[str] = ("lead",)
    clean: Callable[[str], str] = field(default=lambda text: text)
    """Apply the cleaning steps of the run."""


@dataclass(frozen=True)
class Example:
    """A text to try, with its reference if there is one."""

    document: str
    reference: str = ""


@dataclass(frozen=True)
class About:
    """What is known of a model, in words."""

    made_of: str
    trained_on: str
    score: str
    details: Sequence[str] = ()


class Menu:
    """The models on the page; each is loaded when it is first chosen, and ``LOADED`` of them stay in memory.

    Args:
        settings: The config of the task. ``ckpt`` is the first model, with these settings; the others are those of
            ``runs``, or of all runs in ``output_root`` if ``runs`` is empty, with the settings of their run.
        saved: The model that ``ckpt`` names, if the caller has opened it.

    Raises:
        UserError: ``runs`` names a folder without a model.
    """

    def __init__(self, settings: Config, saved: SavedModel | None = None) -> None:
        if settings.ckpt is None:
            raise UserError("task=demo needs ckpt=: a run directory, a .ckpt file or an exported folder.")
        self.settings = settings
        self.paths = [settings.ckpt, *_others(settings)]
        self.in_use = threading.Lock()
        """Held while a model computes: one summary at a time."""
        self._saved = {settings.ckpt: saved or SavedModel(settings.ckpt)}
        self._loaded: dict[str, Model] = {}

    def load(self, path: str) -> Model:
        """Load a model, or return it if it is in memory.

        Args:
            path: One of ``paths``.

        Raises:
            UserError: It is not on the menu, is missing or is damaged.
        """
        if path not in self.paths:
            raise UserError("This model is not on the menu. Reload the page, and choose another one.")
        model = self._loaded.pop(path, None) or self._load(path)
        while len(self._loaded) >= LOADED:
            del self._loaded[next(iter(self._loaded))]
        self._loaded[path] = model
        return model

    def _load(self, path: str) -> Model:
        saved = self._saved.pop(path, None) or SavedModel(path)
        if path == self.settings.ckpt:
            network, tokenizers = load_writer(self.settings, saved)
            writer, data = Writer(network, tokenizers, self.settings), self.settings.data
            return Model(Summarizer(writer), tokenizers, data.language, tuple(map(str, data.baselines)), writer.clean)
        device = "cpu" if self.settings.trainer.accelerator == "cpu" else None
        recorded = saved.config.get("data") or {}
        steps = steps_named(recorded.get("clean") or [])
        return Model(
            Summarizer.from_pretrained(path, device=device),
            saved.tokenizers(),
            recorded.get("language", "en"),
            tuple(recorded.get("baselines") or ("lead",)),
            lambda text: clean_document(text, steps),
        )

    def about(self, path: str) -> About:
        """Describe a model from its run's result, or from the model card of an export; loads no weights."""
        if path not in self.paths:
            return About("", "", "")
        result: dict[str, Any] = {}
        with suppress(UserError):  # there is none, or it is damaged
            result = RunDir.of(Path(path)).read_result()
        return _from_result(result) if result.get("choices") else _from_export(path)

    def examples(self) -> list[Example]:
        """Return texts to try: of the first model's test predictions, or two of our own."""
        rows: list[dict[str, Any]] = []
        with suppress(UserError):  # the file is damaged
            rows = list(RunDir.of(Path(self.paths[0])).read_predictions().values())[:EXAMPLES]
        return [Example(row["document"], row["reference"]) for row in rows] or list(map(Example, _OWN_EXAMPLES))


def _others(settings: Config) -> list[str]:
    """Return the folders of further models."""
    own = Path(str(settings.ckpt)).resolve()
    found: list[str] = []
    for folder in map(Path, settings.runs or [settings.output_root]):
        models = [str(folder)] if SavedModel(str(folder)).is_export else [*map(_model_of, RunDir.below(folder))]
        models = [path for path in models if path]
        if settings.runs and not models:
            raise UserError(
                f"runs: {folder} has neither a run with a checkpoint nor an export. Name folders of runs, of sweeps or "
                "of exports."
            )
        found += [path for path in models if own not in (Path(path).resolve(), RunDir(Path(path).resolve()).export)]
    return list(dict.fromkeys(found))


def _model_of(run: RunDir) -> str:
    """Return the path of a run's model: its folder if it has a checkpoint, or its export; empty if it has neither."""
    if run.checkpoints.best.exists() or run.checkpoints.last.exists():
        return str(run.path)
    return str(run.export) if SavedModel(str(run.export)).is_export else ""


def _from_result(result: dict[str, Any]) -> About:
    choices, counts, metrics = result["choices"], result.get("parameters") or {}, result.get("metrics") or {}
    baselines, controls = result.get("baselines") or {}, result.get("controls") or {}
    data = (result.get("config") or {}).get("data") or {}
    size = f", {counts['total'] / 1e6:.1f} M parameters" if counts.get("total") else ""
    new = f", {counts['new'] / 1e6:.1f} M of them new" if size and counts.get("new") else ""
    origin = data.get("attribution") or (
        Path(data["path"]).name if data.get("kind") == "files" and data.get("path") else ""
    )
    primary = primary_of(result.get("signatures") or [])
    split = split_of(metrics)
    row = {name.removeprefix(f"{split}/"): value for name, value in metrics.items()}
    named = {NAMES.get(name, name): one for name, one in to_beat(baselines).items()}
    details = statements(metrics, baselines, controls, primary) if row.get(primary) is not None else []
    return About(
        f"Encoder {choices.get('encoder')}, decoder {choices.get('decoder')}{size}{new}.",
        f"Trained on {choices.get('data')}{f' ({origin})' if origin else ''}.",
        _score(TITLES[primary], row.get(primary), row.get(f"{primary}_ci"), row.get("examples"), named, primary, split),
        details,
    )


def _score(
    title: str,
    value: Any,
    ends: Any,
    examples: Any,
    baselines: dict[str, dict[str, Any]],
    key: str = "value",
    split: str = "test",
) -> str:
    """Say how good a model is next to its best baseline."""
    if value is None:
        return "Its scores are not known: it was not evaluated."
    interval = f" [{ends[0]:.1f}, {ends[1]:.1f}]" if ends and None not in ends else ""
    scored = {name: row[key] for name, row in baselines.items() if row.get(key) is not None}
    lower_is_better = any(score.better == "min" for score in SCORES.values() if score.title == title)
    best = (min if lower_is_better else max)(scored, key=lambda name: scored[name], default=None)
    rival = f" The best baseline ({best}) has {scored[best]:.1f}." if best is not None else ""
    return f"{title} {value:.1f}{interval} on {examples} {split} texts.{rival}"


def _from_export(path: str) -> About:
    """Describe an export that is not in its run's folder, by its config and its model card."""
    from huggingface_hub import ModelCard

    saved = SavedModel(path)
    try:
        counts, recorded = saved.parameters or {}, saved.config
    except (UserError, OSError):  # the same error is shown when the model is loaded
        counts, recorded = {}, {}
    names = {role: (recorded.get(role) or {}).get("name", "of an unknown name") for role in ("encoder", "decoder")}
    size = f", {counts['total'] / 1e6:.1f} M parameters" if counts.get("total") else ""
    made_of = f"Encoder {names['encoder']}, decoder {names['decoder']}{size}."
    trained_on = f"Trained on {(recorded.get('data') or {}).get('name', 'unknown texts')}."
    scores: Any = []
    with suppress(Exception):  # the card is the user's to edit, or is missing
        scores = ModelCard.load(Path(path) / "README.md").data.eval_results or []
    if not scores:
        return About(made_of, trained_on, _score("", None, None, None, {}))
    first, arguments = scores[0], scores[0].metric_args or {}
    rows = {NAMES.get(name, name): row for name, row in to_beat(arguments.get("baselines") or {}).items()}
    score = _score(first.metric_name, first.metric_value, arguments.get("interval_95"), arguments.get("examples"), rows)
    return About(made_of, f"Trained on {first.dataset_name}.", score)
