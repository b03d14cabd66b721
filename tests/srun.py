"""A stand-in for srun: a bash function that starts two tasks on this machine, with SLURM's environment variables."""

import socket

_SRUN = """
srun() {
  export SLURM_JOB_ID=7 SLURM_JOB_NAME=s SLURM_NTASKS=2 SLURM_STEP_NUM_TASKS=2 SLURM_NTASKS_PER_NODE=2
  export SLURM_JOB_NUM_NODES=1 SLURM_NNODES=1 SLURM_STEP_NUM_NODES=1 SLURM_NODEID=0 SLURM_NODELIST=127.0.0.1
  export MASTER_PORT=@PORT@
  SLURM_PROCID=1 SLURM_LOCALID=1 "$@" &
  SLURM_PROCID=0 SLURM_LOCALID=0 "$@" && wait $!
}
"""


def srun_of_two_tasks() -> str:
    """Return the text of the function, with a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return _SRUN.replace("@PORT@", str(free.getsockname()[1]))
