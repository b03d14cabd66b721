"""``import warmstart`` costs nothing, and is enough for transformers' Auto classes, whichever is imported first."""

import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "warmstart"

OURS = "assert AutoModelForSeq2SeqLM._model_mapping[EncoderDecoderConfig].__module__ == 'warmstart.model.modeling'"
ORDERS = {
    "warmstart first": "import sys, warmstart\nassert not {'torch', 'transformers'} & sys.modules.keys()\n",
    "our config first": "from warmstart import EncoderDecoderConfig\n",
    "transformers first": "from transformers import AutoModelForSeq2SeqLM\nimport warmstart\n",
}


# Whatever of ours is imported first asks transformers for its Auto classes in the middle of its own import.
MODULES = [
    f"warmstart.model.{path.stem}" for path in sorted((SOURCE / "model").glob("*.py")) if path.stem != "__init__"
]


def test_every_module_of_the_model_can_be_imported_first():
    """In one process that forks, so that torch and transformers' base are imported once."""
    code = f"""
import importlib, os, sys, torch, transformers.generation.utils
assert "transformers.models.auto.modeling_auto" not in sys.modules
for name in {MODULES!r}:
    if (child := os.fork()) == 0:
        importlib.import_module(name)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(f"{{name}} cannot be imported first")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("order", ORDERS)
def test_auto_classes_know_ours(order):
    code = f"{ORDERS[order]}from transformers import AutoConfig, AutoModelForSeq2SeqLM\n"
    code += f"EncoderDecoderConfig = type(AutoConfig.for_model('encoder-decoder'))\n{OURS}\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
