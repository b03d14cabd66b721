"""``encoder=none`` through run.py: a fit with scores and controls, its export, and summaries of a text."""

import shutil

from warmstart import DecoderOnlyModel
from warmstart.runs.run_dir import RunDir
from warmstart.runs.saved_model import SavedModel

TEXT = "The council met on Monday and voted to close the school."


def test_it_is_fitted_scored_exported_and_summarizes(run_py, tmp_path):
    done = run_py("experiment=rothe/gpt", "debug=tiny", "name=gpt", "data.name=cnn_dailymail", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = RunDir(tmp_path / "runs" / "gpt")
    result = run.read_result()
    assert (result["status"], result["steps"]) == ("complete", 3)
    assert {"test/rouge1", "test/rougeLsum", "test/nll"} <= result["metrics"].keys()
    assert result["controls"]["shuffled_document"]["nll"] != result["metrics"]["test/nll"]
    assert result["controls"]["decoder_alone"]["nll"] != result["metrics"]["test/nll"]
    assert result["baselines"].keys() == {"lead1", "lead3"}
    assert result["parameters"]["total"] == result["parameters"]["trainable"]
    assert result["paper"] == {
        "source": "Rothe et al. 2020, GPT",
        "scores": {"rouge1": 37.26, "rouge2": 15.83, "rougeLsum": 34.47},
    }
    assert "from warmstart import DecoderOnlyModel" in (run.export / "README.md").read_text()

    of_run, of_export = SavedModel(str(run.path)).load(), SavedModel(str(run.export)).load()
    for model, tokenizers, _ in (of_run, of_export):
        assert type(model) is DecoderOnlyModel
        assert tokenizers.source.get_vocab() == tokenizers.target.get_vocab()
    weights = of_export.model.state_dict()
    assert all((value == weights[name]).all() for name, value in of_run.model.state_dict().items())

    (tmp_path / "article.txt").write_text(TEXT)
    shutil.copytree(run.export, tmp_path / "moved")
    texts = []
    for ckpt in ("runs/gpt", "moved"):
        done = run_py("task=summarize", f"ckpt={ckpt}", "input=article.txt", f"output={ckpt}.txt", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        texts.append((tmp_path / f"{ckpt}.txt").read_text())
    assert texts[0] == texts[1]
