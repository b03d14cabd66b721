"""Our class and transformers' class with the same weights give equal results wherever transformers' is correct."""

import pytest
import torch
import transformers
from tiny import OURS, TARGET_VOCABULARY, UPSTREAM, small_config, small_decoder_config, source, target
from transformers.cache_utils import Cache

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

PAIRS = {
    "bert-bert": ("bert", "bert", {}),
    "roberta-gpt2-projected": ("roberta", "gpt2", {"width": 24}),
    "electra-bert_generation": ("electra", "bert-generation", {}),
    "distilbert-bert": ("distilbert", "bert", {}),
    "bert-roberta-untied": ("bert", "roberta", {"tie_word_embeddings": False}),
    "modernbert-bert-projected": ("modernbert", "bert", {"width": 16}),
}


@pytest.fixture(params=PAIRS)
def configs(request):
    encoder, decoder, values = PAIRS[request.param]
    return lambda: (small_config(encoder), small_decoder_config(decoder, **values))


@pytest.fixture
def pair(configs):
    """Our model and upstream's with the same weights, except for upstream's pooler, which has no effect."""
    ours, theirs = OURS.join(*configs()), UPSTREAM.join(*configs())
    # Biases are initialized to zero, which could hide a difference.
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    outcome = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert not outcome.unexpected_keys
    assert all(name.startswith("encoder.pooler.") for name in outcome.missing_keys)
    return ours, theirs


def same(a, b):
    torch.testing.assert_close(a, b, atol=2e-6, rtol=2e-5)


def assert_outputs_equal(ours, theirs):
    assert list(ours.keys()) == list(theirs.keys())
    for name in ours:
        if not isinstance(ours[name], Cache):  # past_key_values, or cache from transformers 5.24 on
            same(ours[name], theirs[name])


def test_state_dict_names_and_order_equal_upstream(pair):
    ours, theirs = (list(model.state_dict()) for model in pair)
    assert ours == [name for name in theirs if not name.startswith("encoder.pooler.")]


def test_logits_loss_and_every_gradient(pair):
    ours, theirs = pair
    batch = source() | {"labels": target()}
    outputs = [model(**batch) for model in pair]
    same(outputs[0].logits, outputs[1].logits)
    same(outputs[0].loss, outputs[1].loss)
    for output in outputs:
        output.loss.backward()
    upstream = dict(theirs.named_parameters())
    compared = {name for name, parameter in ours.named_parameters() if parameter.grad is not None}
    for name in compared:
        torch.testing.assert_close(ours.get_parameter(name).grad, upstream[name].grad, atol=1e-5, rtol=1e-4)
    assert {name for name, parameter in upstream.items() if parameter.grad is not None} == compared


def test_loss_and_every_gradient_under_bf16_autocast(pair):
    ours, theirs = pair
    batch = source() | {"labels": target()}
    for model in pair:
        with torch.autocast("cpu", torch.bfloat16):
            model(**batch).loss.backward()
    with torch.autocast("cpu", torch.bfloat16):
        losses = [model(**batch).loss for model in pair]
    assert losses[0].dtype == torch.float32
    torch.testing.assert_close(*losses, atol=0, rtol=2**-8)
    upstream = dict(theirs.named_parameters())
    largest = max(p.grad.norm() for p in theirs.parameters() if p.grad is not None)
    for name, parameter in ours.named_parameters():
        if parameter.grad is not None:
            apart = (parameter.grad - upstream[name].grad).norm()
            # The gradient of a key's bias is zero, except for rounding.
            assert apart < 2**-4 * upstream[name].grad.norm() + 2**-9 * largest, name


def test_dropout_draws_the_same_masks(pair):
    batch = source() | {"labels": target()}
    losses = []
    for model in pair:
        torch.manual_seed(3)
        losses.append(model.train()(**batch).loss)
    same(*losses)


GENERATION = {
    "greedy": {},
    "greedy-no-cache": {"use_cache": False},
    "sampling": {"do_sample": True, "top_k": 0, "temperature": 1.5},
    "nucleus": {"do_sample": True, "top_p": 0.8, "num_return_sequences": 2},
    "beam4": {"num_beams": 4, "no_repeat_ngram_size": 2, "length_penalty": 2.0, "early_stopping": True},
    "beam4-returned": {"num_beams": 4, "num_return_sequences": 3, "length_penalty": 0.5, "min_length": 5},
}


