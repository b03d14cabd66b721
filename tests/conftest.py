"""Every test runs offline and composes configs as run.py does."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from warmstart.app.cli import config_dir
from warmstart.app.schema import Config, register, to_settings


@pytest.fixture
def settings_of(tmp_path):
    """``settings_of("debug=tiny", ...)``: the typed config of those overrides, its cache in a temporary folder."""
    register()
    OmegaConf.register_new_resolver("run_id", lambda: "test", replace=True)

    def make(*overrides: str) -> Config:
        with initialize_config_dir(config_dir(), version_base="1.3"):
            return to_settings(compose("config", overrides=[*overrides, f"data.cache_dir={tmp_path / 'cache'}"]))

    return make
