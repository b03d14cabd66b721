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
# # Train on your own data
# For anyone with documents and summaries in a table. You write a csv file, fit a pair on it with `warmstart.fit`, read
# its scores next to those of baselines, and summarize a new text. MiniLM's weights come from an installed package: you
# need no hub and no account. To use your own file, replace the cell that writes the csv.

# %%
import random
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import pandas as pd

import warmstart
from warmstart.runs.run_dir import RunDir

temporary = TemporaryDirectory()
folder = Path(temporary.name)

# %% [markdown]
# ## Two csv files
# Here they contain messages to the support of a shop, with a subject line for each. Two columns matter: the text to
# read and the text to write. The test file has combinations of product and problem that the training file lacks, so
# that the model cannot have learned its subjects by heart.

# %%
PRODUCTS = ["kettle", "lamp", "printer", "bicycle", "camera", "jacket", "phone", "desk", "tent", "radio"]
PROBLEMS = {
    "broke on the second day": "broken {}",
    "has not arrived, and the courier does not answer": "{} not delivered",
    "came in the wrong colour": "wrong colour of {}",
    "is far too small for us": "{} too small",
    "was charged twice to my card": "{} paid twice",
    "came without its manual": "manual of {} missing",
}
OPENINGS = ["Hello,", "Good morning,", "Dear team,", "Hi,"]
DETAILS = ["I ordered it a week ago.", "It was a present for my sister.", "I have bought from you before.", ""]
CLOSINGS = ["Please help.", "What can I do now?", "I would like my money back.", "Thank you for a quick answer."]

choose = random.Random(1).choice
rows = {"train": [], "test": []}
for number, (item, (problem, subject)) in enumerate(product(PRODUCTS, PROBLEMS.items())):
    for _ in range(4):
        message = f"{choose(OPENINGS)} the {item} {problem}. {choose(DETAILS)} {choose(CLOSINGS)}"
        split = "test" if number % 7 == 0 else "train"
        rows[split].append({"message": message, "subject": subject.format(item)})
for split, of_split in rows.items():
    pd.DataFrame(of_split).drop_duplicates().to_csv(folder / f"{split}.csv", index=False)
pd.read_csv(folder / "train.csv").sample(4, random_state=1)

# %% [markdown]
# ## Fit
# The lengths, steps and learning rates are chosen from the file (`trainer.recipe=auto`); anything in `overrides` takes
# precedence. A part of the training file becomes the validation split; without `test`, another part becomes the test
# split. The same call with the same `name` resumes an interrupted fit.

# %%
run = warmstart.fit(
    folder / "train.csv",
    test=folder / "test.csv",
    encoder="minilm",
    decoder="minilm",
    document_column="message",
    summary_column="subject",
    name="messages",
    output_root=folder / "runs",
    overrides={
        "generation.num_beams": 2,
        "data.baselines": ["lead", "nearest"],
        "trainer.accelerator": "cpu",
        "trainer.max_steps": 150,
        "trainer.progress_bar": False,
        "data.cache_dir": folder / "cache",
    },
)
print(run)

# %% [markdown]
# ## Did it learn?
# The left plot shows the loss. The right plot shows the ROUGE-1 of the test split with its 95 % interval, next to texts
# that no model has written (the first sentences, and the subject of the most similar training message) and to controls:
# the subject of another message, and what the decoder writes without a source.

# %%
metrics = pd.DataFrame(RunDir(run.folder).read_metrics()).apply(pd.to_numeric, errors="coerce")
others = run.baselines | run.result["controls"]
names = ["model", *(name.replace("_", " ") for name in others)]
scores = [run.scores["rouge1"], *(other["rouge1"] for other in others.values())]
low, high = run.intervals["rouge1"]

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
for column in ("train/loss", "validation/loss"):
    curve = metrics.dropna(subset=[column])
    left.plot(curve["step"], curve[column], marker=".", label=column)
left.set(xlabel="optimizer step", ylabel="nats per token", yscale="log")
left.legend()
right.barh(names, scores)
right.errorbar(scores[0], 0, xerr=[[scores[0] - low], [high - scores[0]]], color="black", capsize=4)
right.invert_yaxis()
right.set(xlabel="ROUGE-1 of the test split", xlim=(0, 100))
plt.show()

# %%
pd.DataFrame(run.predictions)[["document", "reference", "prediction"]].head()

# %% [markdown]
# ## Use it
# `warmstart.Summarizer.from_pretrained("runs/messages")` opens the same model in another program. The lamp below has a
# problem that no message of the training file has with a lamp.

# %%
summarizer = warmstart.Summarizer.from_pretrained(run)
subject = summarizer("Good evening, my brother sent me a lamp as a present. The lamp came in the wrong colour.")
print(subject)

# %%
assert run.scores["rouge1"] > max(other["rouge1"] for other in others.values())
temporary.cleanup()
