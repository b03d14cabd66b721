"""One tiny run for the tests that damage copies of it."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from warmstart.cli.main import config_dir
from warmstart.config.schema import register, to_settings
from warmstart.tasks import fit


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """The directory of a run of three steps."""
    register()
    OmegaConf.register_new_resolver("run_id", lambda: "test", replace=True)
    run = tmp_path_factory.mktemp("runs") / "tiny"
    with initialize_config_dir(config_dir(), version_base="1.3"):
        settings = to_settings(compose("config", overrides=["debug=tiny", f"data.cache_dir={run.parent / 'cache'}"]))
    fit.run(settings, run)
    return run
