"""A task on an earlier run goes by what that run recorded, but for what the command line names."""

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from transformers import GenerationConfig

from warmstart import EncoderDecoderConfig
from warmstart.cli.main import config_dir
from warmstart.config.schema import plain, register, to_settings
from warmstart.errors import UserError
from warmstart.runs.recorded import with_recorded
from warmstart.tasks import fit, summarize
from warmstart.tasks.export import export_model


def composed(*overrides):
    register()
    OmegaConf.register_new_resolver("run_id", lambda: "test", replace=True)
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def write_checkpoint(file, config):
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"hyper_parameters": {"model_config": {}, "config": config}}, file)


@pytest.fixture
def run_dir(tmp_path):
    """A run of the demo: greedy, 20 new tokens, 150 test rows."""
    config = plain(to_settings(composed("experiment=demo", "seed=7")))
    for name in ("best", "last"):
        write_checkpoint(tmp_path / "checkpoints" / f"{name}.ckpt", config)
    return tmp_path


def of(ckpt, *overrides):
    words = [f"ckpt={ckpt}", *overrides]
    return to_settings(with_recorded(composed(*words), words))


@pytest.mark.parametrize("inside", ["", "checkpoints/best.ckpt", "checkpoints/last.ckpt"])
def test_the_runs_own_settings_are_taken(run_dir, inside):
    demo, found = to_settings(composed("experiment=demo")), of(run_dir / inside, "task=summarize", "input=a.txt")
    for group in ("encoder", "decoder", "bridge", "data", "generation", "evaluation"):
        assert getattr(found, group) == getattr(demo, group), group
    assert (found.task, found.input, found.seed) == ("summarize", "a.txt", 7)


def test_what_hydra_left_there_later_does_not_count(run_dir):
    # A task with name= of the run itself: Hydra has written this command's config over the run's.
    (run_dir / ".hydra").mkdir()
    OmegaConf.save(composed(), run_dir / ".hydra" / "config.yaml")
    assert of(run_dir).generation == to_settings(composed("experiment=demo")).generation


def test_what_the_command_line_names_wins(run_dir):
    beams, demo = to_settings(composed("generation=beam")), to_settings(composed("experiment=demo"))
    assert of(run_dir, "generation=beam").generation == beams.generation
    found = of(run_dir, "generation.max_new_tokens=9", "data.limit_test=3", "seed=2", "++data.batch.size=5")
    assert found.generation.max_new_tokens == 9
    assert found.generation.num_beams == demo.generation.num_beams
    assert (found.data.limit_test, found.data.summary_column, found.seed) == (3, demo.data.summary_column, 2)
    assert (found.data.batch.size, found.data.batch.max_tokens) == (5, demo.data.batch.max_tokens)
    both = of(run_dir, "generation.num_beams=7", "generation=beam").generation
    assert (both.num_beams, both.max_new_tokens) == (7, beams.generation.max_new_tokens)


def test_another_data_set_is_read_as_the_model_was_trained(run_dir):
    words = ("data.source_windows=3", "data.window_overlap=8", "data.truncation=head_tail", "data.prompt=Summarize:")
    config = plain(to_settings(composed("experiment=demo", *words)))
    write_checkpoint(run_dir / "checkpoints" / "best.ckpt", config)
    data = of(run_dir, "data=files", "data.path=a.csv", "data.truncation=head").data
    assert (data.name, data.path) == ("files", "a.csv")
    assert (data.source_windows, data.window_overlap, data.prompt) == (3, 8, "Summarize:")
    assert data.truncation == "head"


