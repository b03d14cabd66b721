"""Private APIs of submitit, checked in 1.5.4."""

from typing import Any


def submission_script(executor: Any, parameters: dict[str, Any], jobs: int) -> str:
    """Return the sbatch script that a ``SlurmExecutor`` would submit.

    Uses ``_convert_parameters``, ``_make_submission_file_text`` and ``_submitit_command_str``: the public methods
    submit the jobs.

    Args:
        executor: The executor.
        parameters: Its parameters, by their public names.
        jobs: Number of jobs.
    """
    executor.update_parameters(**executor._convert_parameters(parameters))
    if jobs > 1:
        executor.parameters["map_count"] = jobs
    script: str = executor._make_submission_file_text(executor._submitit_command_str, "")
    return script
