"""The message about a choice that does not exist suggests the nearest and lists the others."""

import pytest

from warmstart.runs.explain import explain


def message_about(word, settings_of):
    with pytest.raises(Exception) as refused:  # noqa: PT011 - Hydra's
        settings_of(word)
    return explain(refused.value).splitlines()


def test_an_unknown_choice_suggests_the_nearest_and_lists_at_most_a_dozen(settings_of):
    first, other, second, *rest = message_about("decoder=gpt3", settings_of)
    assert first == "There is no decoder=gpt3. Did you mean decoder=gpt2?"
    assert other == "Any checkpoint on the hub or in a folder: decoder=hf decoder.path=HUB_ID_OR_FOLDER"
    assert second == "The choices of decoder:"
    assert rest[:2] == ["  bert", "  bert_cased"]
    assert rest[12].startswith("  and ")
    assert rest[12].endswith(" more: --help")


def test_a_part_of_a_name_is_enough_for_a_suggestion(settings_of):
    assert message_about("data=daily", settings_of)[0].endswith("Did you mean data=cnn_dailymail?")


@pytest.mark.parametrize(
    ("word", "choices"),
    [("debug=big", ["  tiny"]), ("generation=xyz", ["  beam", "  bertsum", "  greedy", "  sentences", "  short"])],
)
def test_a_short_list_is_complete(word, choices, settings_of):
    group = word.partition("=")[0]
    assert message_about(word, settings_of) == [f"There is no {word}.", f"The choices of {group}:", *choices]


def test_a_recipe_in_a_folder_is_suggested_and_its_folder_is_listed(settings_of):
    first, title, *rest = message_about("experiment=modern/ettin2etin", settings_of)
    assert first == "There is no experiment=modern/ettin2etin. Did you mean experiment=modern/ettin2ettin?"
    assert title == "The choices of experiment=modern/:"
    assert "  modern/e5_qwen3" in rest
    assert all(one.startswith("  modern/") for one in rest)


def test_a_folder_of_recipes_lists_them_and_a_part_of_a_name_finds_one(settings_of):
    assert message_about("experiment=bertsum", settings_of) == [
        "There is no experiment=bertsum.",
        "The choices of experiment=bertsum/:",
        "  bertsum/abs",
        "  bertsum/ext",
        "  bertsum/extabs",
        "  bertsum/transformer_ext",
    ]
    assert message_about("experiment=bert2gpt", settings_of)[0].endswith("Did you mean experiment=rothe/bert2gpt?")


def test_a_choice_of_hydra_is_named_with_its_whole_group(settings_of):
    assert message_about("hydra/job_logging=bad", settings_of)[0] == "There is no hydra/job_logging=bad."


def test_a_hub_id_as_a_choice_is_answered_with_the_command_for_it(settings_of):
    assert message_about("encoder=google/flan-t5-small", settings_of) == [
        "There is no encoder=google/flan-t5-small.",
        "Any checkpoint on the hub or in a folder: encoder=hf encoder.path=google/flan-t5-small",
    ]


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("check", "Did you mean task=check?"),
        ("summarise", "Did you mean task=summarize?"),
        ("reviews.csv", "Put no blanks around =, and quotes around a value with blanks."),
    ],
)
def test_a_word_without_an_equals_sign_is_explained(word, hint, settings_of):
    [message] = message_about(word, settings_of)
    assert message == f"{word!r} is not an override. Overrides are written OPTION=VALUE. {hint} See --help."