def test_the_prompt_is_that_of_the_training(run_dir):
    write_checkpoint(
        run_dir / "checkpoints" / "best.ckpt", plain(to_settings(composed("experiment=demo", "data.prompt=Summarize:")))
    )
    assert of(run_dir).data.prompt == "Summarize:"
    assert of(run_dir, "data.prompt=Summarize:").data.prompt == "Summarize:"
    message = (
        r"data\.prompt=Short: was requested, but .* was trained with data\.prompt=Summarize:\. Leave data\.prompt= out"
    )
    for words in (["data.prompt=Short:"], ["data=files", "data.prompt=Short:"]):
        with pytest.raises(UserError, match=message):
            of(run_dir, *words)
    # A run of a release without the option was trained without a prompt.
    config = plain(to_settings(composed("experiment=demo")))
    del config["data"]["prompt"]
    write_checkpoint(run_dir / "checkpoints" / "best.ckpt", config)
    with pytest.raises(UserError, match=r"trained with data\.prompt=None"):
        of(run_dir, "data.prompt=Short:")


def test_the_halves_are_the_runs_whatever_is_asked_for(run_dir):
    minilm = to_settings(composed("encoder=minilm")).encoder
    assert of(run_dir).encoder.architecture == minilm.architecture
    assert of(run_dir, "encoder=minilm") == of(run_dir)
    for word, said in (
        ("encoder=bert", "encoder.name=bert was requested"),
        ("decoder.weights=random", "decoder.weights=random"),
        ("bridge.share=weights", "bridge.share=weights"),
    ):
        with pytest.raises(UserError, match=said):
            of(run_dir, word)


def test_an_experiment_named_again_is_taken_whole(run_dir):
    assert of(run_dir, "debug=tiny").data == to_settings(composed("debug=tiny")).data


def test_an_export_remembers_how_it_decodes(tmp_path):
    class Nothing:
        config = EncoderDecoderConfig()
        generation_config = GenerationConfig()

        def state_dict(self):
            return {}

        def save_pretrained(self, folder):
            (folder / "config.json").write_text("{}")

        def save(self, folder):
            pass

    export_model(Nothing(), Nothing(), tmp_path / "export", {}, to_settings(composed("experiment=demo")))
    demo, found = to_settings(composed("experiment=demo")), of(tmp_path / "export")
    assert found.generation == demo.generation
    assert found.data.max_source_length == demo.data.max_source_length


def test_an_export_without_a_record_goes_by_the_command_line_but_is_not_named_by_its_defaults(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    found = of(tmp_path, "generation=beam", "decoder=minilm")
    assert found.generation == to_settings(composed("generation=beam")).generation
    assert (found.encoder.name, found.encoder.path) == (f"encoder of {tmp_path.name}", str(tmp_path))
    assert found.decoder.name == "minilm"


def test_nothing_there_and_foreign_keys_are_named(run_dir):
    with pytest.raises(UserError, match=r"ckpt=.*absent.*no such file or folder.*name="):
        of(run_dir / "absent")
    write_checkpoint(run_dir / "checkpoints" / "best.ckpt", {"generation": {"no_such": 1}})
    with pytest.raises(UserError, match=r"best\.ckpt.*no_such"):
        of(run_dir)


def test_summarize_by_name_and_last_decodes_as_the_run_did(settings_of, tmp_path, run_py, capsys):
    run, text = tmp_path / "runs" / "mine", tmp_path / "a.txt"
    text.write_text("The council met on Monday and voted to close the school.")
    six = ("debug=tiny", "generation.max_new_tokens=6", "generation.min_new_tokens=6")  # hardly trained, it would stop
    fit.run(settings_of(*six), run)
    capsys.readouterr()
    summarize.run(settings_of(*six, f"ckpt={run}", f"input={text}"), tmp_path)
    expected = capsys.readouterr().out
    found = run_py("task=summarize", "name=mine", "ckpt=last", f"input={text}", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert found.stdout == expected
    two = ("generation.max_new_tokens=2", "generation.min_new_tokens=2")
    shorter = run_py("task=summarize", f"ckpt={run}", f"input={text}", *two, cwd=tmp_path)
    assert 0 < len(shorter.stdout) < len(expected)
