"""The tasks of run.py on tiny random halves: what a user types, and what is left behind."""

import io
import json

import pytest
import torch
import transformers
from pairs_in_five_languages import PAIRS
from safetensors.torch import load_file

from warmstart import EncoderDecoderModel
from warmstart.errors import UserError
from warmstart.report.collect import collect
from warmstart.report.page import render
from warmstart.runs.load import load_trained
from warmstart.runs.run_dir import RunDir
from warmstart.tasks import evaluate, export, fit, summarize
from warmstart.tasks.check import faults

KEYS = {"overrides", "choices", "seed", "status", "metrics", "baselines", "controls", "throughput", "parameters"}
KEYS |= {"peak_memory_bytes", "seconds", "versions", "git_commit", "config_hash", "rows"}


@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [("bert", "gpt2"), ("roberta", "bert_generation"), ("longformer", "roberta"), ("deberta", "bert")],
)
def test_fit_leaves_everything_a_run_promises(encoder, decoder, settings_of, tmp_path):
    settings = settings_of("debug=tiny", f"encoder={encoder}", f"decoder={decoder}")
    fit.run(settings, tmp_path)
    result = RunDir(tmp_path).read_result()
    assert result.keys() >= KEYS
    assert result["choices"] == {"encoder": encoder, "decoder": decoder, "data": "written"}
    low, high = result["baselines"]["lead1"]["rouge1_ci"]
    assert low <= result["baselines"]["lead1"]["rouge1"] <= high
    assert result["controls"].keys() == {"shuffled_document", "decoder_alone"}
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == result["metrics"]["test/examples"]
    rouge = {"rouge1", "rouge2", "rougeL", "rougeLsum"}
    scores = rouge | {"nll", "new_number"} | {f"lead{n}/{kind}" for n in (1, 3) for kind in rouge}
    assert rows[0].keys() - {"bits_per_byte"} == {"id", "document", "reference", "prediction"} | scores
    of_bytes = sum("bits_per_byte" in row for row in rows)
    assert of_bytes == result["metrics"].get("test/bits_per_byte_examples", 0)
    assert of_bytes > 0 or decoder != "gpt2"  # its tokenizer keeps every text that fits into the limit
    assert "train/loss" in (tmp_path / "metrics.csv").read_text()
    torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)


def test_the_baselines_of_a_data_set_are_scored_and_their_texts_kept(settings_of, tmp_path):
    fit.run(settings_of("debug=tiny", "data.baselines=[lead,copula,nearest,most_frequent]"), tmp_path)
    result = RunDir(tmp_path).read_result()
    assert result["baselines"].keys() == {"lead1", "lead3", "copula", "nearest", "most_frequent"}
    assert result["baselines"]["nearest"]["training_examples"] == result["rows"]["train"]["kept"]
    low, high = result["baselines"]["nearest"]["rouge1_difference_ci"]
    assert low <= result["baselines"]["nearest"]["rouge1_difference"] <= high
    rows = RunDir(tmp_path).read_predictions().values()
    assert all(row["baselines"].keys() == {"nearest", "most_frequent"} for row in rows)
    assert len({row["baselines"]["most_frequent"] for row in rows}) == 1
    mean = sum(row["nearest/rouge1"] for row in rows) / len(rows)
    assert mean == pytest.approx(result["baselines"]["nearest"]["rouge1"], abs=0.01)
    assert "| nearest training text | " in (tmp_path / "export" / "README.md").read_text()


def test_a_fit_by_other_metrics_monitors_scores_and_signs_them(settings_of, tmp_path):
    metrics = "evaluation.metrics=[chrf,bleu,novel_ngrams,number_precision]"
    settings = settings_of(
        *("debug=tiny", metrics, "trainer.monitor=validation/chrf", "trainer.monitor_mode=max"),
        "evaluation.bootstrap_samples=20",
    )
    score = fit.run(settings, tmp_path)
    result = RunDir(tmp_path).read_result()
    assert result["validation"]["monitor"] == "validation/chrf"
    assert result["validation"]["best"] == pytest.approx(score)
    names = [text.partition("|")[0] for text in result["signatures"]]
    assert names == ["chrf", "bleu", "novel_ngrams", "number_precision"]
    assert result["metrics_left_out"] == {}
    low, high = result["baselines"]["lead1"]["bleu_difference_ci"]
    assert low <= result["baselines"]["lead1"]["bleu_difference"] <= high
    assert "test/rouge1" not in result["metrics"]
    columns = (tmp_path / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"validation/chrf", "validation/bleu", "validation/novel_2grams"} <= set(columns)
    card = (tmp_path / "export" / "README.md").read_text()
    assert "| | BLEU | chrF2 |" in card
    assert f"- `{result['signatures'][1]}`" in card
    page = render(collect([tmp_path]), title="scores")
    assert "over another document" in page
    assert result["signatures"][0] in page


@pytest.mark.parametrize("code", ["hi", "zh", "de", "ar"])
def test_a_file_in_another_language_is_scored_with_its_baselines(code, settings_of, tmp_path):
    rows = [{"document": f"{b}{'' if code == 'zh' else ' '}{a}", "summary": b} for a, b in PAIRS[code][:120]]
    rows = [row for row in rows if row["summary"]]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["debug=tiny", "data=files", f"data.path={file}", "evaluation.bootstrap_samples=50"]
    if code != "de":  # which loses less than a tenth of its letters
        with pytest.raises(UserError, match=f"such as data.language={code}"):
            fit.run(settings_of(*words), tmp_path / "english")
    fit.run(settings_of(*words, f"data.language={code}", "evaluation.metrics=[rouge,chrf]"), tmp_path / "run")
    result = RunDir(tmp_path / "run").read_result()
    assert all(f"|lang:{code}|" in signature for signature in result["signatures"])
    assert result["baselines"]["lead1"]["rouge1"] > 50
    assert result["baselines"]["lead1"]["chrf"] > 50
    assert result["baselines"]["lead1"]["rouge1"] < 100
    assert result["metrics"]["test/reference_words"] > 3


