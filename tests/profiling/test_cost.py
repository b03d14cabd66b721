"""The predictions of task=check match what a real step saves, sends and caches."""

import json

import pytest
import torch
from transformers import BertConfig, GPT2Config, LlamaConfig

from warmstart import EncoderDecoderConfig, EncoderDecoderModel, cpu
from warmstart.config.schema import Device
from warmstart.data.tokenization.pair import load_pair
from warmstart.profiling.cost import TOKENS_PER_WORD, predict
from warmstart.profiling.devices import all_reduce_bytes, all_reduce_seconds
from warmstart.profiling.flops import training_flops
from warmstart.profiling.memory import ItemSizes, fit_memory, generation_memory
from warmstart.runs.identity import config_hash
from warmstart.tasks import check
from warmstart.tasks.check import pair_without_values

IDS = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SIZE = {"vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
BERT = BertConfig(**SIZE, intermediate_size=256)
LLAMA = LlamaConfig(**SIZE, num_key_value_heads=2, intermediate_size=160)
GPT2 = GPT2Config(**SIZE)
ROWS, SOURCE, TARGET = 3, 60, 20


def pair(decoder):
    graft = {"graft": {"every_n_layers": 2}} if decoder is LLAMA else {}
    model = EncoderDecoderModel(EncoderDecoderConfig(encoder=BERT, decoder=decoder, **graft, **IDS)).train()
    cpu.accelerate(model)
    return model


def batch():
    source, labels = torch.randint(3, 300, (ROWS, SOURCE)), torch.randint(3, 300, (ROWS, TARGET))
    return {"input_ids": source, "attention_mask": torch.ones_like(source), "labels": labels}


def kept_bytes(model, precision):
    known, kept, given = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}, batch()

    def keep(tensor):
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        model.training_loss(**given)  # tries the head
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.training_loss(**given)
    return sum(tensor.untyped_storage().nbytes() for address, tensor in kept.items() if address not in known)


@pytest.mark.parametrize("decoder", [BERT, GPT2, LLAMA])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("frozen", [False, True])
def test_activations_are_what_autograd_saves(decoder, precision, frozen):
    model = pair(decoder)
    if frozen:
        model.freeze_encoder()
    memory = fit_memory(model, ROWS, SOURCE, TARGET, precision)
    # Of the logits their gradient is kept, in their own precision.
    logits = (2 if precision == "bf16-mixed" else 4) * ROWS * TARGET * model.config.decoder.vocab_size
    predicted = memory["activations"] + memory["their 16-bit copies"] + logits
    assert predicted == pytest.approx(kept_bytes(model, precision), rel=0.12 if frozen else 0.08)


@pytest.mark.parametrize("decoder", [BERT, GPT2, LLAMA])
def test_caches_have_the_predicted_bytes(decoder):
    model = pair(decoder).eval()
    model.generation_config.eos_token_id = None
    given, beams, new = batch(), 4, 7
    written = model.generate(
        given["input_ids"], num_beams=beams, max_new_tokens=new, min_new_tokens=new, return_dict_in_generate=True
    )
    predicted = generation_memory(model, ROWS, beams, SOURCE, new, itemsize=4)
    cache = written.past_key_values
    own = getattr(cache, "self_attention_cache", cache)
    assert predicted["self-attention cache"] == sum(x.keys.nbytes + x.values.nbytes for x in own.layers)
    if decoder is LLAMA:
        states = torch.zeros(ROWS, SOURCE, 64)
        cross = [x for layer in model.cross_attention.values() for x in layer.keys_and_values(states)]
    else:
        cross = [x for layer in cache.cross_attention_cache.layers for x in (layer.keys, layer.values)]
    assert predicted["cross-attention cache"] == sum(x.nbytes for x in cross)


def test_a_rounded_model_keeps_its_float32_weights_in_memory():
    model = pair(GPT2)
    parameters = sum(p.numel() for p in model.parameters())
    plain, rounded = (generation_memory(model, ROWS, 4, SOURCE, 7, width) for width in (4, 2))
    assert (plain["weights"], plain["their float32 originals"]) == (4 * parameters, 0)
    assert (rounded["weights"], rounded["their float32 originals"]) == (2 * parameters, 4 * parameters)
    for cache in ("cross-attention cache", "self-attention cache"):
        assert rounded[cache] == plain[cache] / 2


