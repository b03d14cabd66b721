"""The one command for files of any size, as it is typed."""

import csv

PAIR = ("encoder=minilm", "decoder=minilm", "data=files", "data.path=own.csv")


def write(folder):
    with (folder / "own.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["document", "summary"])
        rows.writerows([f"Ana has {i} boats. She sails.", f"{i} boats"] for i in range(30))


def test_the_check_lists_the_choices_and_the_first_pairs(run_py, tmp_path):
    write(tmp_path)
    done = run_py("task=check", *PAIR, "generation.max_new_tokens=11", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "trainer.max_epochs=40  (about 200 optimizer steps for 20 training rows, 5 an epoch)" in done.stdout
    assert "generation.min_new_tokens=0" in done.stdout
    assert "generation.max_new_tokens=" not in done.stdout  # it is set, so it is not chosen
    assert "    document  ana has 1 boats. she sails." in done.stdout
    assert done.stdout.count("Warning: ") == 1
    assert "Warning: The fit has 20 training examples." in done.stdout


def test_an_experiment_and_the_option_turn_the_recipe_off(run_py, tmp_path):
    write(tmp_path)
    for words in (["trainer.recipe=none"], ["experiment=demo", "data.baselines=[lead]"]):
        done = run_py("task=check", *PAIR, *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "chosen from the data" not in done.stdout
