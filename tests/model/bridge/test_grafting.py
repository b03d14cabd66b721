"""Grafted cross-attention: the plain language model at first, then a model that uses its source."""

import copy

import pytest
import torch
import transformers
from tiny import IDS, TARGET_VOCABULARY, gap, small_config, small_decoder_config, source, target

from warmstart import EncoderDecoderConfig, EncoderDecoderModel
from warmstart.compatibility.tiny_configs import tiny_config
from warmstart.model.bridge.copy_init import copy_cross_attention
from warmstart.model.call_state import EncodedSource
from warmstart.model.decoders import decoder_class
from warmstart.model.loss import Head

HEADS = {"num_key_value_heads": 2, "head_dim": 8}
KINDS = {
    "llama": HEADS,
    "qwen3": HEADS,
    "gemma2": HEADS | {"layer_types": ["sliding_attention", "full_attention"]},
    "gpt_neox": {"hidden_dropout": 0.0},
    "opt": {"word_embed_proj_dim": 32, "ffn_dim": 48, "dropout": 0.0},
    "mamba": {"state_size": 4, "expand": 2, "time_step_rank": 4},
    "openai-gpt": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40}
    | dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SOURCE_WIDTH = 48


def build(kind="llama", gate="zero", opened=0.5, **graft):
    torch.manual_seed(0)
    decoder = small_decoder_config(kind, **KINDS[kind])
    config = EncoderDecoderConfig(
        encoder=small_config("bert", SOURCE_WIDTH, **NO_DROPOUT), decoder=decoder, graft={"gate": gate, **graft}, **IDS
    )
    model = EncoderDecoderModel(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith(".gate"):
            torch.nn.init.constant_(parameter, opened)
    return model


@pytest.fixture(params=KINDS)
def model(request):
    return build(request.param)


def test_model_with_closed_gates_is_the_language_model(model):
    ids = target().clamp(min=5)
    bare = model.decoder(ids).logits
    assert gap(model(**source(), decoder_input_ids=ids).logits, bare) > 1e-3
    for cross in model.cross_attention.values():
        torch.nn.init.zeros_(cross.gate)
    assert torch.equal(model(**source(), decoder_input_ids=ids).logits, bare)


def test_decoder_without_a_source_is_the_language_model(model):
    labels = target().clamp(min=5)
    ids = model.prepare_decoder_input_ids_from_labels(labels)
    wanted = torch.nn.functional.cross_entropy(model.decoder(ids).logits.mT, labels, reduction="none").sum(dim=1)
    assert torch.allclose(model.likelihood(**source(), labels=labels, read_source=False)[0], wanted, rtol=1e-4)
    assert gap(model.likelihood(**source(), labels=labels)[0], wanted) > 1e-4
    if model.config.decoder.model_type != "mamba":
        bare = model.decoder.generate(ids[:1, :1], max_new_tokens=4, do_sample=False, eos_token_id=2, pad_token_id=1)
        assert torch.equal(model.generate_alone(max_new_tokens=4, num_beams=1), bare)


def test_gate_starts_at_zero_and_is_optional():
    assert [cross.gate.item() for cross in build(opened=0.0).cross_attention.values()] == [0.0, 0.0]
    assert all(cross.gate is None for cross in build(gate="none").cross_attention.values())


def test_state_dict_keys_of_the_decoder_do_not_change(model):
    bare = transformers.AutoModelForCausalLM.from_config(model.config.decoder)
    assert {name.removeprefix("decoder.") for name in model.state_dict() if name.startswith("decoder.")} == set(
        bare.state_dict()
    )


def test_every_n_layers():
    assert list(build(every_n_layers=2).cross_attention) == ["1"]
    with pytest.raises(ValueError, match="every_n_layers=3, but LlamaForCausalLM has only 2 layers"):
        build(every_n_layers=3)
    with pytest.raises(ValueError, match=r"graft has no setting every. Choose from every_n_layers"):
        build(every=2)


def gradients(model):
    model.zero_grad()
    model(**source(), labels=target()).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_every_new_parameter_gets_a_gradient(model):
    found = gradients(model)
    assert {name for name in model.new_parameter_names() if name not in found or not found[name].abs().sum()} == set()


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_does_not_change_gradients(model, reentrant):
    plain = gradients(model.train())
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    torch.testing.assert_close(gradients(model), plain)


def test_padding_of_the_source_has_no_effect(model):
    ids = target()
    base = model(**source(), labels=ids).logits
    changed = source()
    changed["input_ids"][1, 5:] = 9
    torch.testing.assert_close(model(**changed, labels=ids).logits, base)


def test_grafted_decoder_is_causal(model):
    ids = target().clamp(min=5)
    later = ids.clone()
    later[:, 4:] = 7
    states = [model(**source(), decoder_input_ids=x).logits[:, :4] for x in (ids, later)]
    assert gap(*states) < 1e-5


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_with_and_without_cache_and_one_by_one(model, beams):
    options = {"max_new_tokens": 7, "num_beams": beams, "do_sample": False}
    batch = source()
    cached = model.generate(**batch, **options)
    assert torch.equal(cached, model.generate(**batch, **options, use_cache=False))
    for row in range(3):
        single = model.generate(**{name: value[row : row + 1] for name, value in batch.items()}, **options)
        size = min(single.shape[1], cached.shape[1])
        assert torch.equal(single[0, :size], cached[row, :size])


def test_generation_and_training_compute_equal_logits(model):
    ids = model.generate(**source(), max_new_tokens=6, min_new_tokens=6, do_sample=False)
    again = model(**source(), decoder_input_ids=ids).logits[:, :-1]
    again[..., IDS["eos_token_id"]] = -float("inf")
    assert torch.equal(again.argmax(-1), ids[:, 1:])


@pytest.mark.parametrize("start", [4, 1])  # 1 is the pad id
def test_roberta_generates_at_the_positions_of_training(start):
    """RoBERTa numbers positions from its pad id + 1, the decoder's own ``generate`` from 0."""
    torch.manual_seed(0)
    ids = IDS | {"decoder_start_token_id": start}
    decoder = small_decoder_config("roberta", **NO_DROPOUT)
    model = EncoderDecoderModel(EncoderDecoderConfig(encoder=small_config("bert"), decoder=decoder, graft={}, **ids))
    search = {"max_new_tokens": 6, "output_logits": True, "return_dict_in_generate": True}
    found = model.eval().generate(**source(), **search)
    wanted = model(**source(), decoder_input_ids=found.sequences[:, :-1]).logits
    torch.testing.assert_close(torch.stack(found.logits, dim=1), wanted, atol=1e-4, rtol=1e-4)
    beams = source() | {"max_new_tokens": 6, "num_beams": 3}
    assert torch.equal(model.generate(**beams), model.generate(**beams, use_cache=False))


def test_keys_and_values_are_computed_once_per_source():
    model, rows = build(), []
    for cross in model.cross_attention.values():
        cross.k_proj.register_forward_hook(lambda module, args, output: rows.append(output.shape[0]))
    model.generate(**source(), num_beams=4, num_return_sequences=4, max_new_tokens=6, do_sample=False)
    assert rows == [3, 3]  # two layers, three sources: independent of beams and steps


def test_stored_keys_and_values_are_contiguous():
    model = build()
    held = EncodedSource(torch.randn(3, 9, 32), None, kept={})
    with torch.no_grad(), model._call.during(source=held):
        model.decoder(target().clamp(min=5))
    assert held.kept
    assert all(tensor.is_contiguous() for pair in held.kept.values() for tensor in pair)


def test_saved_and_loaded(model, tmp_path):
    before = model(**source(), labels=target())
    model.save_pretrained(tmp_path)
    again, info = EncoderDecoderModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert torch.equal(again.eval()(**source(), labels=target()).logits, before.logits)


def test_training_loss_of_a_grafted_model(model):
    whole = model(**source(), labels=target())
    loss, nll, count = model.training_loss(**source(), labels=target())
    torch.testing.assert_close(loss / count, whole.loss)
    torch.testing.assert_close(nll / count, whole.loss.detach())


def test_scaled_lm_head_is_recognized():
    model = build("gemma2")
    model.training_loss(**source(), labels=target())
    assert model.head_kind is Head.scaled
    llama = build("llama")
    llama.training_loss(**source(), labels=target())
    assert llama.head_kind is Head.plain


def test_copy_of_a_grafted_model_is_independent():
    model = build()
    other = copy.deepcopy(model)
    for cross in other.cross_attention.values():
        torch.nn.init.zeros_(cross.gate)
    ids = target().clamp(min=5)
    assert torch.equal(other(**source(), decoder_input_ids=ids).logits, model.decoder(ids).logits)
    assert gap(model(**source(), decoder_input_ids=ids).logits, model.decoder(ids).logits) > 1e-3


def test_grafting_onto_a_pretrained_decoder(tmp_path):
    transformers.AutoModel.from_config(small_config("bert", SOURCE_WIDTH)).save_pretrained(tmp_path / "encoder")
    decoder = transformers.AutoModelForCausalLM.from_config(small_decoder_config("llama", **HEADS))
    decoder.save_pretrained(tmp_path / "decoder")
    model = EncoderDecoderModel.from_encoder_decoder_pretrained(
        tmp_path / "encoder", tmp_path / "decoder", graft={"every_n_layers": 2}, **IDS
    )
    ids = target().clamp(min=5)
    assert torch.equal(model(**source(), decoder_input_ids=ids).logits, decoder.eval()(ids).logits)
    new = model.new_parameter_names()
    assert {name.split(".")[0] for name in new} == {"cross_attention", "enc_to_dec_proj"}
    assert not any(name.startswith("cross_attention.0") for name in new)


def test_generation_config_of_the_decoder_is_not_used():
    model = build()
    model.decoder.generation_config.do_sample = True
    model.decoder.generation_config.temperature = 9.0
    assert torch.equal(*(model.generate(**source(), max_new_tokens=8) for _ in range(2)))


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2", "gpt_neox", "opt"])
def test_grafted_layers_are_copied_from_self_attention(kind):
    """The weights equal those of the layer's self-attention, also from a fused matrix."""
    model = build(kind, opened=1.0)
    copy_cross_attention(model)
    cross = model.cross_attention["0"]
    attention = next(m for m in model.decoder.modules() if hasattr(m, "query_key_value") or hasattr(m, "q_proj"))
    if hasattr(attention, "query_key_value"):
        fused = attention.query_key_value.weight.view(4, 3, 8, 32)
        for part, name in enumerate(("q_proj", "k_proj", "v_proj")):
            assert torch.equal(getattr(cross, name).weight.view(4, 8, 32), fused[:, part])
    else:
        for name in ("q_proj", "k_proj", "v_proj"):
            assert torch.equal(getattr(cross, name).weight, getattr(attention, name).weight)


def test_effective_scale_of_gemmas_norm_is_copied():
    model = build("gemma2")
    norm = model.decoder.model.layers[0].input_layernorm
    torch.nn.init.normal_(norm.weight, std=0.3)
    copy_cross_attention(model)
    states = torch.randn(2, 3, 32)
    torch.testing.assert_close(model.cross_attention["0"].norm(states), norm(states), atol=1e-4, rtol=1e-4)


def test_copying_without_self_attention_is_refused():
    with pytest.raises(ValueError, match=r"MambaBlock .* no self-attention"):
        copy_cross_attention(build("mamba"))


def test_bfloat16_and_autocast():
    model = build().to(torch.bfloat16)
    assert model(**source(), labels=target()).loss.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _, count = build().training_loss(**source(), labels=target())
    plain, _, _ = build().training_loss(**source(), labels=target())
    assert abs(float(loss - plain)) / float(count) < 0.05
    assert model.config.decoder.vocab_size == TARGET_VOCABULARY


@pytest.mark.slow
def test_compiled_model_gives_equal_logits():
    model = build()
    compiled = torch.compile(model)
    torch.testing.assert_close(
        compiled(**source(), labels=target()).logits, model(**source(), labels=target()).logits, atol=1e-4, rtol=1e-4
    )


def test_prompt_and_start_token_of_generate():
    model, start = build(), IDS["decoder_start_token_id"]
    rows = len(source()["input_ids"])
    prompt = torch.tensor([[9, 8]]).repeat(rows, 1)
    begun = torch.cat([torch.full((rows, 1), start), prompt], dim=1)
    search = source() | {"max_new_tokens": 3, "num_beams": 2}
    with_start = model.generate(**search, decoder_input_ids=begun)
    assert torch.equal(with_start[:, :3], begun)
    assert torch.equal(model.generate(**search, decoder_input_ids=prompt), with_start)
    mask = torch.ones_like(prompt)
    assert torch.equal(model.generate(**search, decoder_input_ids=prompt, decoder_attention_mask=mask), with_start)
    by_config = transformers.GenerationConfig(decoder_start_token_id=7, max_new_tokens=3, num_beams=2)
    found = model.generate(**source(), generation_config=by_config)
    assert (found[:, 0] == 7).all()
    assert torch.equal(found, model.generate(**search, decoder_start_token_id=7))
    of_each = list(range(6, 6 + rows))
    assert model.generate(**search, decoder_start_token_id=of_each)[:, 0].tolist() == of_each
    with pytest.raises(ValueError, match="one id, or one for each"):
        model.generate(**search, decoder_start_token_id=[*of_each, 5])


def test_prompt_needs_no_start_token_if_none_is_set():
    model = build()
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = None
    prompt = torch.tensor([[9, 8]]).repeat(len(source()["input_ids"]), 1)
    found = model.generate(**source(), decoder_input_ids=prompt, max_new_tokens=3)
    assert torch.equal(found[:, :2], prompt)
    with pytest.raises(ValueError, match="decoder_start_token_id"):
        model.generate(**source(), max_new_tokens=3)


@pytest.mark.parametrize("kind", ["big_bird", "megatron-bert", "gpt_bigcode", "gpt2", "bart"])
def test_grafting_removes_the_decoders_own_cross_attention(kind, tmp_path):
    config = tiny_config(kind)
    config.is_decoder = config.add_cross_attention = True
    config.multi_query = False  # GPTBigCode
    decoder = transformers.AutoModelForCausalLM.from_config(config)
    assert any("cross" in name or "encoder_attn" in name for name, _ in decoder.named_parameters())
    joint = EncoderDecoderConfig(encoder=small_config("bert"), decoder=config, graft={"gate": "none"}, **IDS)
    model = EncoderDecoderModel(joint, encoder=transformers.BertModel(small_config("bert")), decoder=decoder).eval()
    assert not any("cross" in name or "encoder_attn" in name for name, _ in model.decoder.named_parameters())
    loss = model(**source(), labels=target()).loss
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.save_pretrained(tmp_path)
    again, info = EncoderDecoderModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    torch.testing.assert_close(again.eval()(**source(), labels=target()).loss, loss)


def test_cross_attention_to_images_is_kept():
    config = tiny_config("mllama")
    decoder = decoder_class(config)(config)
    before = set(decoder.state_dict())
    joint = EncoderDecoderConfig(encoder=small_config("bert"), decoder=decoder.config, **IDS)
    model = EncoderDecoderModel(joint, encoder=transformers.BertModel(small_config("bert")), decoder=decoder)
    assert set(model.decoder.state_dict()) == before
