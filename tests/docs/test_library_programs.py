"""The programs of docs/guides/library.md run as they are printed, on tiny checkpoints."""

import csv
import logging
import re
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import pre_tokenizers
from transformers import BertTokenizer, GPT2Tokenizer

from warmstart import EncoderDecoderModel
from warmstart.api.fitting import fit
from warmstart.model import call_checks

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "library.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^##+ (.+?)$(.*?)(?=^##|\Z)", "## Start\n" + PAGE, flags=re.DOTALL | re.MULTILINE))
LOOPS = ("torch", "Seq2SeqTrainer of transformers", "Lightning", "peft", "accelerate")
LETTERS = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"), "."]


def program(section):
    (code,) = re.findall(r"^```python\n(.*?)^```$", SECTIONS[section], flags=re.DOTALL | re.MULTILINE)
    return code


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A tiny BERT and a tiny GPT-2, each with a tokenizer, in the places of those that the page names."""
    root = tmp_path_factory.mktemp("checkpoints")
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS]
    transformers.BertModel(transformers.BertConfig(vocab_size=len(words), **size)).save_pretrained(root / "bert")
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(root / "bert")
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: i for i, symbol in enumerate([*symbols, "<|endoftext|>"])}
    config = transformers.GPT2Config(vocab_size=len(vocabulary), n_embd=16, n_layer=1, n_head=2)
    transformers.GPT2LMHeadModel(config).save_pretrained(root / "gpt2")
    GPT2Tokenizer(vocab=vocabulary, merges=[]).save_pretrained(root / "gpt2")
    return {"google-bert/bert-base-uncased": str(root / "bert"), "openai-community/gpt2": str(root / "gpt2")}


def own_loop(checkpoints):
    code = program("A training loop of your own")
    for hub_id, folder in checkpoints.items():
        assert hub_id in code
        code = code.replace(hub_id, folder)
    names = {"__name__": "page"}
    exec(code, names)
    return names


@pytest.mark.parametrize("section", LOOPS)
def test_a_training_loop(section, checkpoints, tmp_path, monkeypatch, caplog):
    if section in ("peft", "accelerate"):
        pytest.importorskip(section)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(call_checks, "_warned", set())
    caplog.set_level(logging.WARNING, call_checks.__name__)
    names = own_loop(checkpoints)
    before = {name: weight.detach().clone() for name, weight in names["model"].named_parameters()}
    cross_attention = names["model"].decoder.transformer.h[0].crossattention.c_attn.weight
    exec(program(section), names)
    assert not [record for record in caplog.records if record.name == call_checks.__name__]
    if section == "peft":
        after = dict(EncoderDecoderModel.from_pretrained("with_adapters").named_parameters())
        changed = {name for name in before if not torch.equal(after[name], before[name])}
        assert any("crossattention" in name for name in changed)
        assert any(name.endswith("attn.c_attn.weight") for name in changed)
        assert "encoder.embeddings.word_embeddings.weight" not in changed
    else:
        start = before["decoder.transformer.h.0.crossattention.c_attn.weight"]
        assert not torch.equal(cross_attention, start.to(cross_attention.device))


def test_the_same_loop_without_train_is_reported(checkpoints, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    for section, line in (("torch", "model.train()"), ("Lightning", "model.train()")):
        monkeypatch.setattr(call_checks, "_warned", set())
        caplog.clear()
        code = program(section)
        assert line in code
        exec(code.replace(line, "model"), own_loop(checkpoints))
        assert [record for record in caplog.records if "call model.train() first" in record.getMessage()]


def test_a_fit_a_comparison_and_summaries(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))
    with open("articles.csv", "w", newline="") as file:
        rows = [(f"The town {i} met on day {i} and voted.", f"Town {i} votes.") for i in range(100)]
        csv.writer(file).writerows([("document", "summary"), *rows])
    names = {"__name__": "page"}

    def tiny(*texts, overrides=None, **kwargs):
        return fit(*texts, overrides={"debug": "tiny"} | (overrides or {}), **kwargs)

    monkeypatch.setattr("warmstart.fit", tiny, raising=False)
    for section in ("Start", "Fit", "Summarize"):
        exec(program(section), names)
    printed = capsys.readouterr().out
    assert str(names["run"].folder) == "runs/articles"
    assert "runs/first minus runs/second" in printed.replace("\n", " ")
