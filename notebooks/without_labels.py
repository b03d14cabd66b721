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
# # Train the bridge without labels
# For anyone with many texts and few summaries. The cross-attention between encoder and decoder is not pretrained. You
# train it on texts without summaries, fine-tune from its weights on 32 pairs, and compare that with the same
# fine-tuning without this step. MiniLM's weights come from an installed package: you need no hub and no account.

# %%
import random
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import pandas as pd

import warmstart
from warmstart.runs.run_dir import RunDir

temporary = TemporaryDirectory()
folder = Path(temporary.name)

# %% [markdown]
# ## Many texts, few summaries
# 500 invented biographies without a summary, and 32 others with one. Validation and test have further ones.

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


texts = pd.DataFrame([biography()[0] for _ in range(500)], columns=["document"])
texts.to_csv(folder / "texts.csv", index=False)
train, validation, test = ([biography() for _ in range(number)] for number in (32, 20, 40))
texts.head()

# %% [markdown]
# ## Without labels
# `experiment=adapt` trains the new parameters first, and then all of them. `data.objective` makes source and target
# from a document: with `reconstruction`, the source lacks three words of ten and the target is its opening, here the
# whole text, so the
# decoder learns to copy from the source and to fill gaps. A file without summaries names the column of the documents
# for both.

# %%
common = {"trainer.accelerator": "cpu", "trainer.progress_bar": False, "data.cache_dir": folder / "cache"}
adapted = warmstart.fit(
    folder / "texts.csv",
    recipe="adapt",
    document_column="document",
    summary_column="document",
    name="adapted",
    output_root=folder,
    overrides=common
    | {
        "data.objective": "reconstruction",
        "data.batch.max_tokens": 800,
        "trainer.max_epochs": 4,
        "trainer.max_steps": 80,
        "trainer.measure_threads": False,
        "bridge.warmup_steps": 25,
    },
)

# %% [markdown]
# ## With 32 pairs
# The same fine-tuning of 30 steps twice: from the pretrained encoder and decoder, and from the adapted weights
# (`ckpt_weights`). Both fine-tune for the same time, but the adapted model was trained before. So a third run
# fine-tunes the pretrained models for 110 steps, as many as adaptation and fine-tuning have together.

# %%
starts = {
    "pretrained, 30 steps": {"trainer.max_steps": 30},
    "adapted, 30 steps": {"trainer.max_steps": 30, "ckpt_weights": adapted.folder},
    "pretrained, 110 steps": {"trainer.max_steps": 110},
}
runs = {
    name: warmstart.fit(
        train,
        validation=validation,
        test=test,
        encoder="minilm",
        decoder="minilm",
        name=name.replace(", ", "_").replace(" ", "_"),
        output_root=folder,
        overrides=common | {"generation.num_beams": 1} | start,
    )
    for name, start in starts.items()
}

# %% [markdown]
# ## What the adaptation gave
# With the same fine-tuning, the adapted model is far ahead. With as many steps in all, the longer fine-tuning comes
# within a few points of it, and takes less time, because a step of adaptation has longer targets. So for texts as
# regular as these, the adaptation saves fine-tuning and not time. With your own texts, look at both comparisons.

# %%
short, from_adapted, long = runs.values()
for other in (short, long):
    print(warmstart.compare(from_adapted, other), end="\n\n")
pd.DataFrame(
    {
        "adaptation, seconds": [
            0 if run is not from_adapted else adapted.result["seconds"]["fit"] for run in runs.values()
        ],
        "fine-tuning, seconds": [run.result["seconds"]["fit"] for run in runs.values()],
        "ROUGE-1": [run.scores["rouge1"] for run in runs.values()],
    },
    index=list(runs),
).round(1)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
for name, run in runs.items():
    metrics = pd.DataFrame(RunDir(run.folder).read_metrics()).apply(pd.to_numeric, errors="coerce")
    curve = metrics.dropna(subset=["validation/loss"])
    left.plot(curve["step"], curve["validation/loss"], marker=".", label=name)
    score, (low, high) = run.scores["rouge1"], run.intervals["rouge1"]
    right.bar(name.replace(", ", ",\n"), score, yerr=[[score - low], [high - score]], capsize=6)
left.set(xlabel="optimizer step of fine-tuning", ylabel="validation loss, nats per token", ylim=(0, None))
left.legend()
right.set(ylabel="ROUGE-1 of the test split, 95 % interval", ylim=(0, 102))
plt.show()

# %% [markdown]
# ## What they write

# %%
columns = {name: [row["prediction"] for row in run.predictions] for name, run in runs.items()}
references = [row["reference"] for row in from_adapted.predictions]
pd.DataFrame({"reference": references} | columns).head(8)

# %%
summarizer = from_adapted.summarizer()
summarizer("Omar Keller, born in 1975, is a French pilot. After some years abroad, Omar Keller now lives in Boston.")

# %%
assert from_adapted.scores["rouge1"] > short.scores["rouge1"]
temporary.cleanup()
