"""The recipes of BertSum compose, are valid at full size, and train and score three steps offline."""

import json

import pytest
import torch

from warmstart.tasks.check import faults, pair_without_values
from warmstart.training.schedule import build_schedule

WITHOUT_RUN = {"extabs": ["ckpt_weights=null"]}  # its run of BertSumExt
RECIPES = ("ext", "transformer_ext", "abs", "extabs")


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_valid_at_full_size_without_a_download(name, settings_of):
    settings = settings_of(f"experiment=bertsum/{name}", *WITHOUT_RUN.get(name, ()))
    assert faults(settings) == []
    assert settings.data.name == "cnn_dailymail"
    assert settings_of(f"experiment=bertsum/{name}", "data=xsum").data.name == "xsum"


def test_abs_has_the_papers_decoder_and_search(settings_of):
    settings = settings_of("experiment=bertsum/abs")
    decoder = pair_without_values(settings).config.decoder
    sizes = decoder.decoder_layers, decoder.d_model, decoder.decoder_attention_heads, decoder.decoder_ffn_dim
    assert sizes == (6, 768, 8, 2048)
    search = settings.generation
    assert (search.num_beams, search.min_new_tokens, search.max_new_tokens) == (5, 50, 200)
    assert (search.length_penalty, search.length_penalty_kind.value) == (0.95, "gnmt")
    assert (search.no_repeat_word_ngram_size, search.no_repeat_ngram_size) == (3, 0)
    assert (settings.trainer.accumulate, settings.trainer.max_steps) == (5, 200_000)


def test_abs_counts_copied_embeddings_as_pretrained(settings_of):
    model = pair_without_values(settings_of("experiment=bertsum/abs"))
    new = sum(one.numel() for name, one in model.named_parameters() if name in model.new_parameter_names())
    # Six layers of self-attention and cross-attention (8 matrices 768 x 768 with biases), three layer norms, and a
    # feed-forward block 768 x 2048, and the last layer norm. The sinusoidal positions are not trained.
    layer = 8 * (768 * 768 + 768) + 3 * 2 * 768 + 2 * 768 * 2048 + 2048 + 768
    assert new - 512 * 768 * ("decoder.model.decoder.embed_positions.weight" in model.new_parameter_names()) == (
        6 * layer + 2 * 768
    )


def test_extabs_needs_a_run_of_ext(settings_of):
    (fault,) = faults(settings_of("experiment=bertsum/extabs"))
    assert "ckpt_weights=runs/ext was requested, but there is no such file" in fault


