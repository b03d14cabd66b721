"""Untrained pairs, batches and a greedy search, with which the tests compare converted models."""

import torch
import transformers
from tiny import IDS, OURS, TARGET_VOCABULARY, small_config, small_decoder_config, source

LLAMA = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}


def pair(decoder, seed=3):
    """Return an untrained model that writes different tokens, with open gates."""
    torch.manual_seed(seed)
    if decoder == "llama":
        sizes = LLAMA | {"hidden_size": 24, "max_position_embeddings": 40, "initializer_range": 0.3}
        config = transformers.LlamaConfig(vocab_size=TARGET_VOCABULARY, pad_token_id=1, **sizes)
    elif decoder == "mamba":
        config = transformers.MambaConfig(vocab_size=TARGET_VOCABULARY, hidden_size=24, num_hidden_layers=2)
    else:
        config = small_decoder_config(decoder, width=24, tie_word_embeddings=False)
    model = OURS.join(small_config("bert"), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:  # norms, biases and gates, which start at 0 and 1
                parameter.add_(0.3 * torch.randn_like(parameter))
            elif "embed" in name or "wte" in name:
                parameter.mul_(3)
    return model


def ours(model, batch, length=9, **search):
    with torch.no_grad():
        return model.generate(**batch, max_new_tokens=length, **({"num_beams": 1} | search))[:, 1:].tolist()


def greedy(encode, step, shapes, batch, length=9):
    """Generate ids until every target has ended; ``encode`` and ``step`` are called as the programs are."""
    mask = batch["attention_mask"]
    values = encode(input_ids=batch["input_ids"], attention_mask=mask)
    past = [torch.zeros(len(mask), heads, 0, size) for heads, size in shapes]
    last = torch.full((len(mask), 1), IDS["decoder_start_token_id"])
    rows, ended = torch.zeros(len(mask), 0, dtype=torch.long), torch.zeros(len(mask), 1, dtype=torch.bool)
    while rows.shape[1] < length and not ended.all():
        logits, past = step(decoder_input_ids=last, attention_mask=mask, source=values, past=past)
        last = logits.argmax(-1, keepdim=True).masked_fill(ended, IDS["pad_token_id"])
        ended |= last == IDS["eos_token_id"]
        rows = torch.cat([rows, last], dim=1)
    return rows.tolist()


BATCHES = [source(), source(batch_size=1, length=12, seed=5), source(batch_size=4, length=3, seed=6)]