def test_generation_is_predicted_in_its_own_dtype_not_that_of_the_fit(settings_of):
    words = ["encoder=bert", "decoder=gpt2", "device=a100"]
    plain = settings_of(*words)
    model = pair_without_values(plain)
    expected = predict(plain, model).generation_memory
    assert predict(settings_of(*words, "trainer.precision=bf16-true"), model).generation_memory == expected
    rounded = predict(settings_of(*words, "generation.dtype=bfloat16"), model).generation_memory
    assert rounded["self-attention cache"] == expected["self-attention cache"] / 2
    assert rounded["their float32 originals"] == expected["weights"]


def test_no_more_sources_are_generated_for_than_the_split_has(settings_of):
    words = ["encoder=bert", "decoder=gpt2", "data=written"]  # eight test examples
    model = pair_without_values(settings_of(*words))
    few, many = (predict(settings_of(*words, f"data.evaluation_max_tokens={n}"), model) for n in (300, 99999))
    assert (few.generated_examples, many.generated_examples) == (2, 8)
    cache = "cross-attention cache"
    assert many.generation_memory[cache] == 4 * few.generation_memory[cache]


def test_memory_by_kind_follows_precision_ranks_and_what_trains():
    model = pair(GPT2)
    weights = 4 * sum(p.numel() for p in model.parameters())
    one = fit_memory(model, ROWS, SOURCE, TARGET, "bf16-mixed")
    assert (one["weights"], one["gradients"], one["optimizer"]) == (weights, weights, 2 * weights)
    assert one["their buckets (ddp)"] == 0
    assert fit_memory(model, ROWS, SOURCE, TARGET, "bf16-mixed", ranks=2)["their buckets (ddp)"] == weights
    averaged = fit_memory(model, ROWS, SOURCE, TARGET, "bf16-mixed", averages=True)
    assert averaged == one | {"averages": one["gradients"]}
    half = fit_memory(model, ROWS, SOURCE, TARGET, "bf16-true")
    assert (half["weights"], half["their 16-bit copies"]) == (weights / 2, 0)
    model.freeze_encoder()
    trained = 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = fit_memory(model, ROWS, SOURCE, TARGET, "bf16-mixed")
    assert (frozen["weights"], frozen["gradients"], frozen["optimizer"]) == (weights, trained, 2 * trained)
    assert frozen["activations"] < 0.6 * one["activations"]
    assert ItemSizes.of("16-mixed") == ItemSizes(2, 4, 4)


def test_a_ring_sends_nearly_twice_the_gradients():
    assert all_reduce_bytes(100, 1) == 0
    assert all_reduce_bytes(100, 2) == 100
    assert all_reduce_bytes(100, 64) == pytest.approx(196.875)
    assert all_reduce_seconds(Device.h100, 450e9, 2, 1) == ("NVLink, 450 GB/s", 1.0)
    assert all_reduce_seconds(Device.h100, 50e9, 1, 2) == ("1 port(s) of InfiniBand, 50 GB/s", 1.0)
    assert all_reduce_seconds(Device.h100, 400e9, 8, 8) == ("8 port(s) of InfiniBand, 400 GB/s", 1.96875)
    assert all_reduce_seconds(Device.a100, 300e9, 8, 8) == ("NVLink, 300 GB/s", 1.96875)  # its ports are faster
    assert all_reduce_seconds(Device.cpu, 1, 2, 1) is None


