"""Every yaml under conf/ composes into the schema, and composing imports nothing heavy."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from warmstart.cli.main import config_dir
from warmstart.config.metrics import primary_of
from warmstart.config.model import SELECTOR
from warmstart.config.schema import GROUPS
from warmstart.errors import UserError
from warmstart.model.build import build_model
from warmstart.model.parameters import parameter_counts
from warmstart.model.segments import mark_sentences
from warmstart.runs.run_dir import RunDir
from warmstart.tasks import fit
from warmstart.tasks.check import faults

CONF = Path(config_dir())
OF_MANY = ("experiment", "sweep", "debug")  # folders whose files set options of several groups
CHOICES = sorted(
    (path.parent.name, path.stem)
    for path in CONF.glob("*/*.yaml")
    if path.parent.name in (*GROUPS, *OF_MANY) and path.stem != "hf"  # has no path of its own
)
# Recipes, without the files that set what a data set changes in other recipes.
EXPERIMENTS = sorted(
    path.relative_to(CONF / "experiment").with_suffix("").as_posix()
    for path in CONF.glob("experiment/**/*.yaml")
    if path.parent.name != "data"
)
FIRST_RUN = dict.fromkeys(("bertsum/extabs", "studies/adaptation/adapted"), ("ckpt_weights=null",))  # not there yet
TRAINED_ELSEWHERE = ("rothe/", "bertsum/", "modern/")  # by the test of the folder's name


def test_every_group_has_a_folder_and_every_folder_a_schema():
    assert {path.name for path in CONF.iterdir() if path.is_dir()} == {*GROUPS, *OF_MANY}


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_yaml_fits_the_schema(group, name, settings_of):
    settings = settings_of(f"{group}={name}")
    if group in ("encoder", "decoder"):
        submodel = getattr(settings, group)
        assert submodel.name == name
        assert submodel.revision == "main"
        assert submodel.path.startswith("package_file:") or "/" in submodel.path or name == "none"


@pytest.mark.parametrize("submodel", [choice for choice in CHOICES if choice[0] in ("encoder", "decoder")])
def test_every_encoder_and_decoder_is_valid_without_a_download(submodel, settings_of):
    group, name = submodel
    settings = settings_of(f"{group}={name}", "data.max_source_length=128")
    assert faults(settings) == []


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_valid_at_full_size_and_tiny_without_a_download(name, settings_of):
    words = [f"experiment={name}", *FIRST_RUN.get(name, ())]
    assert faults(settings_of(*words)) == []
    assert faults(settings_of(*words, "debug=tiny")) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [one for one in EXPERIMENTS if not one.startswith(TRAINED_ELSEWHERE)])
def test_every_other_experiment_trains_and_scores_three_tiny_steps(name, settings_of, tmp_path):
    settings = settings_of(f"experiment={name}", *FIRST_RUN.get(name, ()), "debug=tiny")
    fit.run(settings, tmp_path / "run")
    result = RunDir(tmp_path / "run").read_result()
    assert (result["status"], result["steps"]) == ("complete", 3)
    split = "test" if settings.evaluation.test else "validation"
    assert f"{split}/{primary_of(result['signatures'])}" in result["metrics"]


def test_the_page_of_recipes_lists_every_experiment():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "recipes.md").read_text()
    assert [name for name in EXPERIMENTS if page.count(f"\n| `{name}` |") != 1] == []


def test_composing_any_pair_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['run.py', 'encoder=roberta', 'decoder=bert', '--cfg', 'job']\n"
        "from warmstart.cli.main import main\n"
        "main()\n"
        "heavy = {'torch', 'transformers', 'lightning', 'datasets', 'wandb'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert "FacebookAI/roberta-base" in outcome.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["bridge.lora=encoder", "encoder.weights=random"], "bridge.lora=encoder cannot freeze the encoder"),
        (["bridge.freeze=both", "decoder.weights=random"], "bridge.freeze=both cannot freeze the decoder"),
        (["bridge.lora=both", "bridge.share=weights", "decoder=bert"], "contradicts bridge.share=weights"),
        (["bridge.share=weights", "decoder=roberta"], "bridge.share=weights is impossible with two checkpoints"),
        (["bridge.share=embeddings", "decoder=bert", "decoder.revision=v2"], "with two checkpoints"),
        (["bridge.share=embeddings", "decoder=bert", "bridge.freeze=decoder"], "bridge.freeze=decoder contradict"),
        (["bridge.share=embeddings", "decoder=bert", "bridge.lora=encoder"], "bridge.lora=encoder contradict"),
        (["bridge.lora=both", "bridge.lora_rank=0"], "bridge.lora_rank=0"),
        (["bridge.warmup_steps=-1"], "bridge.warmup_steps=-1"),
        (["encoder=none", "bridge.freeze=encoder"], "encoder=none and bridge.freeze=encoder contradict each other"),
        (["encoder=none", "bridge.freeze=decoder"], "encoder=none and bridge.freeze=decoder contradict each other"),
        (["encoder=none", "bridge.share=weights", "bridge.lora=both"], "bridge.share=weights and bridge.lora=both"),
        (["encoder=none", "bridge.warmup_steps=5"], "there is neither an encoder nor cross-attention"),
        (["encoder=none", "decoder=roberta", "data.max_source_length=99"], "A roberta decoder needs an encoder"),
        (["encoder=none", "decoder=fresh_transformer", "data.max_source_length=99"], "decoder needs an encoder"),
        (["encoder=none", "data.source_windows=2"], "data.source_windows=2 needs an encoder"),
        (["encoder=none", "bridge.embeddings=copy"], "encoder=none and bridge.embeddings=copy contradict each other"),
        (["decoder=ext", "data.truncation=head_tail"], "the sentences of one window are marked"),
        (["decoder=ext", "data.source_windows=2"], "the sentences of one window are marked"),
        (["decoder=ext", "data.prompt=Summarize:"], "decoder=ext selects sentences and writes no tokens"),
        (
            ["decoder=transformer_ext", "trainer.monitor=validation/source_effect", "trainer.monitor_mode=max"],
            "trainer.monitor=validation/source_effect is not computed for decoder=transformer_ext",
        ),
        (["encoder=none", "data.max_source_length=900"], "decoder=gpt2 has 1024 positions. Lower it"),
        (["trainer=fsdp", "trainer.precision=16-mixed"], "16-mixed does not work with trainer.strategy=fsdp"),
        (["trainer=cpu", "trainer.precision=16-mixed"], "on a CPU Lightning uses bf16-mixed instead"),
    ],
)
def test_contradicting_choices_are_found_before_anything_loads(words, expected, settings_of):
    [found] = faults(settings_of(*words))
    assert expected in found


@pytest.mark.parametrize(("group", "name"), [choice for choice in CHOICES if choice[0] in ("encoder", "decoder")])
def test_every_encoder_and_decoder_can_be_built_tiny_and_trains(group, name, settings_of):
    settings = settings_of("debug=tiny", f"{group}={name}")
    ids = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    sizes = {"encoder_vocab_size": 600, "decoder_vocab_size": 500}
    model = build_model(settings.encoder, settings.decoder, settings.bridge, special_ids=ids, **sizes)
    assert parameter_counts(model)["total"] < 2e6
    of_source = 500 if name == "none" else 600  # without an encoder the decoder reads the source
    source, labels = torch.randint(5, of_source, (2, 9)), torch.randint(5, 500, (2, 4))
    if settings.decoder.model_type == SELECTOR:  # it needs marked sentences, with labels after the end token
        mark_sentences(model.config.encoder, 1)
        source[:, ::3], labels = 1, torch.tensor([[7, 2, 0, 1, 0], [2, 1, 0, 0, -100]])
    loss, _, _ = model.training_loss(source, torch.ones_like(source), labels)
    loss.backward()
    assert torch.isfinite(loss)
    head = model.decoder.score if settings.decoder.model_type == SELECTOR else model.get_output_embeddings()
    assert head.weight.grad is not None


@pytest.mark.parametrize("word", ["+encoder.weihgts=random", "++optim.foo=2", "+foo=1", "+data.batch.foo=1"])
def test_an_added_key_is_not_dropped_silently(word, settings_of):
    with pytest.raises(UserError, match=f"no option {word.lstrip('+').partition('=')[0]}"):
        settings_of(word)
