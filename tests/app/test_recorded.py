"""A task on an earlier run goes by what that run recorded, but for what the command line names."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from warmstart.app.cli import config_dir
from warmstart.app.export import export_model
from warmstart.app.recorded import with_recorded
from warmstart.app.schema import register, to_settings
from warmstart.errors import UserError


def composed(*overrides):
    register()
    OmegaConf.register_new_resolver("run_id", lambda: "test", replace=True)
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return compose("config", overrides=list(overrides))


@pytest.fixture
def run_dir(tmp_path):
    """A run of the demo: greedy, 20 new tokens, 150 test rows."""
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save(composed("experiment=demo", "seed=7"), tmp_path / ".hydra" / "config.yaml")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").touch()
    return tmp_path


def of(ckpt, *overrides):
    words = [f"ckpt={ckpt}", *overrides]
    return to_settings(with_recorded(composed(*words), words))


@pytest.mark.parametrize("inside", ["", "checkpoints/best.ckpt"])
def test_the_runs_own_settings_are_taken(run_dir, inside):
    demo, found = to_settings(composed("experiment=demo")), of(run_dir / inside, "task=summarize", "input=a.txt")
    assert (found.encoder, found.data, found.generation) == (demo.encoder, demo.data, demo.generation)
    assert (found.task, found.input, found.seed) == ("summarize", "a.txt", 7)


def test_what_the_command_line_names_wins(run_dir):
    beams, demo = to_settings(composed("generation=beam")), to_settings(composed("experiment=demo"))
    assert of(run_dir, "generation=beam").generation == beams.generation
    found = of(run_dir, "generation.max_new_tokens=9", "data.limit_test=3", "seed=2")
    assert found.generation.max_new_tokens == 9
    assert found.generation.num_beams == demo.generation.num_beams
    assert (found.data.limit_test, found.data.summary_column, found.seed) == (3, demo.data.summary_column, 2)


def test_an_experiment_named_again_is_taken_whole(run_dir):
    assert of(run_dir, "debug=tiny").data == to_settings(composed("debug=tiny")).data


def test_without_a_record_the_command_line_is_all_there_is(tmp_path):
    assert of(tmp_path).encoder.name == "bert"


def test_an_export_remembers_how_it_decodes(tmp_path):
    class Nothing:
        def save_pretrained(self, folder):
            folder.mkdir(parents=True)

        def save(self, folder):
            pass

    export_model(Nothing(), Nothing(), tmp_path / "export", {}, to_settings(composed("experiment=demo")))
    demo, found = to_settings(composed("experiment=demo")), of(tmp_path / "export")
    assert found.generation == demo.generation
    assert found.data.max_source_length == demo.data.max_source_length


def test_a_record_with_foreign_keys_is_named(run_dir):
    (run_dir / ".hydra" / "config.yaml").write_text("generation: {no_such: 1}\n")
    with pytest.raises(UserError, match=r"config\.yaml.*no_such"):
        of(run_dir)
