"""The documentation site builds without network, and its pages fit a wide and a narrow browser window."""

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# In CI these tests must not be skipped.
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None and "CI" not in os.environ, reason="mkdocs is not installed"
)
needs_browser = pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    # Nothing listens on this proxy, so any request to the network fails.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | nowhere | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def address(site):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def _pages(site):
    return sorted(path.parent.relative_to(site).as_posix() for path in site.rglob("index.html"))


def test_every_page_is_built(site):
    sources = [path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")]
    pages = {page.parent if page.name == "index" else page for page in sources}
    assert {page.as_posix() for page in pages} == set(_pages(site))


def test_the_api_page_has_signatures(site):
    page = (site / "reference" / "python_api" / "index.html").read_text(encoding="utf-8")
    for name in ("EncoderDecoderModel", "EncoderDecoderConfig", "training_loss", "from_encoder_decoder_pretrained"):
        assert f'{name}"' in page
    assert "label_smoothing" in page


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [1300, 420])
def test_pages_fit_the_window_and_load_nothing_from_other_hosts(site, address, width):
    from playwright.sync_api import sync_playwright

    problems = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("pageerror", lambda error: problems.append(f"{page.url}: {error}"))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("request", lambda it: None if it.url.startswith((address, "data:")) else problems.append(it.url))
        page.on("response", lambda it: problems.append(f"{it.status} {it.url}") if it.status >= 400 else None)
        for name in _pages(site):
            page.goto(f"{address}/{name}/", wait_until="load")
            if (found := page.evaluate("document.documentElement.scrollWidth")) > width:
                problems.append(f"{name} is {found} pixels wide")
            lost = "[...document.querySelectorAll('article img')].filter(i => !i.naturalWidth).map(i => i.src)"
            problems += page.evaluate(lost)
        if width > 1000:
            page.goto(address)
            found = page.locator(".md-search-result__item")
            deadline, patience = time.monotonic() + 120, 1000
            while not found.count() and time.monotonic() < deadline:  # the page ignores input until its index is loaded
                page.click("input.md-search__input", click_count=3)  # selects what was typed before
                page.keyboard.type("beam")
                page.wait_for_timeout(patience)
                patience *= 2  # each new input ends the search before it
            assert found.count()
        browser.close()
    assert problems == []
