"""The endpoints ``/summarize`` and ``/stream``: they put a text into LitServe's queue and wait for the answers."""

import asyncio
import json
import time
import uuid
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import HTTPException
from fastapi.responses import StreamingResponse
from litserve.specs.base import LitSpec
from litserve.utils import LitAPIStatus, ResponseBufferItem

from warmstart.config.serving import ServeSettings
from warmstart.data.sources.bad_rows import BadText, text_of
from warmstart.serving.messages import FAILED, Job, Summary, Text
from warmstart.serving.metrics import Metrics

SUMMARIZE, STREAM = "/summarize", "/stream"
CRASHED = "The process that summarizes has ended. It is restarted; try again when /health answers ok."
_OF_METRICS = ("batch_requests", "batch_tokens")


def timed_out(seconds: float) -> str:
    """Return the sentence of status 504."""
    return f"The summary was not ready within {seconds:g} seconds. Try again later, or send a shorter text."


class Endpoints(LitSpec):
    """Both endpoints, for one worker: LitServe would load a model for each.

    Args:
        settings: The group ``serve`` of the config.
        metrics: What is counted.
    """

    def __init__(self, settings: ServeSettings, metrics: Metrics) -> None:
        super().__init__()
        self.settings = settings
        self.metrics: Metrics | None = metrics
        self.api_path = SUMMARIZE
        self.add_endpoint(SUMMARIZE, self.summarize, ["POST"])
        self.add_endpoint(STREAM, self.stream_pieces, ["POST"])

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to the process of the endpoints: the worker gets the rest."""
        return super().__getstate__() | {"metrics": None, "response_buffer": None}

    @property
    def stream(self) -> bool:
        """True: the worker sends each answer as soon as it has it, also those of ``/summarize``."""
        return True

    def decode_request(self, request: Job, context_kwargs: Any = None) -> Job:
        """Return the job as it is."""
        return request

    def encode_response(self, output: Any, context_kwargs: Any = None) -> Any:
        """Return the answers as they are."""
        return output

    # The next two docstrings are the descriptions of the OpenAPI page.
    async def summarize(self, request: Text) -> Summary:
        """Summarize a text; texts that arrive together share batches."""
        async with aclosing(self._answers(request, stream=False)) as answers:
            return Summary(**await anext(answers))

    async def stream_pieces(self, request: Text) -> StreamingResponse:
        """Summarize a text by greedy search, and send each piece of the summary as soon as it is certain.

        The response has a JSON object in each line: `{"piece": "..."}` for each piece, then a line as `/summarize`
        returns it, or `{"error": "..."}`. A response without such a last line is not whole.
        """
        answers = self._answers(request, stream=True)
        first = await anext(answers)  # an error before the first piece has a status of its own

        async def lines() -> AsyncIterator[str]:
            async with aclosing(answers):
                yield json.dumps(first) + "\n"
                try:
                    async for answer in answers:
                        yield json.dumps(answer) + "\n"
                except HTTPException as error:
                    yield json.dumps({"error": error.detail}) + "\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def _answers(self, request: Text, *, stream: bool) -> AsyncGenerator[dict[str, Any]]:
        """Yield the answers of the worker.

        Raises:
            HTTPException: The text is refused, or the worker has failed.
        """
        limit = self.settings.max_text_characters
        if len(request.text) > limit:
            raise HTTPException(
                413, f"The text has {len(request.text):,} characters. The limit is {limit:,}: send a shorter one."
            )
        try:
            text = text_of(request.text, "text")
        except BadText as error:
            raise HTTPException(422, f"The request {error}. Send some text.") from error
        uid, item = str(uuid.uuid4()), ResponseBufferItem(asyncio.Event(), deque())
        self.response_buffer[uid] = item
        self.request_queue.put((self.response_queue_id, uid, time.monotonic(), Job(text, stream)))
        try:
            async for data, status in self.data_streamer(item.response_queue, item.event, send_status=True):
                if status == LitAPIStatus.ERROR:
                    raise self._error(data)
                if data is None:  # an answer to another job of the same batch
                    continue
                answer = json.loads(data)
                if "error" in answer:
                    raise HTTPException(500, answer["error"])
                assert self.metrics is not None
                self.metrics.answered(answer)
                yield {name: value for name, value in answer.items() if name not in _OF_METRICS}
                if "piece" not in answer:
                    return
            raise HTTPException(500, CRASHED)
        finally:
            self.response_buffer.pop(uid, None)

    def _error(self, data: Any) -> HTTPException:
        if isinstance(data, HTTPException) and data.status_code == 504:  # it waited too long in LitServe's queue
            return HTTPException(504, timed_out(self.settings.timeout_seconds))
        return HTTPException(500, CRASHED if data is None else FAILED)
