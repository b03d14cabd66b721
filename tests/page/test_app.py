"""The page in gradio: through its interface of HTTP, and in a real browser."""

import asyncio
import http.client
import json
import os
import shutil
import threading
from contextlib import contextmanager
from importlib.util import find_spec
from urllib.parse import urlsplit

import pytest
from page_texts import ATTACK, DOCUMENT

from warmstart.page import guard
from warmstart.tasks import demo

pytestmark = pytest.mark.skipif(
    find_spec("gradio") is None and "CI" not in os.environ, reason="the extra demo is not installed"
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="no Chromium is installed")


@contextmanager
def serving(menu):
    os.environ.update(demo.OFFLINE)
    from warmstart.page.app import application
    from warmstart.page.server import opened, server_of

    with opened("127.0.0.1", 0) as listening:
        server = server_of(application(menu), listening, "127.0.0.1")
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def _request(url, method, path, body=None):
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"} if body else {})
    answer = connection.getresponse()
    return answer.status, answer


def _join(url, session, *values):
    config = json.loads(_request(url, "GET", "/config")[1].read())
    number = next(one["id"] for one in config["dependencies"] if len(one["inputs"]) == 7)
    body = {"data": list(values), "fn_index": number, "session_hash": session}
    status, answer = _request(url, "POST", "/gradio_api/queue/join", body)
    return status, json.loads(answer.read())


def _events(url, session):
    """Yield the messages of a session until its request is complete."""
    _, answer = _request(url, "GET", f"/gradio_api/queue/data?session_hash={session}")
    for line in answer:
        if line.startswith(b"data:"):
            message = json.loads(line[5:])
            yield message
            if message["msg"] in ("process_completed", "close_stream"):
                return


def test_a_summary_is_streamed_over_http(menu, run):
    with serving(menu) as url:
        assert _join(url, "one", DOCUMENT, "town 7", str(run.folder), "none", 1, 4, 12)[0] == 200
        messages = list(_events(url, "one"))
    assert messages[-1]["msg"] == "process_completed"
    assert messages[-1]["success"]
    assert sum(message["msg"] == "process_generating" for message in messages) > 4
    assert "Traceback" not in json.dumps(messages)


def test_few_requests_wait_and_a_further_one_is_told(menu, run):
    from warmstart.page.app import WAITING

    with serving(menu) as url, menu.in_use:
        values = (DOCUMENT, "", str(run.folder), "none", 1, 4, 12)
        found = [_join(url, f"s{i}", *values) for i in range(WAITING + 3)]
    assert {status for status, _ in found[:WAITING]} == {200}
    assert found[-1][0] == 503
    assert "detail" in found[-1][1]


@contextmanager
def browsing(url, width, problems):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.set_default_timeout(120_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("request", lambda it: None if it.url.startswith((url, "data:")) else problems.append(it.url))
        page.on("response", lambda it: problems.append(f"{it.status} {it.url}") if it.status >= 400 else None)
        page.goto(url)
        page.get_by_role("button", name="Summarize").wait_for()
        yield page
        browser.close()


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [1300, 420])
def test_the_page_in_a_browser(menu, run, width):
    problems = []
    with serving(menu) as url, browsing(url, width, problems) as page:
        assert "Encoder bert, decoder gpt2" in page.inner_text(".ws-card")
        page.get_by_role("button", name="Summarize").click()
        assert page.locator(".ws-error").inner_text().startswith("There is no text.")

        text = page.get_by_role("textbox", name="Text")
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Open a text file").click()
        chooser.value.set_files({"name": "a.txt", "mimeType": "text/plain", "buffer": DOCUMENT.encode()})
        page.wait_for_function("document.querySelector('textarea').value.startsWith('The council')")
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Open a text file").click()
        chooser.value.set_files({"name": "b.txt", "mimeType": "text/plain", "buffer": b"\xff\xfea\0"})
        page.get_by_text("The file is not a text file in UTF-8.").wait_for()
        assert text.input_value() == DOCUMENT

        page.get_by_label("Reference summary").fill("town 7 school")
        page.get_by_label("Compare with").click()
        page.get_by_role("option", name="grafted").click()
        page.wait_for_selector(".ws-card >> nth=1")
        page.get_by_role("button", name="Summarize").click()
        page.wait_for_selector(".ws-result >> nth=2")  # two summaries and the baselines
        assert page.locator(".ws-baseline").first.inner_text() == DOCUMENT.partition(". ")[0] + "."
        assert "ROUGE-1 " in page.locator(".ws-result").last.inner_text()
        page.get_by_text("Done.").wait_for()
        words = page.locator(".ws-word[data-read]")
        words.first.hover()
        assert page.locator(".ws-read").count() > 0
        assert "read from: " in page.locator(".ws-line").first.inner_text()
        before = page.locator(".ws-line").first.inner_text()
        page.locator(".ws-word[tabindex='0']").first.focus()
        page.keyboard.press("ArrowRight")
        assert page.locator(".ws-line").first.inner_text() != before
        assert page.locator(".ws-read").count() > 0
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert problems == []


@needs_browser
@pytest.mark.slow
def test_texts_stay_texts_in_a_browser(menu_of, run, tmp_path):
    folder = tmp_path / "<img src=x onerror=\"document.title='owned'\">"
    shutil.copytree(run.folder / "export", folder)
    menu, problems = menu_of(), []
    menu.paths[0:1] = [str(folder)]
    with serving(menu) as url, browsing(url, 1300, problems) as page:
        page.get_by_role("textbox", name="Text").fill(ATTACK)
        page.get_by_label("Reference summary").fill(ATTACK)
        page.get_by_role("button", name="Summarize").click()
        page.wait_for_selector(".ws-result >> nth=1")
        assert page.title() == f"Summaries by {folder}"
        assert page.locator(".ws-text").text_content().replace("reading stopped here", "") == ATTACK
        assert page.locator("img").count() == 0
    assert problems == []


@needs_browser
@pytest.mark.slow
def test_a_text_that_is_too_long_is_explained_in_a_browser(menu, monkeypatch):
    monkeypatch.setattr(guard, "LARGEST", 2000)
    problems = []
    with serving(menu) as url, browsing(url, 1300, problems) as page:
        page.get_by_role("textbox", name="Text").fill("word " * 1000)
        page.get_by_role("button", name="Summarize").click()
        page.get_by_text("The text is too long. The limit is 2,000 bytes.").first.wait_for()
        page.get_by_role("textbox", name="Text").fill(DOCUMENT)
        page.get_by_role("button", name="Summarize").click()
        page.wait_for_selector(".ws-result >> nth=1")


@needs_browser
@pytest.mark.slow
def test_a_paste_that_is_too_long_never_reaches_the_box(menu):
    problems = []
    with serving(menu) as url, browsing(url, 1300, problems) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        box = page.get_by_role("textbox", name="Text")

        def paste(text):
            page.evaluate("text => navigator.clipboard.writeText(text)", text)
            box.focus()
            page.keyboard.press("Control+V")

        paste("word " * 300_000)
        page.get_by_text("The text is too long. The limit is 1,048,576 bytes.").wait_for()
        assert box.input_value() == ""
        paste(DOCUMENT)
        page.wait_for_function("document.querySelector('textarea').value.startsWith('The council')")
        assert page.get_by_text("The text is too long.").count() == 0
        page.get_by_role("button", name="Summarize").click()
        page.wait_for_selector(".ws-result >> nth=1")
    assert problems == []
