"""The recipes of today's pairs: their parameters are those of their page, and each one trains offline.

test_conf.py checks that each is valid without a download. Counts are those of models without values (the meta device).
"""

from pathlib import Path

import pytest
import torch
import transformers

from warmstart.cli.main import config_dir
from warmstart.data.sources.load import load_source
from warmstart.data.tokenization.train import trained_tokenizer
from warmstart.model.build import build_model
from warmstart.model.parameters import parameter_counts
from warmstart.runs.run_dir import RunDir
from warmstart.tasks import fit
from warmstart.tasks.check import faults, pair_without_values

FOLDER = Path(config_dir()) / "experiment" / "modern"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "recipes.md"
SIZES = {"encoder_vocab_size": 90, "decoder_vocab_size": 90}
IDS = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def projections(hidden_size, key_size):
    """Return the parameters of a cross-attention without biases, whose queries have the decoder's hidden size."""
    return 2 * hidden_size * hidden_size + 2 * hidden_size * key_size


# The new parameters. Ettin: 22 layers with a LayerNorm (it has a bias) and a gate each. SmolLM2: 320 of 960 and 192 of
# 576 for keys; a norm, a gate if there is one, and the projection of the encoder's states with its bias. Qwen3: every
# second of 28 layers, 2048 for queries, 1024 for keys, and a norm of 128 for queries and keys of a head.
NEW = {
    "ettin2ettin": 22 * (projections(768, 768) + 2 * 768 + 1),
    "modernbert_smollm2": 32 * (projections(960, 320) + 960 + 1) + 768 * 960 + 960,
    "e5_qwen3": 14 * (1024 * 2 * (2048 + 1024) + 1024 + 2 * 128 + 1) + 768 * 1024 + 1024,
    "t5gemma_style": 30 * (projections(576, 192) + 576) + 960 * 576 + 576,
}


def row_of(recipe):
    [row] = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{recipe}` |") and "M |" in line]
    return row


def test_there_is_a_file_for_each_recipe_of_this_test():
    assert sorted(NEW) == RECIPES


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_has_lengths_and_batches_for_cnn_dailymail_and_takes_other_data(recipe, settings_of):
    settings = settings_of(f"experiment=modern/{recipe}")
    assert settings.data.name == "cnn_dailymail"
    assert settings.generation.max_new_tokens <= settings.data.max_target_length
    assert settings.data.batch.max_tokens * settings.trainer.accumulate == 65_536
    assert settings_of(f"experiment=modern/{recipe}", "data=xsum").data.name == "xsum"


@pytest.mark.parametrize("recipe", RECIPES)
def test_parameters_are_those_of_the_page(recipe, settings_of):
    counts = parameter_counts(pair_without_values(settings_of(f"experiment=modern/{recipe}")))
    assert counts["new"] == NEW[recipe]
    still = 596_049_920 if recipe == "e5_qwen3" else 0  # Qwen3 0.6B is frozen
    assert counts["total"] - counts["trainable"] == still
    assert f"| {counts['total'] / 1e6:.1f}M | {counts['new'] / 1e6:.1f}M |" in row_of(recipe)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("ettin2ettin", ["bridge.gate=none"]),
        ("modernbert_smollm2", ["bridge.freeze=both", "bridge.init=random"]),
        ("e5_qwen3", ["bridge.init=random", "bridge.freeze=both"]),
        ("e5_qwen3", ["bridge.freeze=none"]),
        ("t5gemma_style", ["decoder=smollm2_360m", "bridge.init=copy", "bridge.warmup_steps=0"]),
        ("t5gemma_style", ["bridge.init=copy", "bridge.gate=zero", "bridge.warmup_steps=0"]),
    ],
)
def test_the_other_choices_in_the_files_are_valid(recipe, words, settings_of):
    assert faults(settings_of(f"experiment=modern/{recipe}", *words)) == []
    comment = " ".join(line.lstrip("# ") for line in (FOLDER / f"{recipe}.yaml").read_text().splitlines())
    assert " ".join(words) in comment
    tiny = settings_of(f"experiment=modern/{recipe}", "debug=tiny", *words)
    build_model(tiny.encoder, tiny.decoder, tiny.bridge, special_ids=IDS, **SIZES)


def test_t5gemma_styles_encoder_attends_in_both_directions(settings_of):
    def first_state_changes(*words):
        settings = settings_of("experiment=modern/t5gemma_style", "debug=tiny", *words)
        model = build_model(settings.encoder, settings.decoder, settings.bridge, special_ids=IDS, **SIZES).eval()
        ids = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 9]])
        mask = torch.ones_like(ids)
        with torch.no_grad():
            states = model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        return not torch.equal(states[0, 0], states[1, 0])

    assert first_state_changes()
    assert not first_state_changes("encoder.attention=own")


@pytest.fixture
def two_checkpoints(settings_of, tmp_path):
    """Two decoder-only checkpoints of unequal size with tokenizers, as overrides of the recipe."""
    settings = settings_of("experiment=modern/t5gemma_style", "debug=tiny")
    texts = [text for example in load_source(settings.data).split("train") for text in example[1:]]
    tokenizer = trained_tokenizer(settings.encoder, texts)
    words = []
    for role, size in (("encoder", 48), ("decoder", 32)):
        config = transformers.LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=size,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=64,
            tie_word_embeddings=True,
        )
        transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / role)
        tokenizer.save_pretrained(tmp_path / role)
        words += [f"{role}.path={tmp_path / role}", f"{role}.weights=pretrained", f"{role}.scale=full"]
    return words


def test_t5gemma_style_trains_only_new_parameters_at_first(two_checkpoints, settings_of, tmp_path):
    assert settings_of("experiment=modern/t5gemma_style").bridge.warmup_steps == 1000
    words = ["experiment=modern/t5gemma_style", "debug=tiny", *two_checkpoints, "bridge.warmup_steps=1"]
    words += ["optim.warmup_steps=0", "evaluation.test=false", "trainer.validation_samples=0"]
    fit.run(settings_of(*words), tmp_path / "run")
    [optimizer] = torch.load(RunDir(tmp_path / "run").checkpoints.last, weights_only=True)["optimizer_states"]
    taken = {
        (group["name"].removesuffix("_no_decay"), float(optimizer["state"][i]["step"]))
        for group in optimizer["param_groups"]
        for i in group["params"]
    }
    assert taken == {("encoder", 2.0), ("decoder", 2.0), ("new", 3.0)}


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_trains_and_scores_three_tiny_steps(recipe, settings_of, tmp_path):
    fit.run(settings_of(f"experiment=modern/{recipe}", "debug=tiny"), tmp_path / "run")
    result = RunDir(tmp_path / "run").read_result()
    assert (result["status"], result["steps"]) == ("complete", 3)
    assert {"test/rouge1", "test/nll"} <= result["metrics"].keys()
    assert {"shuffled_document", "decoder_alone"} <= result["controls"].keys()
