"""A run with windows and a prompt, from the fit to the export: every way to a summary reads and begins the same."""

import json

import pytest

import warmstart
from warmstart.data.tokenization.pair import TokenizerPair
from warmstart.errors import UserError
from warmstart.tasks import check, export, fit, summarize

LONG = " ".join(f"The council of town {i} met on day {i} and voted to close the river." for i in range(8))
WORDS = (
    *("debug=tiny", "encoder=bert", "decoder=gpt2", "data.max_source_length=24", "data.source_windows=3"),
    *("data.window_overlap=4", "generation.num_beams=2", "generation.max_new_tokens=12", "optim.new_rate=0.01"),
    *("data.truncation=lead_sentences", "generation.min_new_tokens=8", "data.prompt='Summarize: '"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tmp_path_factory.mktemp("windows") / "run"


@pytest.fixture
def fitted(settings_of, run):
    if not run.exists():
        fit.run(settings_of(*WORDS), run)
    return run


def test_every_way_to_a_summary_is_the_same(fitted, settings_of, tmp_path, capsys):
    (tmp_path / "a.txt").write_text(LONG)
    found = []
    for ckpt in (fitted, fitted / "export"):
        output = tmp_path / f"{ckpt.name}.txt"
        words = ("debug=tiny", f"ckpt={ckpt}", f"input={tmp_path / 'a.txt'}", f"output={output}")
        summarize.run(settings_of(*WORDS, *words), tmp_path)
        summarizer = warmstart.Summarizer.from_pretrained(ckpt)
        assert summarizer.max_source_length == 72
        found += [output.read_text().rstrip("\n"), summarizer(LONG), summarizer([LONG, "Short."])[0]]
        assert "".join(summarizer.stream(LONG)) == summarizer(LONG, num_beams=1)
        assert summarizer.tokens_read(LONG) == (len(summarizer._writer.encode(LONG)), False)
    assert len({*found}) == 1
    assert found[0]
    record = (fitted / "export" / "run_config.yaml").read_text()
    assert "source_windows: 3" in record
    assert "truncation: lead_sentences" in record


def test_a_fact_in_the_second_window_changes_the_states_that_the_decoder_reads(fitted, documents):
    writer = warmstart.Summarizer.from_pretrained(fitted)._writer
    words = " ".join(documents[:3]).split()
    other = [*words[:24], *words[26:30], *words[24:26], *words[30:]]
    ids = [writer.encode(" ".join(text)) for text in (words, other)]
    assert ids[0][:24] == ids[1][:24]  # the first window is the same
    assert ids[0] != ids[1]
    states = [writer.model._encode(*writer.inputs(one))[0] for one in ids]
    assert (states[0] != states[1]).any()


def test_counts_and_card_of_the_run(fitted, settings_of, tmp_path):
    result = json.loads((fitted / "result.json").read_text())
    assert 0 < result["rows"]["train"]["truncated_documents"] <= result["rows"]["train"]["kept"]
    card = (fitted / "export" / "README.md").read_text()
    options = ("source_windows=3", "window_overlap=4", "truncation=lead_sentences", "prompt=Summarize:")
    assert ", ".join(f"`data.{option}`" for option in options) in card
    assert "Summarizer.from_pretrained" in card
    config = json.loads((fitted / "export" / "config.json").read_text())
    prompt = TokenizerPair.load(fitted / "export").target.decode(config["prompt_ids"])
    assert prompt == "Summarize: "
    lines = (fitted / "predictions.jsonl").read_text().splitlines()
    assert not any("Summarize" in json.loads(line)["prediction"] for line in lines)
    words = (*WORDS, f"ckpt={fitted}", "format=onnx", f"output={tmp_path / 'onnx'}")
    with pytest.raises(UserError, match=r"trained with data\.source_windows=3"):
        export.run(settings_of(*words), tmp_path)


def test_the_check_shows_windows_and_prompt(run_py, tmp_path):
    rows = [{"document": f"Ana has {i} boats. " * 9, "summary": f"{i} boats"} for i in range(30)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("data=files", "data.path=own.jsonl", "data.max_source_length=16", "data.source_windows=3")
    prompt = ("data.prompt=Summarize:", "data.truncation=head_tail")
    done = run_py("task=check", "encoder=minilm", "decoder=minilm", *words, *prompt, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert " tokens in 3 windows, summary: " in done.stdout
    assert "Every summary begins with '[CLS] summarize :', which is not part of it." in done.stdout


def test_the_cost_counts_all_windows(settings_of):
    from warmstart.profiling.cost import texts_of

    settings = settings_of(*WORDS[:5])
    one = settings_of(*WORDS[:4])
    more = texts_of(settings.data).sources
    less = texts_of(one.data).sources
    assert less.max() == 24
    assert 24 < more.max() <= 72


def test_a_prompt_leaves_positions_to_the_target(settings_of, tmp_path):
    words = ("debug=tiny", "encoder=bert", "decoder=gpt2", f"data.prompt={'a ' * 1020}x", "data.max_target_length=20")
    with pytest.raises(UserError, match="20 tokens follow, but decoder=gpt2 has 1024 positions"):
        fit.run(settings_of(*words), tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data.window_overlap=4",), "has no effect with data.source_windows=1"),
        (("data.source_windows=2", "data.window_overlap=511"), "repeats all of a window"),
        (("data.prompt_as_chat=true",), "needs a prompt"),
        (("data.source_windows=0",), "data.source_windows=0 is invalid"),
        (("data.source_windows=4", "data.max_source_length=513"), "has 512 positions"),
    ],
)
def test_invalid_windows_are_reported(settings_of, words, message):
    assert any(message in fault for fault in check.faults(settings_of("encoder=bert", "decoder=gpt2", *words)))
