"""Render the report as one self-contained HTML file that needs no network.

The template renders the tables and escapes every text. The page's script draws plots, sorts and shows samples, and
inserts texts only as text, never as HTML.
"""

import base64
import gzip
import json
import math
from pathlib import Path
from typing import Any

import plotly
from jinja2 import Environment, PackageLoader, StrictUndefined

from warmstart.config.metrics import TITLES as OF_METRICS
from warmstart.evaluation.baselines import LABELS, UPPER_BOUNDS, lead
from warmstart.evaluation.bootstrap import FEWEST
from warmstart.report.collect import BITS_PER_BYTE, LIKELIHOODS, SCORES, Run
from warmstart.report.colors import colors
from warmstart.report.comparable import selects_sentences
from warmstart.report.compare import (
    Row,
    baseline_row,
    higher_is_better,
    interval,
    label,
    other_tokens,
    primary,
    ranked_by,
    rows_of,
    telling_keys,
)
from warmstart.report.corpus_scores import corpus_score
from warmstart.report.differences import differences
from warmstart.report.errors_of_samples import TITLES as ERRORS
from warmstart.report.errors_of_samples import error_rates, errors_of
from warmstart.report.finding import finding
from warmstart.report.paper_rows import paper_rows
from warmstart.report.provenance import config_differences, signed_rows
from warmstart.report.tables import as_download, csv_table, latex_table

SAMPLES = 200  # examples per row, so that the page opens quickly
FEWEST_POINTS = 3  # of a learning curve; two are a line between two numbers
TITLES = OF_METRICS | {"nll": "nats/token", BITS_PER_BYTE: "bits/byte"}
CONTROLS = ("shuffled_document", "decoder_alone")
COSTS = [  # columns of the table of costs: path in result.json, factor, digits
    *((("parameters", name), 1, 0) for name in ("total", "trainable", "pretrained", "new")),
    (("steps",), 1, 0),
    (("throughput", "tokens_per_second"), 1, 0),
    (("throughput", "padding_fraction"), 100, 1),
    (("peak_memory_bytes",), 1e-9, 2),
    *((("seconds", name), 1, 0) for name in ("fit", "test")),
]


