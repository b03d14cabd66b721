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
# # Read the cross-attention of a summary
# For anyone who wants to know which words of a text a model reads when it writes a word. You train a small pair, plot
# its cross-attention as a heat map, and test whether the words that it reads decide. MiniLM's weights come from an
# installed package: you need no hub and no account.

# %%
import random
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import torch

import warmstart
from warmstart.data.tokenization.pair import TokenizerPair
from warmstart.page.reading import cross_attention, reading_of, word_spans, words_read
from warmstart.runs.run_dir import RunDir

temporary = TemporaryDirectory()
folder = Path(temporary.name)

# %% [markdown]
# ## A model
# The texts are invented biographies, the summaries are short descriptions. To read the attention of a model of yours,
# leave the fit out and set `run = warmstart.TrainedRun("runs/NAME")`.

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


run = warmstart.fit(
    [biography() for _ in range(400)],
    encoder="minilm",
    decoder="minilm",
    name="biographies",
    output_root=folder,
    overrides={
        "trainer.accelerator": "cpu",
        "trainer.max_steps": 200,
        "trainer.progress_bar": False,
        "data.cache_dir": folder / "cache",
        "generation.num_beams": 1,
    },
)
summarizer = run.summarizer()
tokenizers = TokenizerPair.load(RunDir(run.folder).checkpoints.tokenizers)

# %%
text = "Clara Haddad, born in 1961, is a Danish composer. After some years abroad, Clara Haddad now lives in Lima."
summary = summarizer(text)
print(summary)

# %% [markdown]
# ## The heat map
# The summary is given to the decoder once more. In each layer, each head distributes a weight of 1 over the source
# tokens; the map shows the mean over layers and heads. A row belongs to the token that is written there.
# The special tokens at both ends take the weight that a head does not need, so they are left out.

# %%
reading = reading_of(tokenizers, text, summarizer.max_source_length)
(source,) = tokenizers.encode_sources([text], reading.tokens)
(labels,) = tokenizers.encode_targets([summary], 32)
start = summarizer.model.config.decoder_start_token_id
weights = cross_attention(summarizer.model, torch.tensor([source]), torch.tensor([[start, *labels[:-1]]]))

figure, axes = plt.subplots(figsize=(11, 3.4), layout="constrained")
image = axes.imshow(weights[:, 1:-1], aspect="auto", cmap="viridis")
axes.set_xticks(range(len(source) - 2), tokenizers.source.convert_ids_to_tokens(source[1:-1]), rotation=90)
axes.set_yticks(range(len(labels)), tokenizers.target.convert_ids_to_tokens(labels))
axes.set(xlabel="source token", ylabel="written token")
figure.colorbar(image, label="weight")
plt.show()

# %% [markdown]
# ## From tokens to words
# `words_read` adds the weights of the tokens of each word and leaves special tokens out. The page of `task=demo` shows
# the same when you point at a word.

# %%
source_words = [text[begin:end] for begin, end in word_spans(text)]
read = words_read(summarizer.model, tokenizers, text, summary, reading)
for (begin, end), strongest in zip(word_spans(summary), read, strict=True):
    print(f"{summary[begin:end]:>10} :", ", ".join(f"{source_words[i]} {weight:.0%}" for i, weight in strongest[:4]))

# %% [markdown]
# ## Does such a word decide?
# A large weight is not a proof. A test is: change one word of the text, and summarize it again.

# %%
changed = {word: summarizer(text.replace(word, other)) for word, other in (("Danish", "Turkish"), ("Lima", "Oslo"))}
print(changed)

# %%
assert torch.allclose(weights.sum(1), torch.ones(len(labels)), atol=1e-4)
assert summary == "Danish composer in Lima"
assert changed == {"Danish": "Turkish composer in Lima", "Lima": "Danish composer in Oslo"}
temporary.cleanup()
