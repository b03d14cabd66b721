"""The private APIs of Hydra exist, and Hydra still calls them."""

import functools
import inspect

import hydra.core.utils
import pytest
from hydra import compose, initialize
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from moved import assert_has, assert_parameters

from warmstart.compat import hydra as compat


def test_composition_is_wrapped_once(monkeypatch):
    assert_has(ConfigLoaderImpl, "load_configuration", "hydra-core", "1.3.8")
    plain = inspect.unwrap(ConfigLoaderImpl.load_configuration)
    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", plain)
    calls = []

    def wrap(function):
        @functools.wraps(function)
        def wrapped(*args, **kwargs):
            calls.append(kwargs.get("config_name"))
            return function(*args, **kwargs)

        return wrapped

    compat.wrap_composition(wrap)
    compat.wrap_composition(lambda function: pytest.fail("it was wrapped twice"))
    with initialize(None, version_base="1.3"):
        compose(overrides=["+a=1"])
    assert calls == [None], "Hydra composes a config without load_configuration: see compat/hydra.py."


def test_job_files_are_written_by_the_given_function(monkeypatch):
    assert_has(hydra.core.utils, "_save_config", "hydra-core", "1.3.8")
    found = list(inspect.signature(hydra.core.utils._save_config).parameters)
    assert_parameters(found, ["cfg", "filename", "output_dir"], "_save_config", "hydra-core", "1.3.8")
    assert inspect.getsource(hydra.core.utils.run_job).count("_save_config(") == 3, (
        "Hydra writes the files in .hydra in another way: see set_config_writer in compat/hydra.py."
    )
    monkeypatch.setattr(hydra.core.utils, "_save_config", hydra.core.utils._save_config)
    compat.set_config_writer(print)
    assert hydra.core.utils._save_config is print