def render(runs: list[Run], *, title: str, texts: bool = True) -> str:
    """Render the page.

    Args:
        runs: The runs to compare.
        title: Title of the page.
        texts: Whether the page contains documents, references and summaries.

    Returns:
        The HTML.
    """
    rows = rows_of(runs)
    ranking, decides = ranked_by(rows), primary(rows)
    # Without any test score, the page shows the scores of the validation split instead.
    split = "test" if not rows or any(row.split == "test" for row in rows) else "validation"
    titles = {kind: TITLES[kind] for kind in SCORES if kind in ("nll", decides) or _has(rows, split, kind)}
    if not any(other_tokens(rows[0], row) for row in rows[1:]):
        titles.pop(BITS_PER_BYTE, None)  # it says no more than nats/token then
    titles["nll"] = _unit(rows)
    leads = _leads(rows)
    rivals = _rivals(rows, leads, decides)
    keys = telling_keys([run.choices for run in runs])
    corpus = [corpus_score(row, decides) for row in rows]
    # Baselines are compared like rows, example by example; a score of the whole split needs all their texts.
    limit = None if any(corpus) else SAMPLES
    baselines = [baseline_row(r["row"], r["kind"], r["label"], limit) for r in rivals]
    corpus += [corpus_score(one, decides, of=r["row"]) for one, r in zip(baselines, rivals, strict=True)]
    compared = [*rows, *baselines]
    pairs = differences(compared, corpus)
    tested = [pair for pair in pairs if decides in pair.p]
    curves = _curves(runs, rows, keys)
    # A row and the runs without a result that it does not have, in one list: a color means the same everywhere.
    colored = list(dict.fromkeys([*(row.label for row in rows), *(curve["row"] for curve in curves)]))
    color_of = dict(zip(colored, colors(len(colored)), strict=True))
    curves.sort(key=lambda curve: colored.index(curve["row"]))
    shown = [_row(row, leads, list(titles), decides, split) | {"color": color_of[row.label]} for row in rows]
    for row, score in zip(shown, rows, strict=True):
        row["rank"] = ranking.score(score)
    of_split = [rival for rival in rivals if rival["split"] == split]
    data = {
        "rows": shown,
        "split": split,
        "compared": [row.label for row in compared],
        "upper_bounds": [i for i, row in enumerate(compared) if row.is_upper_bound],
        "differences": [[d.a, d.b, d.examples, d.scores, d.left_out, d.p] for d in pairs],
        "pairs": len(tested),
        "fewest": FEWEST,
        "curves": [curve | {"color": color_of[curve["row"]]} for curve in curves],
        "titles": titles,
        "primary": decides,
        "better": 1 if higher_is_better(f"test/{decides}") else -1,
        "errors": ERRORS,
        "leads": [[rival["name"], rival["scores"][decides]] for rival in of_split],
        **(_samples(compared, decides) if texts else {"samples": [], "documents": {}}),
    }
    environment = Environment(
        loader=PackageLoader("warmstart.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["number"] = _number
    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    return environment.get_template("report.html.j2").render(
        title=title,
        rows=rows,
        shown=shown,
        finding=finding(rows, compared, pairs, ranking, decides),
        color_of=color_of,
        downloads=[
            (name, as_download(table(shown, of_split, titles), kind))
            for name, kind, table in (("scores.csv", "text/csv", csv_table), ("scores.tex", "text/x-tex", latex_table))
        ],
        curves=curves,
        fewest_points=FEWEST_POINTS,
        pairs_of_models=len({(r["encoder"], r["decoder"]) for r in shown if r["scores"][decides]["mean"] is not None}),
        origins=config_differences(rows),
        errors=ERRORS,
        error_rates=[error_rates(row) for row in rows],
        scores=titles,
        likelihoods=LIKELIHOODS,
        primary=decides,
        signatures=signed_rows(rows),
        leads=[LABELS.get(name, name) for name in leads],
        split=split,
        ranked_by=ranking.metric,
        ranks=[ranking.score(row) for row in rows],
        whole_split=ranking.whole_split,
        higher=higher_is_better(ranking.metric),
        untested=sum(row.mean("metrics", f"test/{decides}") is None for row in rows),
        validated=[_validation(row, decides) for row in rows],
        rivals=rivals,
        has_upper_bound=any(row.is_upper_bound for row in compared),
        mixed=any(sum(rival["split"] == one for rival in rivals) > len(leads) for one in ("test", "validation")),
        papers=paper_rows(rows),
        left_out=[run.folder for row in rows for run in row.left_out],
        not_finite=[row.label for row in rows if row.not_finite("nll")],
        costs=COSTS,
        runs=runs,
        others=[(label(run, keys), run) for run in runs if run.status != "complete"],
        of_whole_split=any(corpus),
        unresampled=[
            row.label
            for row, found in zip(rows, corpus, strict=False)
            if found is None and not row.scores(decides) and row.mean("metrics", f"{row.split}/{decides}") is not None
        ],
        pairs=len(tested),
        corrected_rows=len({one for pair in tested for one in (pair.a, pair.b)}),
        sampled=SAMPLES,
        texts=texts,
        data=_packed(json.dumps(data, ensure_ascii=False, allow_nan=False).encode(errors="backslashreplace")),
        plotly=_packed(script.read_bytes()),
    )


def _unit(rows: list[Row]) -> str:
    """Return the title of the likelihoods, which are per sentence for a model that selects sentences."""
    selects = [selects_sentences(row.runs[0]) for row in rows]
    if not any(selects):
        return TITLES["nll"]
    return "nats/sentence" if all(selects) else f"{TITLES['nll']} or sentence"


def _has(rows: list[Row], split: str, kind: str) -> bool:
    """Return whether a run has a score of a split."""
    return any(f"{split}/{kind}" in run.result.get("metrics", {}) for row in rows for run in row.runs)


def _validation(row: Row, decides: str) -> dict[str, Any]:
    """Return a row's score on the whole validation split, with the mean ends of its interval over seeds."""
    name = f"validation/{decides}"
    ends = [row.of_fit("metrics", f"{name}_ci", end) for end in (0, 1)]
    return {"mean": row.of_fit("metrics", name), "interval": None if None in ends else ends}


def _row(row: Row, leads: list[str], kinds: list[str], decides: str, split: str) -> dict[str, Any]:
    """Return the data of a row for the page's script; its scores are of one split of all rows."""
    scores = {}
    kept = row.mean("metrics", f"{split}/{BITS_PER_BYTE}_examples")
    for kind in kinds:
        path = ("metrics", f"{split}/{kind}")
        ends = interval(row, kind) if row.split == split else None
        scores[kind] = {"mean": row.mean(*path), "deviation": row.deviation(*path), "interval": ends}
        if kind == BITS_PER_BYTE and kept != row.mean("metrics", f"{split}/examples"):
            scores[kind] = dict.fromkeys(scores[kind])  # a mean over other references than those of the next row
    return {
        "label": row.label,
        "encoder": row.encoder,
        "decoder": row.decoder,
        "seeds": [run.seed for run in row.runs],
        "split": row.split,
        "looks": row.looks,
        "scores": scores,
        "rivals": {name: row.mean("controls", name, decides) for name in CONTROLS},
        "over": [_over(row, "baselines", name, decides) for name in leads]
        + [_over(row, "controls", name, decides) for name in CONTROLS],
        "seconds": row.of_fit("seconds", "fit"),
        "parameters": row.of_fit("parameters", "total"),
    }


def _leads(rows: list[Row]) -> list[str]:
    """Return the names of the baselines of all rows, those of the lead first."""
    names = {name for row in rows for run in row.runs for name in run.result.get("baselines", {})}
    return sorted(names, key=lambda name: (not name.startswith("lead"), name))


def _rivals(rows: list[Row], leads: list[str], decides: str) -> list[dict[str, Any]]:
    """Return each baseline once per set of test examples; if there are several sets, its name includes a row."""
    found: list[dict[str, Any]] = []
    rival: dict[str, Any]
    for row in rows:
        examples = frozenset((i, *row.texts(i)) for i in row.runs[0].examples)
        for name in leads:
            scores = {kind: row.mean("baselines", name, kind) for kind in SCORES}
            if scores[decides] is None:
                continue
            rival = {"name": LABELS.get(name, name), "kind": name, "scores": scores, "row": row, "examples": examples}
            rival["split"] = row.split
            if not any(other["kind"] == name and _of_the_same_examples(other, rival) for other in found):
                found.append(rival)
    splits = {rival["split"] for rival in found}
    for split in splits:
        of_split = [rival for rival in found if rival["split"] == split]
        for rival in of_split:
            rival["name"] += f" for {rival['row'].label}" if len(of_split) > len(leads) else ""
            rival["name"] += f", {split}" if len(splits) > 1 else ""
            is_bound = rival["kind"] in UPPER_BOUNDS
            rival["name"] += " (upper bound)" if is_bound else ""
            rival["label"] = rival["name"] if is_bound else f"{rival['name']} (baseline)"
    return found


def _of_the_same_examples(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Return whether two baselines have the same test examples or, without predictions, the same scores."""
    if a["split"] != b["split"]:
        return False
    if a["examples"] and b["examples"]:
        return bool(a["examples"] == b["examples"])
    pairs = [(a["scores"][kind], b["scores"][kind]) for kind in SCORES]
    # The mean over seeds of equal values may differ from them in the last bit.
    return all(x == y if x is None or y is None else math.isclose(x, y, abs_tol=1e-6) for x, y in pairs)


def _over(row: Row, group: str, name: str, decides: str) -> dict[str, Any]:
    ends = [row.mean(group, name, f"{decides}_difference_ci", end) for end in (0, 1)]
    return {"mean": row.mean(group, name, f"{decides}_difference"), "interval": None if None in ends else ends}


def _curves(runs: list[Run], rows: list[Row], keys: list[str]) -> list[dict[str, Any]]:
    """Return the learning curves of each run that have enough points, with the row that the run belongs to."""
    names = {run.folder: row.label for row in rows for run in (*row.runs, *row.left_out)}
    by_keys = {label(row.runs[0], keys): row.label for row in rows}
    found = []
    for run in sorted(runs, key=lambda run: run.seed):
        name = names.get(run.folder) or by_keys.get(label(run, keys)) or run.name or label(run, keys)
        seed = f", seed {run.seed}" if run.seed else ""
        status = "" if run.status == "complete" else f" ({run.status})"
        metrics = {metric: points for metric, points in run.curves.items() if len(points) >= FEWEST_POINTS}
        if metrics:
            found.append({"label": f"{name}{seed}{status}", "row": name, "metrics": metrics})
    return found


def _samples(rows: list[Row], decides: str) -> dict[str, Any]:
    """Return up to ``SAMPLES`` examples of each row's first seed; each document is stored once."""
    documents: dict[str, dict[str, Any]] = {}
    keys: dict[tuple[str, str, str], str] = {}
    samples = []
    for row in rows:
        of_row: dict[str, Any] = {}
        language = row.runs[0].choices.get("data.language", "en")
        for i, example in list(row.runs[0].examples.items())[:SAMPLES]:
            document, reference = example["document"], example["reference"]
            if (i, document, reference) not in keys:
                # An id may refer to different examples in different test sets.
                key = keys[i, document, reference] = i if i not in documents else f"{i} of {row.label}"
                (lead1,) = lead([document], 1, language)
                documents[key] = {"document": document, "reference": reference, "lead1": lead1}
            found = errors_of(example["prediction"], document, language, example.get("rouge1"))
            of_row[keys[i, document, reference]] = [example["prediction"], example.get(decides), found]
        samples.append(of_row)
    return {"samples": samples, "documents": documents}


def _packed(data: bytes) -> str:
    # The browser decompresses it.
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


def _number(value: float | None, digits: int = 2) -> str:
    return "\N{EN DASH}" if value is None else f"{value:,.{digits}f}"
