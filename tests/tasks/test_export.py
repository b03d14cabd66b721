"""An exported folder by itself: others open it, read its card, and get the summaries that the run wrote."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

from warmstart import EncoderDecoderModel
from warmstart.data.tokenization.pair import TokenizerPair
from warmstart.errors import UserError
from warmstart.tasks import evaluate, export, fit, summarize

ROOT = Path(__file__).parents[2]
LENGTHS = ("generation.max_new_tokens=14", "generation.min_new_tokens=11")
SEARCHES = {
    "beam": ("generation.num_beams=4", "generation.length_penalty=2.0", "generation.no_repeat_ngram_size=2", *LENGTHS),
    "greedy": ("generation.max_new_tokens=26", "generation.min_new_tokens=24", "generation.no_repeat_ngram_size=0"),
    "bfloat16": ("generation.num_beams=3", "generation.dtype=bfloat16", *LENGTHS),
}
NATIVE, GRAFTED = ("encoder=bert", "decoder=gpt2"), ("encoder=roberta", "decoder=smollm2")
OURS, THEIRS = EncoderDecoderModel, transformers.EncoderDecoderModel


@pytest.fixture
def run_of(settings_of, tmp_path):
    """``run_of(NATIVE, "beam")``: the folder of a tiny fit that tested with that search."""

    def make(pair, search):
        fit.run(settings_of("debug=tiny", *pair, *SEARCHES[search]), tmp_path / "run")
        return tmp_path / "run"

    return make


def predictions(run):
    return [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]


def code_of(card):
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    return code


def test_the_card_names_what_generate_does_not_apply(settings_of, tmp_path):
    search = ("generation.num_beams=2", "generation.length_penalty_kind=gnmt", "generation.no_repeat_word_ngram_size=3")
    for pair, missing in ((NATIVE, "3`, `generation.length_penalty_kind=gnmt`. "), (GRAFTED, "3`. ")):
        folder = tmp_path / pair[1]
        fit.run(settings_of("debug=tiny", *pair, *search, "evaluation.test=false"), folder)
        card = (folder / "export" / "README.md").read_text()
        assert f"also apply `generation.no_repeat_word_ngram_size={missing}" in card
    plain = settings_of("debug=tiny", *NATIVE, "evaluation.test=false")
    fit.run(plain, tmp_path / "plain")
    assert "also apply" not in (tmp_path / "plain" / "export" / "README.md").read_text()


@pytest.mark.parametrize(
    ("pair", "search", "opened_by"),
    [
        (NATIVE, "beam", (OURS, THEIRS)),
        (NATIVE, "greedy", (OURS, THEIRS)),
        (NATIVE, "bfloat16", (OURS,)),
        (GRAFTED, "beam", (OURS,)),
        (GRAFTED, "greedy", (OURS,)),
    ],
)
def test_generate_without_options_writes_what_the_run_wrote(pair, search, opened_by, run_of):
    run = run_of(pair, search)
    tokenizers = TokenizerPair.load(run / "export")
    dtype = torch.bfloat16 if search == "bfloat16" else torch.float32
    for opener in opened_by:
        model = opener.from_pretrained(run / "export", dtype=dtype)
        for row in predictions(run):
            ids = torch.tensor(tokenizers.encode_sources([row["document"]], 64))
            found = model.generate(ids, attention_mask=torch.ones_like(ids))
            assert tokenizers.decode(found[:, 1:]) == [row["prediction"]]


def test_sampling_goes_by_the_runs_distribution(settings_of, tmp_path):
    words = ("generation.do_sample=true", "generation.temperature=0.7", "generation.top_p=0.8")
    fit.run(settings_of("debug=tiny", *NATIVE, *words), tmp_path)
    found = json.loads((tmp_path / "export" / "generation_config.json").read_text())
    # Without a top_k, transformers would draw from the 50 likeliest.
    assert {name: found[name] for name in ("do_sample", "temperature", "top_p", "top_k")} == {
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.8,
        "top_k": 0,
    }


def test_another_search_on_an_export_keeps_nothing_of_its_own(run_of, settings_of, tmp_path):
    run, text = run_of(NATIVE, "beam"), tmp_path / "a.txt"
    text.write_text("The council met on Monday and voted to close the school.")
    found = []
    for name, ckpt in (("of_run", run), ("of_export", run / "export")):
        other = ("debug=tiny", *NATIVE, *SEARCHES["greedy"], f"ckpt={ckpt}")
        summarize.run(settings_of(*other, f"input={text}", f"output={tmp_path / name}.txt"), tmp_path)
        export.run(settings_of(*other, f"output={tmp_path / name}"), tmp_path)
        search = json.loads((tmp_path / name / "generation_config.json").read_text())
        assert not {"length_penalty", "early_stopping"} & search.keys()
        found.append(((tmp_path / f"{name}.txt").read_text(), search))
    assert found[0] == found[1]


@pytest.mark.parametrize("pair", [NATIVE, GRAFTED], ids=["native", "grafted"])
def test_the_cards_code_runs_as_printed(pair, run_of, settings_of, tmp_path):
    run = run_of(pair, "beam")
    card = (run / "export" / "README.md").read_text()
    native = pair is NATIVE
    assert f"library_name: {'transformers' if native else 'warmstart'}\n" in card
    assert ("from warmstart import EncoderDecoderModel" in code_of(card)) is not native
    assert "pipeline_tag" not in card  # transformers 5 has no pipeline for it
    code = code_of(card) + "import sys\nprint('warmstart' in sys.modules, {'hydra', 'lightning'} & {*sys.modules})\n"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=run / "export", capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    (document,) = re.findall(r'document = "(.*)"', code)
    (tmp_path / "a.txt").write_text(document)
    words = ("debug=tiny", *pair, *SEARCHES["beam"], f"ckpt={run}", f"input={tmp_path / 'a.txt'}")
    summarize.run(settings_of(*words, f"output={tmp_path / 'summary.txt'}"), tmp_path)
    assert done.stdout == f"{(tmp_path / 'summary.txt').read_text()}{not native} set()\n"


def test_the_readmes_code_summarizes_as_the_export_does(run_of, monkeypatch, capsys):
    run = run_of(GRAFTED, "beam")
    (_, code) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    (run / "runs").mkdir()
    (run / "runs" / "demo").symlink_to(run)
    (run / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(run)
    capsys.readouterr()
    exec(code, found := {})
    pair, model = TokenizerPair.load("export"), OURS.from_pretrained("export")
    text = Path("docs/encyclopedia.txt").read_text()
    cut = {"truncation": True, "max_length": found["summarizer"].max_source_length, "return_tensors": "pt"}
    source = pair.source(text, **cut)
    ids = model.generate(source.input_ids, attention_mask=source.attention_mask)
    assert capsys.readouterr().out.strip() == pair.decode(ids[:, 1:])[0]


def test_the_task_says_how_its_folder_opens(run_of, settings_of, tmp_path, capsys):
    run = run_of(GRAFTED, "greedy")
    capsys.readouterr()
    words = ("debug=tiny", *GRAFTED, *SEARCHES["greedy"], f"ckpt={run}")
    export.run(settings_of(*words, f"output={tmp_path / 'model'}"), tmp_path)
    folder, how = capsys.readouterr().out.splitlines()
    assert folder == str(tmp_path / "model")
    assert "`warmstart.EncoderDecoderModel`" in how
    for wrong, match in (("num_beams=0", "at least 1"), ("max_new_tokens=5000", "positions")):
        with pytest.raises(UserError, match=match):
            export.run(settings_of(*words, f"generation.{wrong}", f"output={tmp_path / 'other'}"), tmp_path)
    assert not (tmp_path / "other").exists()


def test_a_card_says_what_its_run_computed_in_and_how_it_cleaned(settings_of, tmp_path):
    words = ("debug=tiny", *NATIVE, "generation.dtype=bfloat16", "data.clean=[collapse_whitespace]")
    fit.run(settings_of(*words), tmp_path)
    card = (tmp_path / "export" / "README.md").read_text()
    assert 'from_pretrained(folder, dtype="bfloat16")' in card
    assert "`data.clean`: `collapse_whitespace`" in card
    assert "max_length=64" in card


def test_an_export_of_an_earlier_version_still_opens(run_of, settings_of, tmp_path):
    """Its decoder's tokenizer lay in a folder of its own, and its generation config held no search."""
    run = run_of(NATIVE, "beam")
    folder = run / "export"
    (folder / "decoder_tokenizer").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).rename(folder / "decoder_tokenizer" / name)
    about = json.loads((folder / "tokenizer_pair.json").read_text())
    (folder / "tokenizer_pair.json").write_text(json.dumps(about | {"format_version": 1}))
    ids = ("decoder_start_token_id", "eos_token_id", "pad_token_id")
    (folder / "generation_config.json").write_text(json.dumps({name: about[name] for name in ids}))
    again = ("debug=tiny", *NATIVE, *SEARCHES["beam"], f"ckpt={folder}")
    evaluate.run(settings_of(*again), tmp_path / "again")
    assert [row["prediction"] for row in predictions(tmp_path / "again")] == [
        row["prediction"] for row in predictions(run)
    ]
    assert not (Path(tmp_path) / "again" / "export" / "decoder_tokenizer").exists()
