"""Tiny runs (a plain one, one with grafted cross-attention and a prompt, one with windows) and the page's menu."""

import pytest

import warmstart
from warmstart.page.menu import Menu

PLACES = ("river", "school", "harbour", "market", "station", "library", "bridge", "museum")
PAIRS = [
    (f"The council of town {i} met on day {i} and voted to close the {PLACES[i % 8]}.", f"town {i} {PLACES[i % 8]}")
    for i in range(160)
]


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("page")
        patch.setenv("WARMSTART_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="session")
def run(root):
    return warmstart.fit(PAIRS, name="own", output_root=root, overrides=["debug=tiny", "encoder=bert", "decoder=gpt2"])


@pytest.fixture(scope="session")
def grafted(root, run):
    words = ["debug=tiny", "encoder=bert", "decoder=smollm2", "trainer.max_steps=2", "evaluation.test=false"]
    return warmstart.fit(PAIRS, name="grafted", output_root=root, overrides=[*words, "data.prompt='Title: '"])


@pytest.fixture
def windows(root):
    words = ["debug=tiny", "encoder=bert", "decoder=gpt2", "trainer.max_steps=2", "evaluation.test=false"]
    of_source = ["data.source_windows=3", "data.max_source_length=8"]
    return warmstart.fit(PAIRS, name="windows", output_root=root / "windows", overrides=[*words, *of_source])


@pytest.fixture
def menu_of(settings_of, run, root):
    """Return a function that makes the menu of the run in the folder of both: ``menu_of("data.language=de")``."""

    def make(*words, ckpt=run.folder):
        return Menu(settings_of("debug=tiny", f"output_root={root}", *words, "task=demo", f"ckpt={ckpt}"))

    return make


@pytest.fixture
def menu(menu_of, grafted):
    return menu_of()
