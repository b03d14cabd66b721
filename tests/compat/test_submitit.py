"""The private APIs of submitit exist, and return the script that it would submit."""

import pytest
from moved import assert_has

from warmstart.compat.submitit import submission_script

slurm = pytest.importorskip("submitit.slurm.slurm")


def test_submission_script_has_options_and_array(tmp_path):
    for name in ("_convert_parameters", "_make_submission_file_text", "_submitit_command_str"):
        assert_has(slurm.SlurmExecutor, name, "submitit", "1.5.4")

    class Anywhere(slurm.SlurmExecutor):
        @classmethod
        def affinity(cls):
            return 1

    script = submission_script(Anywhere(tmp_path), {"mem_gb": 4, "timeout_min": 30}, 3)
    assert "#SBATCH --mem=4GB" in script
    assert "#SBATCH --time=30" in script
    assert "#SBATCH --array=0-2" in script
    assert "-m submitit.core._submit" in script
    assert "--array" not in submission_script(Anywhere(tmp_path), {"timeout_min": 30}, 1)
