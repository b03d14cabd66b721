"""What ``task=check`` refuses of the data, whatever the reader, and what it shows."""

import json
import shutil
from pathlib import Path

import pytest

from warmstart.errors import UserError
from warmstart.model.assets import resolve_path
from warmstart.tasks.check import faults, validate_numbers


@pytest.mark.parametrize("data", ["cnn_dailymail", "news", "written"])
def test_an_unknown_cleaning_step_is_a_fault_of_any_data(data, settings_of):
    (fault,) = faults(settings_of(f"data={data}", "data.clean=[mend_quotes,no_such_step]"))
    assert "data.clean contains unknown steps: no_such_step." in fault


def test_a_path_from_the_home_folder_is_found(settings_of, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x.jsonl").write_text(json.dumps({"document": "a b c", "summary": "a"}) + "\n")
    assert faults(settings_of("data=files", "data.path='~/x.jsonl'")) == []
    [fault] = faults(settings_of("data=files", "data.path='~/y.jsonl'"))
    assert fault == f"data.path={tmp_path}/y.jsonl does not exist. In {tmp_path}: 'x.jsonl'. Correct data.path."


def test_a_pattern_of_files_is_accepted_where_a_file_matches(settings_of, tmp_path):
    words = ("data=files", f"data.path='{tmp_path}/part-*.jsonl'")
    [fault] = faults(settings_of(*words))
    assert fault.startswith(f"data.path={tmp_path}/part-*.jsonl does not exist.")
    (tmp_path / "part-0.jsonl").write_text('{"document": "a", "summary": "b"}\n')
    assert faults(settings_of(*words)) == []


def test_a_file_as_the_path_of_a_hub_data_set_is_named(settings_of, tmp_path):
    (tmp_path / "own.csv").write_text("document,summary\na,b\n")
    (fault,) = faults(settings_of("data=xsum", f"data.path={tmp_path}/own.csv"))
    assert "is a file, but data=xsum reads a data set of the hub" in fault


@pytest.mark.parametrize("path", ["absent/texts/of mine", "./absent", "~/absent"])
def test_a_local_path_that_does_not_exist_is_a_fault_of_a_hub_data_set(path, settings_of):
    (fault,) = faults(settings_of("data=xsum", f"data.path='{path}'"))
    assert fault.startswith(f"data.path={Path(path).expanduser()} does not exist.")


def test_a_path_in_a_package_is_no_fault_of_a_hub_data_set(settings_of):
    assert faults(settings_of("data=xsum", "data.path='package_file:some-package/texts/of'")) == []


def test_all_numbers_are_refused_in_one_message(settings_of):
    validate_numbers(settings_of())
    with pytest.raises(UserError, match="2 errors") as refused:
        validate_numbers(settings_of("generation.num_beams=0", "generation.min_new_tokens=500"))
    assert "generation.num_beams=0" in str(refused.value)
    assert "generation.min_new_tokens=500" in str(refused.value)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("data.raw_targets=true", "data.raw_targets=true is an option of data=short_descriptions only"),
        ("data.train_path=x.jsonl", "data.train_path=x.jsonl is only read with data=files"),
        ("data.path=absent", "data.path=absent is not read with data=written"),
        ("trainer.precision=fp16", "trainer.precision=fp16: not a precision of Lightning"),
        ("trainer.accelerator=gpuu", "trainer.accelerator=gpuu: unknown accelerator"),
    ],
)
def test_what_would_be_ignored_or_refused_later_is_said(word, said, settings_of):
    assert faults(settings_of("debug=tiny")) == []
    (fault,) = faults(settings_of("debug=tiny", word))
    assert said in fault


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data=news", "data.raw_splits=[test]"], "data.raw_splits is an option of data=short_descriptions only"),
        (["data.raw_targets=true", "data.raw_splits=[]"], "data.raw_targets=true needs a split in data.raw_splits"),
        (["data.raw_splits=[dev]"], "data.raw_splits has 'dev'. Choose from"),
    ],
)
def test_raw_splits_that_would_be_ignored_are_refused(words, said, settings_of):
    (fault,) = faults(settings_of("experiment=demo", *words))
    assert said in fault


def test_raw_targets_are_refused_with_an_objective_that_reads_none(settings_of):
    short = ("debug=tiny", "data=short_descriptions", "data.baselines=[lead]")
    assert faults(settings_of(*short, "data.raw_targets=true")) == []
    assert faults(settings_of(*short, "data.objective=prefix")) == []
    (fault,) = faults(settings_of(*short, "data.raw_targets=true", "data.objective=prefix"))
    assert "data.raw_targets=true has no effect with data.objective=prefix" in fault


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "decoder=mine: its weights are quantized (gptq)"),
        ({"activation_function": "gelu_newer"}, "decoder=mine: activation_function='gelu_newer'"),
    ],
)
def test_a_checkpoint_that_cannot_be_trained_is_refused_by_name(change, said, settings_of, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"} | change))
    (fault,) = faults(settings_of("decoder=gpt2", "decoder.name=mine", f"decoder.path={tmp_path}", "data=written"))
    assert fault.startswith(said)


def test_the_texts_of_a_file_are_checked_as_a_fit_does(run_py, tmp_path):
    def write(name, *texts):
        rows = [json.dumps({"document": f"{text} {text}", "summary": text}) for text in texts]
        (tmp_path / name).write_text("\n".join(rows))

    write("mine.jsonl", *(f"The river {i} rose." for i in range(60)))
    write("test.jsonl", "The river 1 rose.", "A bridge fell.")
    write("russian.jsonl", *(f"\u041c\u044d\u0440 {i}" for i in range(60)))
    words = ("task=check", "encoder=minilm", "decoder=minilm", "data=files")
    outcome = run_py(*words, "data.train_path=mine.jsonl", "data.test_path=test.jsonl", cwd=tmp_path)
    assert outcome.returncode == 0
    assert outcome.stderr.count("1 of 2 test documents are also training documents") == 1
    outcome = run_py(*words, "data.path=russian.jsonl", cwd=tmp_path)
    assert outcome.returncode == 2
    assert "such as data.language=ru. To train without scores" in outcome.stderr
    assert run_py(*words, "data.path=russian.jsonl", "data.language=ru", cwd=tmp_path).returncode == 0


def test_pairs_are_shown_with_tokenizers_in_the_cache_of_the_hub(run_py, settings_of, tmp_path, monkeypatch):
    words = ("task=check", "encoder=bert", "decoder=bert", "data=written")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shown = "The first training pairs, as the model reads them:"
    assert shown not in run_py(*words, cwd=tmp_path).stdout
    repository = tmp_path / "hub" / f"models--{settings_of().encoder.path.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    of_minilm = Path(resolve_path(settings_of("encoder=minilm").encoder.path))
    shutil.copytree(of_minilm, repository / "snapshots" / ("0" * 40), ignore=shutil.ignore_patterns("*.safetensors"))
    outcome = run_py(*words, cwd=tmp_path)
    assert shown in outcome.stdout, outcome.stderr