def test_flops_follow_the_lengths_of_the_texts_not_their_mean(settings_of, tmp_path):
    path = tmp_path / "texts.jsonl"
    words = [(10, 3), (10, 4), (200, 5), (1000, 6)]
    lines = [{"document": f"{i} " + "w " * (n - 1), "summary": "s " * m} for i, (n, m) in enumerate(words)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    chosen = [f"data.train_path={path}", f"data.validation_path={path}", f"data.test_path={path}"]
    settings = settings_of("encoder=bert", "decoder=gpt2", "data=files", *chosen, "data.batch={max_tokens:null,size:4}")
    model = pair_without_values(settings)
    cost = predict(settings, model)
    lengths = [(min(TOKENS_PER_WORD * n + 2, 512), TOKENS_PER_WORD * m + 2) for n, m in words]
    assert cost.flops_per_step == pytest.approx(sum(training_flops(model, *length) for length in lengths))
    assert cost.examples == cost.examples_per_step == 4
    assert cost.source_tokens == pytest.approx(sum(source for source, _ in lengths) / 4)


def test_check_counts_the_tokens_of_local_tokenizers(settings_of, tmp_path, capsys):
    path = tmp_path / "german.jsonl"
    example = {"document": "Zuverlässigkeitsüberprüfung für Übersetzungsprogramme " * 20, "summary": "Prüfprogramm"}
    path.write_text("".join(json.dumps(example | {"id": str(i)}) + "\n" for i in range(8)))
    chosen = [f"data.{split}_path={path}" for split in ("train", "validation", "test")]
    settings = settings_of("encoder=minilm", "decoder=minilm", "data=files", *chosen)
    words_only = predict(settings, pair_without_values(settings))
    tokenizers = load_pair(settings.encoder, settings.decoder, list)
    rows = tokenizers.encode_sources([example["document"]], 512), tokenizers.encode_targets([example["summary"]], 128)
    source, target = (len(row) for (row,) in rows)
    check.run(settings, tmp_path)
    assert f"examples of about {source} + {target} tokens" in capsys.readouterr().out
    assert source > 3 * words_only.source_tokens


def test_check_prints_the_prediction_for_the_configured_device(settings_of, tmp_path, capsys):
    words = ["encoder=bert", "decoder=gpt2", "trainer=ddp", "trainer.devices=8", "trainer.nodes=2"]
    settings = settings_of(*words, "device=a100")
    check.run(settings, tmp_path)
    printed = capsys.readouterr().out
    sent = all_reduce_bytes(4 * predict(settings, pair_without_values(settings)).parameters["trainable"], 16)
    assert f"{sent / 1e6:.0f} MB sent by each of 16 ranks a step (ddp)" in printed
    for phrase in (
        *("over NVLink, 300 GB/s", "16 x A100 SXM 80 GB at 40% of 312 TFLOP/s (data sheet, bf16-mixed)"),
        *("cross-attention cache", "self-attention cache", "activations", "their 16-bit copies", "their buckets (ddp)"),
    ):
        assert phrase in printed
    check.run(settings_of("encoder=bert", "decoder=gpt2", "device=rtx4090", "data.batch.max_tokens=65536"), tmp_path)
    printed = capsys.readouterr().out
    assert "more than its 22 GiB: lower data.batch.max_tokens" in printed
    assert "ddp" not in printed


def sent(settings, tmp_path, capsys):
    """Megabytes that ``task=check`` says each rank sends."""
    check.run(settings, tmp_path)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("  gradients"))
    return float(line.split()[1])


def test_shards_send_all_weights_twice_and_gradients_once_for_every_batch(settings_of, tmp_path, capsys):
    words = ["encoder=bert", "decoder=gpt2", "trainer.devices=8", "device=a100"]
    ddp = sent(settings_of(*words, "trainer=ddp"), tmp_path, capsys)
    words += ["trainer=fsdp"]
    assert sent(settings_of(*words), tmp_path, capsys) == pytest.approx(1.5 * ddp, abs=1)
    assert sent(settings_of(*words, "trainer.accumulate=2"), tmp_path, capsys) == pytest.approx(3 * ddp, abs=1)
    frozen = settings_of(*words, "bridge.freeze=encoder")
    counts = predict(frozen, pair_without_values(frozen)).parameters
    expected = 7 / 8 * 4 * (2 * counts["total"] + counts["trainable"]) / 1e6
    assert sent(frozen, tmp_path, capsys) == pytest.approx(expected, abs=1)


def test_the_configured_device_is_typed_and_changes_no_result(settings_of):
    assert config_hash(settings_of("device=a100")) == config_hash(settings_of())
    with pytest.raises(Exception, match="b200"):
        settings_of("device=b200")


def test_hours_are_for_all_ranks_together(settings_of, tmp_path, capsys):
    times = {}
    for ranks in (1, 8):
        settings = settings_of("encoder=bert", "decoder=gpt2", "device=h100", f"trainer.devices={ranks}")
        check.run(settings, tmp_path)
        (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("  time"))
        minutes = float(line.split("roughly ")[1].split()[0])
        times[ranks] = minutes
    assert times[1] / times[8] == pytest.approx(8, rel=0.05)
