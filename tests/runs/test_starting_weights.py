"""What a fit takes over from another run: everything of the same pair, or the weights of the parts that are equal."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file

from warmstart.cli.main import config_dir
from warmstart.config.schema import register, to_settings
from warmstart.errors import UserError
from warmstart.runs.run_dir import RunDir
from warmstart.tasks import fit
from warmstart.tasks.check import faults

NOTHING_LEARNT = [f"optim.{part}_rate=0" for part in ("encoder", "decoder", "new", "gate")]


@pytest.fixture(scope="module")
def of(tmp_path_factory):
    """``of("encoder=bert", ...)``: the settings of a tiny fit; one cache gives equal choices equal tokenizers."""
    register()
    cache = tmp_path_factory.mktemp("cache")

    def make(*words):
        with initialize_config_dir(config_dir(), version_base="1.3"):
            words = ["debug=tiny", "trainer.max_steps=1", "evaluation.control_samples=0", *words]
            return to_settings(compose("config", overrides=[*words, f"data.cache_dir={cache}"]))

    return make


@pytest.fixture(scope="module")
def first(of, tmp_path_factory):
    """A run of bert x smollm2, whose decoder has grafted cross-attention."""
    run = tmp_path_factory.mktemp("runs") / "first"
    fit.run(of("encoder=bert", "decoder=smollm2"), run)
    return run


def exported(run):
    return load_file(run / "export" / "model.safetensors")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["encoder=e5_base"], r"encoder\.path \(google-bert/bert-base-uncased, here intfloat/e5-base-v2\)"),
        (["decoder=gpt2"], r"decoder\.path \(package_file:.*gguf, here openai-community/gpt2\)\. To start"),
        (["bridge.lora=decoder"], r"bridge\.lora \(none, here decoder\)"),
        (["bridge.every_n_layers=2"], r"bridge\.every_n_layers \(1, here 2\)"),
    ],
)
def test_a_checkpoint_of_another_pair_is_refused_with_both_named(words, said, of, first, tmp_path):
    complete = {"status": "complete", "config_hash": "of another"}
    (tmp_path / "result.json").write_text(json.dumps(complete))
    command = of("encoder=bert", "decoder=smollm2", "trainer.max_steps=2", *words, f"ckpt={first}")
    with pytest.raises(
        UserError, match=rf"\(bert x smollm2\) cannot be resumed by this fit \(.*{said}.*set ckpt_weights="
    ):
        fit.run(command, tmp_path)
    assert RunDir(tmp_path).read_result() == complete
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_a_checkpoint_of_other_tokenizers_is_refused(of, first, tmp_path, role):
    other, saved = tmp_path / "other", first / "checkpoints" / "tokenizers"
    shutil.copytree(saved / "encoder_tokenizer" if role == "encoder" else saved, other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    one, two = list(vocabulary)[-2:]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]  # as many tokens, other ids
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    words = ("encoder=bert", "decoder=smollm2", "trainer.max_steps=2", f"ckpt={first}", f"{role}.tokenizer={other}")
    with pytest.raises(UserError, match=rf"another tokenizer \({role}: ") as refused:
        fit.run(of(*words), tmp_path / "run")
    advice = re.search(rf"Set {role}\.tokenizer=(\S+)\.$", str(refused.value))
    assert (Path(advice[1]) / "tokenizer.json").exists()


def test_a_checkpoint_whose_pretrained_folder_has_changed_is_refused(of, first, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(first, other)
    file = other / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    name = "model.encoder.embeddings.position_embeddings.weight"
    checkpoint["state_dict"][name] = checkpoint["state_dict"][name][:7]
    torch.save(checkpoint, file)
    (file.parent / "SHA256SUMS").unlink()
    command = of("encoder=bert", "decoder=smollm2", "trainer.max_steps=2", f"ckpt={other}")
    with pytest.raises(UserError, match=r"does not fit the model .*position_embeddings.weight has shape \[7, "):
        fit.run(command, tmp_path / "run")


@pytest.mark.parametrize("source", ["run", "export"])
def test_a_second_stage_starts_from_the_weights_with_a_new_optimizer(source, of, first, tmp_path, caplog):
    pytest.importorskip("peft")
    given = first if source == "run" else first / "export"
    words = ("encoder=bert", "decoder=smollm2", "bridge.lora=decoder", f"ckpt_weights={given}")
    with caplog.at_level("INFO"):
        fit.run(of(*words, *NOTHING_LEARNT), tmp_path)
    assert f"Weights copied from {given}: encoder" in caplog.text
    assert "Not copied" not in caplog.text
    before, after = exported(first), exported(tmp_path)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    result = RunDir(tmp_path).read_result()
    assert (result["steps"], result["resumed"], result["config"]["ckpt_weights"]) == (1, False, str(given))


def test_a_part_that_differs_is_new_and_listed(of, first, tmp_path, caplog):
    words = ("encoder=e5_base", "decoder=smollm2", *NOTHING_LEARNT)
    fit.run(of(*words), tmp_path / "plain")
    with caplog.at_level("INFO"):
        fit.run(of(*words, f"ckpt_weights={first}"), tmp_path / "second")
    assert (
        f"Not copied from {first}: encoder, because these differ: encoder.path (google-bert/bert-base-uncased"
        in caplog.text
    )
    assert f"Not copied from {first}: cross-attention, because these differ: the encoder" in caplog.text
    before, plain, second = exported(first), exported(tmp_path / "plain"), exported(tmp_path / "second")
    for name in second:
        expected = before if name.startswith("decoder.") else plain
        assert torch.equal(second[name], expected[name]), name


def test_weights_with_no_equal_part_are_refused(of, first, tmp_path):
    command = of("encoder=roberta", "decoder=gpt2", f"ckpt_weights={first}")
    with pytest.raises(UserError, match=r"has neither the encoder nor the decoder .*encoder\.path .*decoder\.path"):
        fit.run(command, tmp_path)


def test_words_that_contradict_are_named(of, first, tmp_path):
    [found] = faults(of(f"ckpt={first}", f"ckpt_weights={first}"))
    assert "Set only one of them" in found
    [found] = faults(of("ckpt_weights=absent"))
    there_is = "ckpt_weights=absent was requested, but there is no such file or folder. Name a run directory, "
    assert found == f"{there_is}a .ckpt file or an export."
    (tmp_path / "texts.csv").write_text("document,summary\n")
    [found] = faults(of(f"ckpt_weights={tmp_path}/texts.csv"))
    assert "texts.csv is damaged or was not written by warmstart (not a file of torch.save)" in found
    assert faults(of("ckpt=new", f"ckpt_weights={first}")) == []
