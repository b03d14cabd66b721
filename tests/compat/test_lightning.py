"""The private APIs of Lightning exist, and the trainer still calls them."""

import inspect

import lightning as L
from lightning.fabric.strategies.launchers import subprocess_script as of_fabric
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.strategies.launchers import subprocess_script as of_trainer
from moved import assert_has

from warmstart.compat import lightning as compat

READ_IN = "2.6.6"


def has(owner, name):
    assert_has(owner, name, "lightning", READ_IN)


def test_sigterm_broadcast_is_skipped():
    has(_TrainingEpochLoop, "_broadcast_sigterm_tensor")
    assert "self._broadcast_sigterm_tensor()" in inspect.getsource(_TrainingEpochLoop.advance), (
        "Lightning's training loop asks the ranks for SIGTERM in another way: see skip_sigterm_broadcast."
    )
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    compat.skip_sigterm_broadcast(trainer)
    assert trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor() is None


def test_loggers_get_the_step_that_was_set():
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    has(trainer.fit_loop.epoch_loop, "_batches_that_stepped")
    compat.set_logged_step(trainer, 41)
    assert trainer.fit_loop.epoch_loop._batches_that_stepped == 41
    source = inspect.getsource(inspect.getmodule(type(trainer._logger_connector)))
    assert "_batches_that_stepped" in source, (
        "Lightning's loggers take their step from elsewhere: see set_logged_step in compat/lightning.py."
    )


def test_process_observer_is_replaced_and_restored():
    before = []
    for module in (of_trainer, of_fabric):
        has(module, "_launch_process_observer")
        before.append(module._launch_process_observer)
        assert "_launch_process_observer(self.procs)" in inspect.getsource(module), (
            f"{module.__name__} starts its watch of ranks in another way: see process_observer in compat/lightning.py."
        )
    with compat.process_observer(print):
        assert of_trainer._launch_process_observer is of_fabric._launch_process_observer is print
    assert [of_trainer._launch_process_observer, of_fabric._launch_process_observer] == before