def test_check_predicts_extabs_before_its_first_run_and_refuses_another_that_is_not_there(run_py, tmp_path):
    checked = run_py("task=check", "experiment=bertsum/extabs", "device=h100", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert "parameters  180.0M" in checked.stdout
    assert "Warning: ckpt_weights=runs/ext was requested, but there is no such file" in checked.stdout
    refused = run_py("task=check", "experiment=bertsum/extabs", "ckpt_weights=runs/txe", cwd=tmp_path)
    assert refused.returncode == 2
    assert "ckpt_weights=runs/txe was requested, but there is no such file" in refused.stderr


@pytest.mark.parametrize(("name", "layers"), [("ext", 0), ("transformer_ext", 2)])
def test_ext_has_the_papers_layers_and_schedule(name, layers, settings_of):
    settings = settings_of(f"experiment=bertsum/{name}")
    model = pair_without_values(settings)
    new = sum(one.numel() for one_name, one in model.named_parameters() if one_name in model.new_parameter_names())
    # Each layer: 4 matrices 768 x 768 with biases, a feed-forward block 768 x 2048, a norm, and one more except in the
    # first layer. Then a norm and the classifier.
    layer = 4 * (768 * 768 + 768) + 2 * 768 * 2048 + 2048 + 768 + 2 * 768
    assert new == layers * layer + (2 * 2 * 768 if layers else 0) + 769
    optim = settings.optim
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": optim.new_rate, "name": "new"}]
    schedule = build_schedule(torch.optim.AdamW(groups), optim, 50_000)
    rates = [schedule.base_lrs[0] * schedule.lr_lambdas[0](step - 1) for step in (1, 10_000, 40_000)]
    assert rates == pytest.approx([2e-9, 2e-5, 1e-5])  # 2e-3 min(s^-0.5, s 10000^-1.5)


def fitted(run_py, folder, name, *words):
    cache = f"data.cache_dir={folder / 'cache'}"
    done = run_py(f"experiment=bertsum/{name}", "debug=tiny", f"name={name}", cache, *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    result = json.loads((folder / "runs" / name / "result.json").read_text())
    assert (result["status"], result["steps"]) == ("complete", 3)
    return result, done


def test_abs_trains_and_scores_its_best_checkpoints_offline(run_py, tmp_path):
    search = ("generation=bertsum", "generation.min_new_tokens=2", "generation.max_new_tokens=8")
    result, done = fitted(run_py, tmp_path, "abs", *search, "trainer.validations_per_epoch=3")
    assert result["generation"]["length_penalty_kind"] == "gnmt"
    exported = tmp_path / "runs" / "abs" / "export"
    assert json.loads((exported / "generation_config.json").read_text())["length_penalty_kind"] == "gnmt"
    assert json.loads((exported / "tokenizer_pair.json").read_text())["sentence_marks"]["target"]
    top = result["top_checkpoints"]
    assert [one["validation"] for one in top] == sorted(one["validation"] for one in top)
    assert len(top) == result["test_looks"] == 3
    assert top[0]["validation"] == pytest.approx(result["validation"]["best"])
    scores = [one["metrics"]["test/rouge1"] for one in top]
    assert scores[0] == result["metrics"]["test/rouge1"]
    assert result["top_checkpoints_mean"]["test/rouge1"] == pytest.approx(sum(scores) / 3)
    assert "The 3 best checkpoints have rouge1" in " ".join(done.stdout.split())
    for number in (1, 2, 3):
        files = {path.name for path in (tmp_path / "runs" / "abs" / "top" / str(number)).iterdir()}
        assert files == {"predictions.jsonl", "scores.json"}
    checkpoints = list((tmp_path / "runs" / "abs" / "checkpoints").glob("top-*.ckpt"))
    assert len(checkpoints) == 3
    assert "optimizer_states" not in torch.load(checkpoints[0], weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ext", "transformer_ext"])
def test_ext_trains_scores_and_summarizes_and_abs_starts_from_its_encoder(name, run_py, tmp_path):
    words = ("generation=sentences", "trainer.score_best=1", "data.baselines=[lead,oracle]")
    result, _ = fitted(run_py, tmp_path, name, *words)
    oracle = result["baselines"]["oracle"]["rouge1"]
    assert result["metrics"]["test/rouge1"] <= oracle
    assert result["baselines"]["lead3"]["rouge1"] <= oracle
    assert "test/nll" in result["metrics"]
    assert all("rouge1" in control and "nll" not in control for control in result["controls"].values())
    assert "source_effect" not in (tmp_path / "runs" / name / "metrics.csv").read_text()
    card = (tmp_path / "runs" / name / "export" / "README.md").read_text()
    assert "Summarizer.from_pretrained" in card
    assert "AutoTokenizer" not in card
    refused = run_py("task=export", f"ckpt=runs/{name}", "format=torch_export", "output=converted", cwd=tmp_path)
    assert refused.returncode == 2
    assert "data.source_form=sentences" in refused.stderr
    (tmp_path / "article.txt").write_text("Ana has a boat. She sails it to the island. It rains.")
    for given in (f"runs/{name}", f"runs/{name}/export"):
        told = run_py("task=summarize", f"ckpt={given}", "input=article.txt", cwd=tmp_path)
        assert told.returncode == 0, told.stderr
        lines = sorted(told.stdout.splitlines())
        assert lines == ["Ana has a boat.", "It rains.", "She sails it to the island."]
    start = (f"ckpt_weights=runs/{name}", "trainer.score_best=1", "generation.max_new_tokens=4")
    result, done = fitted(run_py, tmp_path, "extabs", *start)
    assert "Weights copied from" in done.stdout + done.stderr + (tmp_path / "runs" / "extabs" / "cli.log").read_text()
