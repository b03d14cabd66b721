"""The process that holds the model: it takes requests from LitServe's queue and summarizes them in batches."""

import logging
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import litserve

from warmstart.api.summarizer import Summarizer, by_length
from warmstart.config.schema import Config
from warmstart.data.hub_access import set_timeout
from warmstart.printing import escape_log_records
from warmstart.runs.explain import explain
from warmstart.runs.load import load_writer
from warmstart.runs.writer import Writer
from warmstart.serving.messages import FAILED, Job

_LOG_FORMAT = "[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"

_log = logging.getLogger(__name__)
Answer = dict[str, Any]


class Worker(litserve.LitAPI):
    """Summarizes requests. LitServe pickles it into the worker process, where ``setup`` loads the model.

    Args:
        settings: The config of the task.
        spec: The endpoints.
    """

    def __init__(self, settings: Config, spec: litserve.specs.base.LitSpec) -> None:
        serve = settings.serve
        super().__init__(
            max_batch_size=serve.max_batch_requests, batch_timeout=serve.wait_milliseconds / 1000, spec=spec
        )
        self.settings = settings
        processes = multiprocessing.get_context("spawn")
        self.reason: Any = processes.SimpleQueue()
        """Why the model cannot be loaded, for the user."""
        self.was_ready: Any = processes.Event()
        """Set when the service has started: a later failure to load the model is logged."""

    def setup(self, device: str) -> None:
        """Load the model.

        Args:
            device: Not used: ``load_writer`` chooses it, as for all tasks.
        """
        end_with_the_service()
        set_timeout()
        configure_logging()
        try:
            model, tokenizers = load_writer(self.settings)
        except Exception as error:
            if (message := explain(error)) is None:
                raise
            if self.was_ready.is_set():
                _log.error("%s", message)
            else:
                self.reason.put(message)
            sys.exit(2)
        self.writer = Writer(model, tokenizers, self.settings)
        self.summarizer = Summarizer(self.writer)
        # A copy, because the streams use the other one in threads.
        self.target = deepcopy(tokenizers.target)

    def predict(self, jobs: Sequence[Job]) -> Iterator[list[Answer | None]]:
        """Summarize jobs, in batches of at most ``serve.max_batch_tokens``.

        Args:
            jobs: The jobs that LitServe took from its queue together.

        Yields:
            A list with an entry for each job: its next answer, or None. An answer has ``piece`` (a part of a streamed
            summary), ``error`` or ``summary``; the last two end the job.
        """
        texts = [self.writer.clean(job.text) for job in jobs]
        ids = [self.writer.encode(text) for text in texts]
        about: list[Answer] = [
            {"source_tokens": len(of_text), "truncated": not self.writer.reads_whole(text)}
            for text, of_text in zip(texts, ids, strict=True)
        ]
        whole = [i for i, job in enumerate(jobs) if not job.stream]
        budget = self.settings.serve.max_batch_tokens
        for batch in by_length([ids[i] for i in whole], budget, self.writer.positions):
            chosen = [whole[i] for i in batch]
            found = self._summaries([jobs[i].text for i in chosen])
            size = {
                "batch_requests": len(chosen),
                "batch_tokens": len(chosen) * max(self.writer.positions(ids[i]) for i in chosen),
            }
            answers = {i: one | about[i] for i, one in zip(chosen, found, strict=True)}
            answers[chosen[0]] |= size  # once for each batch
            yield [answers.get(i) for i in range(len(jobs))]
        streams = {i: self._pieces(job.text, about[i]) for i, job in enumerate(jobs) if job.stream}
        while streams:
            answers = {i: next(stream) for i, stream in streams.items()}
            yield [answers.get(i) for i in range(len(jobs))]
            streams = {i: stream for i, stream in streams.items() if "piece" in answers[i]}

    def encode_response(self, output: Iterator[list[Answer | None]]) -> Iterator[list[Answer | None]]:
        """Pass the answers on: LitServe expects a generator."""
        yield from output

    def _summaries(self, texts: list[str]) -> list[Answer]:
        try:
            found = self.summarizer(texts, batch_tokens=self.settings.serve.max_batch_tokens)
        except Exception:  # noqa: BLE001 - one failed batch must not end the service
            _log.exception("A batch of %d texts failed.", len(texts))
            return [{"error": FAILED} for _ in texts]
        return [self._whole(summary) for summary in found]

    def _pieces(self, text: str, about: Answer) -> Iterator[Answer]:
        pieces = []
        try:
            for piece in self.summarizer.stream(text):
                pieces.append(piece)
                yield {"piece": piece}
        except Exception:  # noqa: BLE001 - one failed stream must not end the service
            _log.exception("A stream failed.")
            yield {"error": FAILED}
        else:
            yield self._whole("".join(pieces)) | about

    def _whole(self, summary: str) -> Answer:
        tokens = self.target(summary, add_special_tokens=False)["input_ids"]
        return {"summary": summary, "summary_tokens": len(tokens)}


def configure_logging() -> None:
    """Send the log of this process to standard error, in warmstart's format; texts are never logged."""
    escape_log_records()
    logging.basicConfig(format=_LOG_FORMAT)
    litserve.configure_logging(logging.WARNING, format=_LOG_FORMAT, stream=sys.stderr)


def end_with_the_service() -> None:
    """End this process when the service has ended without ending it, for example killed: a thread waits for that."""
    threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