@pytest.mark.parametrize("options", GENERATION.values(), ids=GENERATION)
def test_generated_ids(pair, options):
    generated = []
    for model in pair:
        torch.manual_seed(5)
        generated.append(model.generate(**source(), max_new_tokens=10, **options))
    assert torch.equal(*generated)


def test_beam_scores(pair):
    options = {"num_beams": 3, "max_new_tokens": 6, "return_dict_in_generate": True, "output_scores": True}
    ours, theirs = (model.generate(**source(), **options) for model in pair)
    same(ours.sequences_scores, theirs.sequences_scores)


def test_upstream_opens_our_checkpoint(pair, tmp_path):
    ours, _ = pair
    ours.save_pretrained(tmp_path)
    theirs, info = transformers.EncoderDecoderModel.from_pretrained(tmp_path, output_loading_info=True)
    theirs.eval()
    assert not info["unexpected_keys"]
    assert all(name.startswith("encoder.pooler.") for name in info["missing_keys"])
    batch = source() | {"labels": target()}
    same(theirs(**batch).logits, ours(**batch).logits)
    options = {"num_beams": 3, "max_new_tokens": 8}
    assert torch.equal(theirs.generate(**source(), **options), ours.generate(**source(), **options))


def test_our_class_opens_an_upstream_checkpoint(pair, tmp_path):
    _, theirs = pair
    theirs.save_pretrained(tmp_path)
    ours, info = OURS.model.from_pretrained(tmp_path, output_loading_info=True)
    ours.eval()
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    batch = source() | {"labels": target()}
    same(ours(**batch).logits, theirs(**batch).logits)
    options = {"num_beams": 3, "max_new_tokens": 8}
    assert torch.equal(theirs.generate(**source(), **options), ours.generate(**source(), **options))


def test_either_library_reads_the_others_config(configs, tmp_path):
    for written, read in ((OURS, UPSTREAM), (UPSTREAM, OURS)):
        config = written.join(*configs()).config
        config.save_pretrained(tmp_path)
        again = read.config.from_pretrained(tmp_path)
        assert again.model_type == "encoder-decoder"
        assert again.decoder_start_token_id == config.decoder_start_token_id
        for role in ("encoder", "decoder"):
            wanted, got = (getattr(c, role).to_dict() for c in (config, again))
            # DistilBERT's config has no decoder flags; our config class writes them, as False, for every encoder.
            different = {name for name in wanted | got if wanted.get(name, False) != got.get(name, False)}
            assert different <= {"architectures", "dtype", "transformers_version"}


@pytest.mark.parametrize(
    "options",
    [
        {"output_attentions": True},
        {"output_hidden_states": True},
        {"output_attentions": True, "output_hidden_states": True, "use_cache": False},
    ],
    ids=["attentions", "hidden-states", "both-no-cache"],
)
def test_all_outputs(configs, options):
    # Attention weights exist only in the eager implementation.
    ours, theirs = OURS.join(*configs()), UPSTREAM.join(*configs())
    theirs.load_state_dict(ours.state_dict(), strict=False)
    for model in (ours, theirs):
        model.encoder.set_attn_implementation("eager")
        model.decoder.set_attn_implementation("eager")
    batch = source() | {"labels": target()}
    mine, other = ours(**batch, **options), theirs(**batch, **options)
    assert_outputs_equal(mine, other)
    assert ("cross_attentions" in mine) == ("output_attentions" in options)
    assert ("encoder_hidden_states" in mine) == ("output_hidden_states" in options)


@pytest.mark.parametrize("labels", [None, target()], ids=["logits", "loss"])
def test_tuples(pair, labels):
    given = source() | {"labels": labels}
    if labels is None:
        given["decoder_input_ids"] = target().abs().clamp(max=TARGET_VOCABULARY - 1)
    mine, other = (model(**given, use_cache=False, return_dict=False) for model in pair)
    assert isinstance(mine, tuple)
    assert len(mine) == len(other)
    for a, b in zip(mine, other, strict=True):
        same(a, b)
    ours, _ = pair
    ours.config.return_dict = False
    assert isinstance(ours(**given), tuple)


@pytest.mark.parametrize("as_tuple", [False, True])
def test_encoder_outputs_passed_in(pair, as_tuple):
    given = source()
    results = []
    for model in pair:
        encoded = model.get_encoder()(**given, return_dict=not as_tuple)
        states = (encoded[0],) if as_tuple else encoded
        batch = {"encoder_outputs": states, "attention_mask": given["attention_mask"], "labels": target()}
        results.append(model(**batch))
    same(results[0].logits, results[1].logits)
    same(results[0].logits, pair[0](**given, labels=target()).logits)
    generated = [
        model.generate(
            encoder_outputs=model.get_encoder()(**given, return_dict=True),
            attention_mask=given["attention_mask"],
            max_new_tokens=6,
        )
        for model in pair
    ]
    assert torch.equal(*generated)


