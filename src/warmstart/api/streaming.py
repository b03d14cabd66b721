"""Yield a summary while it is generated, in pieces that later tokens do not change."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from transformers.generation.streamers import BaseStreamer

_LONGEST_WORD = 30  # characters; a longer text without a blank, as in Chinese, is yielded without waiting for one


class _Stopped(Exception):
    """The reader of the pieces has stopped, so the search ends."""


class _Tokens(BaseStreamer):
    """Passes the ids of one text from the search to a reader in another thread; None ends them."""

    def __init__(self) -> None:
        self.ids: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self.stopped = False

    def put(self, value: Any) -> None:
        """Pass new ids on."""
        if self.stopped:
            raise _Stopped
        for i in value.reshape(-1).tolist():
            self.ids.put(i)

    def end(self) -> None:
        """Do nothing: the thread of the search passes the end on, also after an error."""


def stream(
    generate: Callable[[BaseStreamer], Any], decode: Callable[[list[int]], str], start_length: int = 1
) -> Iterator[str]:
    """Yield the pieces of a text; joined, they are the whole text.

    Args:
        generate: Runs the search with a streamer. It runs in a thread of its own, and ends when the iterator is closed.
        decode: Decodes all ids so far, without the start token.
        start_length: Number of ids before the text: the start token and a prompt.
    """
    tokens, failed = _Tokens(), list[BaseException]()

    def search() -> None:
        try:
            generate(tokens)
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in the reader's thread
            failed.append(error)
        finally:
            tokens.ids.put(None)

    thread = threading.Thread(target=search, name="warmstart-stream", daemon=True)
    thread.start()
    try:
        ids: list[int] = []
        yielded, before = "", ""
        for _ in range(start_length):
            if tokens.ids.get() is None:  # the end of a search that failed at once
                tokens.ids.put(None)
                break
        while not failed and (token := tokens.ids.get()) is not None:
            ids.append(token)
            text = decode(ids)
            stable, before = _stable(before, text), text
            if stable.startswith(yielded) and len(stable) > len(yielded):
                yield stable[len(yielded) :]
                yielded = stable
        if failed:
            raise failed[0]
        if rest := before[len(yielded) :]:
            yield rest
    finally:
        tokens.stopped = True
        thread.join()


def _stable(before: str, text: str) -> str:
    """Return the start that two decoded texts share, without its last word, which later tokens may still change."""
    shared = next(
        (i for i, (a, b) in enumerate(zip(before, text, strict=False)) if a != b), min(len(before), len(text))
    )
    blank = text.rfind(" ", 0, shared)
    return text[: shared if shared - blank > _LONGEST_WORD else max(blank, 0)]
