"""The table at the end of a run: the model between its baselines and its control, and what that means."""

from rich.table import Table

from warmstart.evaluation.scores import Judgement

SHOWN = ("rouge1", "rouge2", "rougeLsum")  # rougeL stands in result.json; four columns do not fit a terminal
NAMES = {"shuffled_document": "another document"}


def score_table(judgement: Judgement, model_name: str) -> Table:
    """Rows: model, lead baselines, control. Columns: ROUGE F1 x 100 with its 95 % interval."""
    table = Table(title=f"ROUGE F1 on {judgement.metrics['test/examples']} test examples, 95 % bootstrap intervals")
    table.add_column("", no_wrap=True, min_width=16)
    for kind in SHOWN:
        table.add_column(kind, justify="right", no_wrap=True)
    rows = {model_name: {key.removeprefix("test/"): value for key, value in judgement.metrics.items()}}
    for name, row in (judgement.baselines | judgement.controls).items():
        rows[NAMES.get(name, name)] = row
    for name, row in rows.items():
        cells = [f"{row[kind]:.1f} [{row[f'{kind}_ci'][0]:.1f}, {row[f'{kind}_ci'][1]:.1f}]" for kind in SHOWN]
        table.add_row(name, *(cell.replace("[", r"\[") for cell in cells))
    return table


def verdict(judgement: Judgement) -> str:
    """One honest sentence for each rival, from the paired interval of ROUGE-1."""
    said = []
    for name, row in (judgement.controls | judgement.baselines).items():
        low, high = row["rouge1_difference_ci"]
        lead = f"{row['rouge1_difference']:+.2f} ROUGE-1 [{low:+.2f}, {high:+.2f}]"
        if name == "shuffled_document":
            said.append(
                f"It reads its document: {lead} over being given another one."
                if low > 0
                else f"It does not show that it reads its document: {lead} over being given another one."
            )
        elif low > 0:
            said.append(f"It beats {name}: {lead}.")
        elif high < 0:
            said.append(f"It does not beat {name}: {lead}. Copying the first sentences would score better.")
        else:
            said.append(f"It is not distinguishable from {name}: {lead}.")
    return "\n".join(said)
