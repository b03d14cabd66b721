"""Restore the settings of libraries that a task changes for its whole process."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def library_settings_restored() -> Iterator[None]:
    """Restore transformers' verbosity and progress bars, and torch's number of threads, at the end of the context."""
    import torch
    from transformers import logging

    verbosity, bars, threads = logging.get_verbosity(), logging.is_progress_bar_enabled(), torch.get_num_threads()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        (logging.enable_progress_bar if bars else logging.disable_progress_bar)()
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
