"""From texts without labels to a model for labels: a fit with an objective, then a fit that starts from its weights."""

import pytest
import torch

from warmstart.config.data import Objective
from warmstart.data.sources.load import load_source
from warmstart.runs.run_dir import RunDir
from warmstart.tasks import fit


def weights_of(run, name):
    return torch.load(run / "checkpoints" / name, weights_only=True)["state_dict"]


@pytest.mark.parametrize("objective", ["prefix", "gap_sentences"])
def test_a_fit_starts_from_the_weights_that_were_adapted_without_labels(objective, settings_of, tmp_path, caplog):
    adapted, run = tmp_path / "adapted", tmp_path / "run"
    tiny = ("encoder=minilm", "decoder=minilm", "debug=tiny")
    adapt = settings_of(*tiny, f"data.objective={objective}", "bridge.freeze=both", "evaluation.test=false")
    fit.run(adapt, adapted)
    assert RunDir(adapted).read_result()["status"] == "complete"
    assert RunDir(adapted).read_result()["config"]["data"]["objective"] == objective
    # A tiny model's tokenizer is trained on the texts, which differ: pretrained models bring their own.
    saved = adapted / "checkpoints" / "tokenizers"
    own = [f"encoder.tokenizer={saved / 'encoder_tokenizer'}", f"decoder.tokenizer={saved}"]
    stopped = [f"optim.{part}_rate=0" for part in ("encoder", "decoder", "new", "gate")]
    with caplog.at_level("INFO"):
        fit.run(settings_of(*tiny, *own, *stopped, f"ckpt_weights={adapted}"), run)
    assert f"Weights copied from {adapted}: encoder" in caplog.text
    assert "Not copied" not in caplog.text
    before, after = weights_of(adapted, "best.ckpt"), weights_of(run, "best.ckpt")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    result = RunDir(run).read_result()
    assert result["config"]["data"]["objective"] == "summary"
    assert result["metrics"]["test/rouge1"] is not None


def test_the_adaptation_of_short_descriptions_makes_its_targets_from_training_documents_only(settings_of):
    settings = settings_of("experiment=adapt")
    assert settings.data.objective is Objective.prefix
    assert not settings.evaluation.test
    pairs, labelled = load_source(settings.data, ["train"]), settings_of("experiment=adapt", "data.objective=summary")
    documents = {example.id: example.document for example in load_source(labelled.data, ["train"]).split("train")}
    some = pairs.split("train")[:50]
    assert all(documents[one.id].startswith(f"{one.document} {one.summary}") for one in some)
