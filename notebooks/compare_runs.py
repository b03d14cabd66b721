# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Compare the runs of a sweep
# For anyone who has several runs and wants to know which is better, and whether the difference is more than chance. You
# fit a pair with three starting points, compare them on the same test texts, and make the report. MiniLM's weights come
# from an installed package: you need no hub and no account.

# %%
import random
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display

import warmstart
from warmstart.report.collect import collect
from warmstart.report.compare import interval, rows_of
from warmstart.report.page import render

temporary = TemporaryDirectory()
folder = Path(temporary.name)

# %% [markdown]
# ## A sweep
# How much do pretrained weights help with 200 pairs? Encoder and decoder are pretrained, or the decoder is random, or
# both are. On the command line, `python run.py -m encoder.weights=pretrained,random decoder.weights=pretrained,random
# ...` fits all combinations and resumes where it was interrupted; here each fit is a call.

# %%
FIRST = ["Marta", "Jonas", "Amina", "Pedro", "Yuki", "Clara", "Omar", "Nina", "Tomas", "Leila"]
LAST = ["Lindqvist", "Costa", "Haddad", "Novak", "Tanaka", "Moreau", "Okoye", "Berg", "Silva", "Keller"]
NATIONS = ["Swedish", "Brazilian", "Egyptian", "Czech", "Japanese", "French", "Nigerian", "Danish", "Indian", "Turkish"]
JOBS = ["chemist", "painter", "politician", "footballer", "composer", "architect", "novelist", "judge", "pilot", "chef"]
CITIES = ["Paris", "Cairo", "Tokyo", "Oslo", "Lima", "Delhi", "Boston", "Vienna", "Lagos", "Madrid"]

choose = random.Random(1).choice


def biography():
    nation, job, city = choose(NATIONS), choose(JOBS), choose(CITIES)
    name, year = f"{choose(FIRST)} {choose(LAST)}", choose(range(1930, 1990))
    article = "an" if nation[0] in "EI" else "a"
    text = f"{name}, born in {year}, is {article} {nation} {job}. After some years abroad, {name} now lives in {city}."
    return text, f"{nation} {job} in {city}"


train, test = [biography() for _ in range(200)], [biography() for _ in range(40)]
runs = {}
for name, encoder, decoder in (
    ("both pretrained", "pretrained", "pretrained"),
    ("decoder random", "pretrained", "random"),
    ("both random", "random", "random"),
):
    runs[name] = warmstart.fit(
        train,
        validation=test[:20],
        test=test[20:],
        encoder="minilm",
        decoder="minilm",
        name=name.replace(" ", "_"),
        output_root=folder / "sweep",
        overrides={
            "encoder.weights": encoder,
            "decoder.weights": decoder,
            "trainer.accelerator": "cpu",
            "trainer.max_steps": 60,
            "trainer.progress_bar": False,
            "data.cache_dir": folder / "cache",
            "generation.num_beams": 1,
        },
    )

# %% [markdown]
# ## Two runs
# The 95 % interval is that of a paired bootstrap over the test examples. A difference whose interval includes 0 may
# come from the choice of examples.

# %%
comparison = warmstart.compare(runs["both pretrained"], runs["decoder random"])
print(comparison)

# %% [markdown]
# ## The table of the report
# `collect` reads all runs below a folder. `rows_of` names each row by the options that differ, makes one row of runs
# that differ only in their seed, and ranks the rows by validation, so that the test split selects nothing.

# %%
collected = collect([folder / "sweep"])
rows = rows_of(collected)
table = pd.DataFrame(
    [
        {
            "row": row.label,
            "ROUGE-1": row.mean("metrics", "test/rouge1"),
            "95 % interval": interval(row, "rouge1"),
            "lead1": row.mean("baselines", "lead1", "rouge1"),
            "another document": row.mean("controls", "shuffled_document", "rouge1"),
        }
        for row in rows
    ]
)
display(table.round(1))

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 3.6), layout="constrained")
for position, row in enumerate(rows):
    score, (low, high) = row.mean("metrics", "test/rouge1"), interval(row, "rouge1")
    left.errorbar(score, position, xerr=[[score - low], [high - score]], fmt="o", capsize=4)
    steps, losses = zip(*row.runs[0].curves["train/loss"], strict=True)
    right.plot(steps, losses, marker=".", label=row.label)
left.set_yticks(range(len(rows)), [row.label.replace(" ", "\n") for row in rows])
left.invert_yaxis()
left.set(xlabel="ROUGE-1 of the test split, 95 % interval", xlim=(0, 102))
right.set(xlabel="optimizer step", ylabel="loss in nats per token")
right.legend()
plt.show()

# %% [markdown]
# ## The report
# One HTML page with the finding, all comparisons, curves and examples, as `task=report` makes it. Copy it out of the
# temporary folder to keep it.

# %%
page = folder / "report.html"
page.write_text(render(collected, title="Starting points"), encoding="utf-8")
print(f"{page.stat().st_size / 1e3:.0f} kB")

# %%
assert comparison.scores["rouge1"].mean > 0
assert len(rows) == 3
temporary.cleanup()