def test_export_opens_with_transformers_and_generates_the_same(settings_of, tmp_path):
    fit.run(settings_of("debug=tiny", "encoder=bert", "decoder=gpt2"), tmp_path)
    model, tokenizers, _ = load_trained(str(tmp_path))
    theirs = transformers.EncoderDecoderModel.from_pretrained(tmp_path / "export").eval()
    ids = torch.tensor(tokenizers.encode_sources(["The river rose and the bridge was closed."], 32))
    # The export has the run's search, the checkpoint none: what differs is named.
    source = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "no_repeat_ngram_size": 0}
    for options in ({}, {"num_beams": 3}):
        ours = model.generate(**source, max_new_tokens=8, **options)
        assert torch.equal(ours, theirs.generate(**source, max_new_tokens=8, **options))
    reopened, _, _ = load_trained(str(tmp_path / "export"))
    assert torch.equal(reopened.generate(**source, max_new_tokens=8), model.generate(**source, max_new_tokens=8))


def test_fit_resumes_in_place(settings_of, tmp_path):
    fit.run(settings_of("debug=tiny"), tmp_path)
    assert RunDir(tmp_path).read_result()["steps"] == 3
    fit.run(settings_of("debug=tiny", "ckpt=last", "trainer.max_steps=5", "trainer.max_epochs=9"), tmp_path)
    assert RunDir(tmp_path).read_result()["steps"] == 5
    assert RunDir(tmp_path).read_result()["resumed"]


def test_summarize_file_folder_and_standard_input(settings_of, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    fit.run(settings_of("debug=tiny"), run)
    texts = tmp_path / "texts"
    texts.mkdir()
    for name in ("a", "b"):
        (texts / f"{name}.txt").write_text("The council met on Monday and voted to close the school.")
    capsys.readouterr()
    chosen = ["debug=tiny", f"ckpt={run}"]
    summarize.run(settings_of(*chosen, f"input={texts / 'a.txt'}", f"output={tmp_path / 'one'}"), tmp_path)
    summarize.run(settings_of(*chosen, f"input={texts}", f"output={tmp_path / 'two'}"), tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((texts / "a.txt").read_bytes())))
    summarize.run(settings_of(*chosen, "input=-"), tmp_path)
    one = (tmp_path / "one").read_text()
    assert (tmp_path / "two" / "a.txt").read_text() == (tmp_path / "two" / "b.txt").read_text() == one
    assert capsys.readouterr().out == one


def test_evaluate_and_export_of_a_run(settings_of, tmp_path):
    run = tmp_path / "run"
    fit.run(settings_of("debug=tiny"), run)
    evaluate.run(settings_of("debug=tiny", f"ckpt={run}"), tmp_path / "again")
    assert RunDir(tmp_path / "again").read_result()["metrics"] == RunDir(run).read_result()["metrics"]
    export.run(settings_of("debug=tiny", f"ckpt={run}", f"output={tmp_path / 'model'}"), tmp_path)
    assert "| lead1 |" in (tmp_path / "model" / "README.md").read_text()
    with pytest.raises(UserError, match="not empty"):
        export.run(settings_of("debug=tiny", f"ckpt={run}", f"output={tmp_path / 'model'}"), tmp_path)


def test_summaries_in_bfloat16_leave_likelihoods_and_the_export_in_float32(settings_of, tmp_path, monkeypatch):
    run, types, generate = tmp_path / "run", [], EncoderDecoderModel.generate

    def watched(model, *args, **kwargs):
        types.append(model.dtype)
        return generate(model, *args, **kwargs)

    fit.run(settings_of("debug=tiny", "decoder=smollm2"), run)
    monkeypatch.setattr(EncoderDecoderModel, "generate", watched)
    rounded = ("debug=tiny", f"ckpt={run}", "generation.dtype=bfloat16")
    evaluate.run(settings_of(*rounded), tmp_path / "again")
    assert set(types) == {torch.bfloat16}
    assert RunDir(tmp_path / "again").read_result()["generation"]["dtype"] == "bfloat16"
    rows = [
        [json.loads(line)["nll"] for line in (folder / "predictions.jsonl").read_text().splitlines()]
        for folder in (run, tmp_path / "again")
    ]
    assert rows[0] == rows[1]
    export.run(settings_of(*rounded, f"output={tmp_path / 'model'}"), tmp_path)
    weights = [load_file(folder / "model.safetensors") for folder in (run / "export", tmp_path / "model")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    article = tmp_path / "article.txt"
    article.write_text("The river rose.")
    del types[:]
    summarize.run(settings_of(*rounded, f"input={article}", f"output={tmp_path / 'summary.txt'}"), tmp_path)
    assert types == [torch.bfloat16]


def test_check_reports_every_fault_at_once(settings_of):
    settings = settings_of(
        "optim.encoder_rate=-1", "data.max_source_length=9000", "+trainer.extra.no_such=1", "decoder.scale=tiny"
    )
    found = "\n".join(faults(settings))
    for word in ("optim.encoder_rate", "data.max_source_length=9000", "no_such", "decoder.scale=tiny"):
        assert word in found


def test_damaged_and_missing_checkpoints_are_named(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        load_trained(str(tmp_path / "absent"))
    damaged = tmp_path / "checkpoints" / "best.ckpt"
    damaged.parent.mkdir()
    damaged.write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match="damaged"):
        load_trained(str(tmp_path))