def test_embeddings_instead_of_ids(pair):
    given, ids = source(), target().clamp(min=5)
    results = []
    for model in pair:
        inputs_embeds = model.get_input_embeddings()(given["input_ids"])
        decoder_inputs_embeds = model.get_decoder().get_input_embeddings()(ids)
        if model.config.decoder.model_type == "gpt2":
            with pytest.raises(ValueError, match="both"):
                model(**given, decoder_input_ids=ids, decoder_inputs_embeds=decoder_inputs_embeds)
        results.append(
            model(
                inputs_embeds=inputs_embeds,
                attention_mask=given["attention_mask"],
                decoder_inputs_embeds=decoder_inputs_embeds,
                labels=target(),
            )
        )
    assert_outputs_equal(*results)
    generated = [
        model.generate(
            inputs_embeds=model.get_input_embeddings()(given["input_ids"]),
            attention_mask=given["attention_mask"],
            max_new_tokens=6,
        )
        for model in pair
    ]
    assert torch.equal(*generated)


def test_past_key_values_passed_in(pair):
    given, ids = source(), target().clamp(min=5)
    results = []
    for model in pair:
        first = model(**given, decoder_input_ids=ids[:, :4], use_cache=True)
        then = model(
            attention_mask=given["attention_mask"],
            encoder_outputs=(first.encoder_last_hidden_state,),
            decoder_input_ids=ids[:, 4:],
            past_key_values=first.past_key_values,
            use_cache=True,
        )
        results.append(then.logits)
        same(then.logits, model(**given, decoder_input_ids=ids).logits[:, 4:])
    same(*results)


def test_explicit_decoder_mask(pair):
    ids = target().clamp(min=5)
    mask = torch.ones_like(ids)
    mask[1, 2:4] = 0
    mine, other = (model(**source(), decoder_input_ids=ids, decoder_attention_mask=mask).logits for model in pair)
    same(mine, other)


def test_decoder_prefixed_arguments_reach_the_decoder(pair):
    ids = target().clamp(min=5)
    positions = torch.arange(ids.shape[1]).flip(0)[None].expand_as(ids) + 2
    mine, other = (model(**source(), decoder_input_ids=ids, decoder_position_ids=positions).logits for model in pair)
    same(mine, other)
    assert not torch.allclose(mine, pair[0](**source(), decoder_input_ids=ids).logits, atol=1e-3)


def test_from_encoder_decoder_pretrained(configs, tmp_path):
    encoder, decoder = configs()
    torch.manual_seed(7)
    transformers.AutoModel.from_config(encoder).save_pretrained(tmp_path / "encoder")
    transformers.AutoModelForCausalLM.from_config(decoder).save_pretrained(tmp_path / "decoder")
    folders = str(tmp_path / "encoder"), str(tmp_path / "decoder")
    ours = OURS.model.from_encoder_decoder_pretrained(*folders, decoder_start_token_id=4, pad_token_id=1)
    theirs = UPSTREAM.model.from_encoder_decoder_pretrained(*folders).eval()
    # Upstream's class treats decoder_start_token_id as an argument of the decoder.
    theirs.config.decoder_start_token_id, theirs.config.pad_token_id = 4, 1
    if "enc_to_dec_proj.weight" in ours.state_dict():  # new in both models and drawn separately
        theirs.enc_to_dec_proj.load_state_dict(ours.enc_to_dec_proj.state_dict())
    batch = source() | {"labels": target()}
    same(ours(**batch).logits, theirs(**batch).logits)


def test_auto_classes_open_each_library_s_checkpoint_as_its_own_class(tmp_path):
    for library in (OURS, UPSTREAM):
        model = library.join(small_config("bert"), small_decoder_config("gpt2"))
        model.save_pretrained(tmp_path)
        opened = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
        assert type(opened) is library.model
        same(opened.eval()(**source(), labels=target()).logits, model(**source(), labels=target()).logits)


def test_wrong_cross_attention_hidden_size_is_refused_by_both():
    for library in (OURS, UPSTREAM):
        with pytest.raises(ValueError, match="cross_attention_hidden_size"):
            library.join(small_config("bert"), small_decoder_config("bert", cross_attention_hidden_size=24))
