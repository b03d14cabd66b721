"""Which validation examples are summarised, and the table of them that a run leaves."""

import json

import pytest
from tiny_training import STILL, Letters, Recorder, Rows, batches, fit, rows, tiny_model

from warmstart.runs.run_dir import RunDir
from warmstart.training.callbacks.checkpoints import SampleTable
from warmstart.training.validation_sample import ValidationSample

SEARCH = {"max_new_tokens": 4}
REFERENCES = [f"target {i}" for i in range(18)]


def score(samples):
    predictions = [sample["prediction"] for sample in samples]
    return {"words": float(sum(len(text.split()) for text in predictions)) / len(predictions)}


def module(size):
    return Recorder(
        tiny_model(), Letters(), STILL, SEARCH, total_steps=4, hparams={}, references=REFERENCES[:size], score=score
    )


def read(run_dir):
    return [json.loads(line) for line in (RunDir(run_dir).samples).read_text().splitlines()]


def test_the_first_examples_of_the_split_are_summarised_however_they_are_batched():
    model, data = tiny_model().eval(), rows(24)
    found = []
    for size in (24, 5):
        sample = ValidationSample(REFERENCES)
        for batch in reversed(batches(size, data)):
            sample.take(batch)
        found.append(sorted(sample.summarize(model, Letters(), SEARCH), key=lambda row: row["index"]))
    assert [row["index"] for row in found[0]] == list(range(18))
    assert found[0] == found[1]
    alone = model.generate(data["input_ids"][3:4, :4], **SEARCH)  # row 3 has two places of padding
    assert found[0][3]["prediction"] == Letters().decode(alone[:, 1:])[0]
    assert [row["reference"] for row in found[0]] == REFERENCES


def test_means_over_the_sample_are_logged(tmp_path):
    log, counted = Rows(), module(3)
    fit(tmp_path, 8, 1, module=counted, loggers=[log])
    assert [sample["index"] for sample in counted.samples] == [0, 1, 2]
    assert log.of("validation/words") == pytest.approx([score(counted.samples)["words"]])


def test_no_samples_no_generation(tmp_path):
    fit(tmp_path, 8, 1, module=module(0))
    assert not (RunDir(tmp_path).samples).exists()


def test_the_table_holds_every_validation_and_a_resumed_run_replaces_its_own(tmp_path):
    fit(tmp_path, 8, 1, module=module(3), callbacks=[SampleTable(tmp_path, rows=2)], max_epochs=2)
    assert [(row["step"], row["index"]) for row in read(tmp_path)] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert [row["epoch"] for row in read(tmp_path)] == [0, 0, 1, 1]
    assert read(tmp_path)[0].keys() == {"step", "epoch", "index", "reference", "prediction", "words"}
    fit(tmp_path, 8, 1, module=module(3), callbacks=[SampleTable(tmp_path, rows=1)], max_epochs=1)
    assert [(row["step"], row["index"]) for row in read(tmp_path)] == [(1, 0)]


def test_an_incomplete_line_of_a_killed_run_is_dropped(tmp_path):
    fit(tmp_path, 8, 1, module=module(3), callbacks=[SampleTable(tmp_path, rows=1)], max_epochs=1)
    earlier = {**read(tmp_path)[0], "step": 0}
    (RunDir(tmp_path).samples).write_text(json.dumps(earlier) + "\n" + '{"step": 1, "ind')
    fit(tmp_path, 8, 1, module=module(3), callbacks=[SampleTable(tmp_path, rows=1)], max_epochs=1)
    assert [row["step"] for row in read(tmp_path)] == [0, 1]


def test_a_sample_with_several_windows_is_summarised_as_each_example_by_itself():
    model, data = tiny_model().eval(), rows(24)
    wide = {name: data[name][:6].clone().view(3, 2, -1) for name in ("input_ids", "attention_mask")}
    wide["attention_mask"][1, 1] = 0
    labels = data["labels"][:6]
    sample = ValidationSample(REFERENCES[:6])
    sample.take({name: data[name][3:6] for name in data})  # a batch in which every source has one window
    sample.take(wide | {"labels": labels[:3], "index": data["index"][:3]})
    found = sorted(sample.summarize(model, Letters(), SEARCH), key=lambda row: row["index"])
    assert [row["index"] for row in found] == list(range(6))
    for row, ids, mask in zip(found, wide["input_ids"], wide["attention_mask"], strict=False):
        alone = model.generate(ids[None], attention_mask=mask[None], **SEARCH)
        assert row["prediction"] == Letters().decode(alone[:, 1:])[0]
    one = model.generate(data["input_ids"][3:4], attention_mask=data["attention_mask"][3:4], **SEARCH)
    assert found[3]["prediction"] == Letters().decode(one[:, 1:])[0]
