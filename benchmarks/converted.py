"""Compare converted models with warmstart: the ids of greedy search, and the time of a summary on one CPU thread.

    python benchmarks/converted.py
    python benchmarks/converted.py --size base

Models have random weights. Each format generates the same number of tokens, alternately with warmstart. The extras
`onnx` and `ctranslate2` are needed.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import ctranslate2
import numpy as np
import onnxruntime
import torch
from transformers import BertConfig, GPT2Config, LlamaConfig

from warmstart import EncoderDecoderConfig, EncoderDecoderModel
from warmstart.convert import to_ctranslate2, to_onnx, to_torch_export
from warmstart.errors import UserError

VOCABULARY, SOURCE, TOKENS = 1000, 128, 32
SIZES = {"small": (128, 2, 2), "base": (768, 6, 12)}  # hidden size, layers, heads


def model_of(decoder: str, size: str):
    torch.manual_seed(0)
    width, layers, heads = SIZES[size]
    same = {"vocab_size": VOCABULARY, "initializer_range": 0.1, "tie_word_embeddings": False}
    bert = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    bert |= same | {"intermediate_size": 4 * width}
    config = {
        "gpt2": lambda: GPT2Config(n_embd=width, n_layer=layers, n_head=heads, **same),
        "bert": lambda: BertConfig(**bert),
        "llama": lambda: LlamaConfig(max_position_embeddings=512, **bert),
    }[decoder]()
    ids = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    model = EncoderDecoderModel(EncoderDecoderConfig(encoder=BertConfig(**bert), decoder=config, **ids)).eval()
    model.generation_config.update(max_new_tokens=TOKENS, min_new_tokens=TOKENS, eos_token_id=2)
    return model


def greedy(encode, step, shapes, ids, zeros):
    """Generate ids with two graphs; ``encode`` and ``step`` take and return lists."""
    values, past, last, found = encode(ids), [zeros((1, h, 0, d)) for h, d in shapes], 1, []
    for _ in range(TOKENS):
        logits, past = step(last, values, past)
        logits[:, 2] = -float("inf")
        last = int(logits[0].argmax())
        found.append(last)
    return found


def runners(model, folder: Path):
    """Return, by format, a function from ids to ids, or the reason why the pair has none."""
    found = {}
    for name, writer in (("torch_export", to_torch_export), ("onnx", to_onnx)):
        (folder / name).mkdir()
        writer.write(model, folder / name)
    shapes = None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    encode, step = (onnxruntime.InferenceSession(folder / "onnx" / f"{n}.onnx", options) for n in ("encode", "step"))
    names = [one.name for one in step.get_inputs()][2:]
    shapes = [(one.shape[1], one.shape[3]) for one in step.get_inputs() if one.name.startswith("past_")]
    mask = np.ones((1, SOURCE), np.int64)

    def onnx_encode(ids):
        return encode.run(None, {"input_ids": ids.numpy(), "attention_mask": mask})

    def onnx_step(last, values, past):
        token = {"decoder_input_ids": np.array([[last]]), "attention_mask": mask}
        logits, *past = step.run(None, dict(zip(names, [*values, *past], strict=True)) | token)
        return logits, past

    found["onnx"] = lambda ids: greedy(onnx_encode, onnx_step, shapes, ids, lambda s: np.zeros(s, np.float32))
    programs = [torch.export.load(folder / "torch_export" / f"{n}.pt2").module() for n in ("encode", "step")]
    ones = torch.from_numpy(mask)

    def torch_step(last, values, past):
        token = torch.tensor([[last]])
        return programs[1](decoder_input_ids=token, attention_mask=ones, source=values, past=past)

    def torch_encode(ids):
        return programs[0](input_ids=ids, attention_mask=ones)

    found["torch_export"] = lambda ids: greedy(torch_encode, torch_step, shapes, ids, torch.zeros)
    (folder / "ctranslate2").mkdir()
    tokens = [f"t{i}" for i in range(VOCABULARY)]
    try:
        to_ctranslate2.write(model, tokens, tokens, folder / "ctranslate2")
    except UserError:
        return found
    translator = ctranslate2.Translator(str(folder / "ctranslate2"), compute_type="float32", intra_threads=1)
    lengths = {"min_decoding_length": TOKENS, "max_decoding_length": TOKENS}

    def translate(ids):
        (result,) = translator.translate_batch([[f"t{i}" for i in ids[0].tolist()]], beam_size=1, **lengths)
        return [int(token[1:]) for token in result.hypotheses[0]]

    return found | {"ctranslate2": translate}


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| pair | format | equal ids | format, ms | warmstart, ms | ratio |\n|---|---|---|---|---|---|")
    for decoder in ("gpt2", "bert", "llama"):
        model = model_of(decoder, given.size)
        sources = torch.randint(3, VOCABULARY, (given.repeats + 1, 1, SOURCE))
        with tempfile.TemporaryDirectory() as folder:
            with torch.no_grad():
                formats = runners(model, Path(folder))
            for name, run in formats.items():
                times, own, equal = [], [], 0
                for ids in sources:
                    begun = time.perf_counter()
                    theirs = run(ids)
                    middle = time.perf_counter()
                    ours = model.generate(ids, attention_mask=torch.ones_like(ids), num_beams=1)[0, 1:].tolist()
                    times.append(middle - begun)
                    own.append(time.perf_counter() - middle)
                    equal += ours == theirs
                theirs_ms, ours_ms = (1000 * statistics.median(each[1:]) for each in (times, own))  # without the first
                row = f"{equal} of {len(sources)} | {theirs_ms:.0f} | {ours_ms:.0f} | {theirs_ms / ours_ms:.2f}"
                print(f"| BERT x {decoder} | `{name}` | {row} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
