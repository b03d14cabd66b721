"""The batch script asks for a task for each device, and its command is the fit that was asked for."""

import shlex


def test_the_script_runs_this_fit_and_comes_back(run_py, tmp_path):
    words = ("debug=tiny", "name=mine", "trainer.devices=8", "trainer.strategy=ddp", "trainer.accelerator=gpu")
    outcome = run_py("task=sbatch", *words, "trainer.nodes=2", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    lines = outcome.stdout.splitlines()
    wanted = ("nodes=2", "ntasks-per-node=8", "gpus-per-node=8", "signal=USR1@120", "requeue", "job-name=mine")
    assert {f"#SBATCH --{option}" for option in wanted} <= set(lines)
    srun, _, script, *found = shlex.split(lines[-1])
    assert (srun, script[-6:]) == ("srun", "run.py")
    assert found == [*words, "trainer.nodes=2"]


def test_it_needs_a_name_and_a_sound_config(run_py, tmp_path):
    for words, said in (((), "needs name="), (("name=x", "optim.encoder_rate=-1"), "cannot be negative")):
        outcome = run_py("task=sbatch", "debug=tiny", *words, cwd=tmp_path)
        assert outcome.returncode == 2
        assert said in outcome.stderr
