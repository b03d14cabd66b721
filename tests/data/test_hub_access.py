"""The hub client's timeout in the process of a task."""

import os
import subprocess
import sys

import pytest

TASK = """
import sys
from warmstart.cli.main import main

sys.argv = ["run.py", "task=check", "encoder=bert", "decoder=gpt2", "debug=tiny"]
main()
# Not imported here, so that the test fails if tasks stop importing the hub client.
print("seconds:", sys.modules["huggingface_hub.constants"].HF_HUB_ETAG_TIMEOUT)
"""


@pytest.mark.parametrize(("given", "used"), [({}, 5), ({"HF_HUB_ETAG_TIMEOUT": "30"}, 30)], ids=["ours", "the user's"])
def test_a_task_uses_the_timeout(given, used, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_ETAG_TIMEOUT"} | given
    found = subprocess.run(
        [sys.executable, "-c", TASK], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.splitlines()[-1] == f"seconds: {used}"
