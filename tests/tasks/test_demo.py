"""The demo's page: what it shows, whom it answers, how much it takes; texts that try to be HTML, in a real browser."""

import http.client
import os
import shutil
import socket
import struct
import threading
import time
from contextlib import contextmanager
from html import unescape
from urllib.parse import urlencode

import pytest

from warmstart.errors import UserError
from warmstart.runs.load import load_trained
from warmstart.tasks import demo, fit

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ATTACK = "</textarea></title><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">&amp;"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
POST = b"\r\n".join(
    (
        *(b"POST / HTTP/1.1", b"Host: 127.0.0.1:%d", b"Content-Type: application/x-www-form-urlencoded"),
        *(b"Content-Length: 1000", b"", b""),
    )
)


@contextmanager
def serving(summarize, model="a-model", host="127.0.0.1"):
    server = demo.DemoServer((host, 0), summarize, model, "num_beams=2")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask(server, form=None, *, method="POST", path="/", body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if form is not None:
        body, sent = urlencode(form), FORM | sent
    connection.request(method, path, body, sent)
    answer = connection.getresponse()
    return answer, answer.read().decode()


def echo(document):
    return document.upper(), "The model read 3 tokens.", document


def test_a_trained_run_summarizes_beside_the_first_sentences(settings_of, tmp_path):
    fit.run(settings_of("debug=tiny"), tmp_path)
    settings = settings_of("debug=tiny")
    model, tokenizers, _ = load_trained(str(tmp_path))
    summarize = demo.summarizer(model, tokenizers, settings)
    document = "The river rose on Monday. The bridge was closed. Nobody was hurt. It rains."
    with serving(summarize, str(tmp_path)) as server:
        _, empty = ask(server, method="GET")
        answer, page = ask(server, {"document": document, "reference": "The bridge was closed on Monday."})
        _, long = ask(server, {"document": "word " * 5000})
    assert str(tmp_path) in empty
    assert "num_beams=2" in empty
    assert "results" not in empty
    assert answer.status == 200
    assert summarize(document)[0] in unescape(page)
    assert "The river rose on Monday.\nThe bridge was closed.\nNobody was hurt.</p>" in page
    assert page.count("rouge1 ") == 3
    assert "the rest of the text was not read" in long
    assert "the rest of the text was not read" not in page


def test_a_reference_that_rouge_cannot_read_gives_no_score_and_a_reason():
    form = {"document": "The river rose. It rained.", "reference": "दिल्ली में 3 बजे वर्षा"}
    with serving(echo) as server:
        _, page = ask(server, form)
        _, german = ask(server, form | {"reference": "Die Brücke am Fluss bleibt bis Montag gesperrt."})
    assert "rouge1 " not in page
    assert "No ROUGE: it reads only the letters a to z, and would ignore 100% of the reference" in unescape(page)
    assert "THE RIVER ROSE." in page
    assert german.count("rouge1 ") == 3
    assert "No ROUGE" not in german


def test_the_overlap_is_that_of_the_language():
    document, reference = "今天上海下了大雨。很多地铁停运。", "上海下大雨"
    _, first, _ = demo.compared(document, "上海下大雨", reference, "zh")
    assert first["text"] == "今天上海下了大雨。"
    assert demo.compared(document, "上海下大雨", reference, "zh")[0]["rouge"].startswith("rouge1 100.0")
    assert demo.no_score(reference, "zh") == ""
    assert demo.no_score(reference, "en").startswith("No ROUGE")


def test_a_text_is_cleaned_as_the_documents_of_the_run_were(settings_of, tmp_path):
    fit.run(settings_of("debug=tiny"), tmp_path)
    model, tokenizers, _ = load_trained(str(tmp_path))
    plain = demo.summarizer(model, tokenizers, settings_of("debug=tiny"))
    cleaning = demo.summarizer(model, tokenizers, settings_of("debug=tiny", "data.clean=[strip_cnn_dateline]"))
    text = "The river rose on Monday. The bridge was closed."
    dated = f"LONDON, England (CNN) -- {text}"
    assert cleaning(dated) == plain(text)
    assert plain(dated)[1:] != plain(text)[1:]
    with serving(cleaning, str(tmp_path)) as server:
        _, page = ask(server, {"document": dated})
    assert "The river rose on Monday.</p>" in page  # lead-1, as the evaluation takes it
    assert page.count("LONDON") == 1  # the form alone


def test_numbers_and_steps_that_cannot_work_are_refused_before_the_model_is_loaded(settings_of, tmp_path):
    chosen = ["task=demo", f"ckpt={tmp_path / 'absent'}"]
    with pytest.raises(UserError, match=r"generation\.num_beams=0") as refused:
        demo.run(settings_of(*chosen, "generation.num_beams=0", "generation.max_new_tokens=0"), tmp_path)
    assert "generation.max_new_tokens=0" in str(refused.value)
    with pytest.raises(UserError, match="no_such_step"):
        demo.run(settings_of(*chosen, "data.clean=[no_such_step]"), tmp_path)


def test_foreign_names_and_forms_are_refused():
    with serving(echo) as server:
        own = f"127.0.0.1:{server.server_port}"
        for foreign in ("evil.example", f"evil.example:{server.server_port}", "127.0.0.1", ""):
            for method in ("GET", "POST"):
                answer, page = ask(server, {"document": "secret"}, method=method, Host=foreign)
                assert answer.status == 403
                assert "SECRET" not in page
        for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}):
            assert ask(server, {"document": "secret"}, **headers)[0].status == 403
        assert ask(server, {"document": "a"}, Origin=f"http://{own}", Sec_Fetch_Site="same-origin")[0].status == 200
        answer, _ = ask(server, method="GET")
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_only_forms_of_a_bounded_size_are_read():
    with serving(echo) as server:
        for times in (1, 4):  # it is heard out: else the browser shows a broken connection, not the page
            assert ask(server, {"document": "a" * demo.LARGEST * times})[0].status == 413
        assert ask(server, method="POST", Content_Length="9" * 40)[0].status == 413
        assert ask(server, method="POST", Content_Length="-1")[0].status == 411
        assert ask(server, method="POST", body="document=a", Content_Type="text/plain")[0].status == 415
        many = "&".join(f"a{i}=1" for i in range(1000))
        for body in ("document=\u00e4".encode(), "document=%00", "document=%ff", "document=+", "", many):
            answer, page = ask(server, method="POST", body=body, **{"Content_Type": FORM["Content-Type"]})
            assert answer.status == 400
            assert 'id="error"' in page
        assert ask(server, method="GET", path="/../../etc/passwd")[0].status == 404
        assert ask(server, {"document": "still there"})[0].status == 200


def test_slow_senders_hold_no_connection_beyond_the_deadline(monkeypatch):
    monkeypatch.setattr(demo, "SECONDS", 1.0)
    with serving(echo) as server:
        starts = (b"", b"GET / HTTP/1.1\r\nX: ", POST % server.server_port)  # cut in the first line, a header, the text
        senders = [socket.create_connection(server.server_address, timeout=30) for _ in range(demo.CONNECTIONS)]
        for i, sender in enumerate(senders):
            sender.sendall(starts[i % len(starts)])
        held = set(senders)
        for _ in range(300):  # a byte from each, again and again
            for sender in list(held):
                try:
                    sender.sendall(b"a")
                except OSError:
                    held.remove(sender)
            if not held:
                break
            time.sleep(0.1)
        assert not held
        assert ask(server, {"document": "a"})[0].status == 200


def test_a_text_that_does_not_arrive_whole_is_not_summarized():
    with serving(echo) as server, socket.create_connection(server.server_address, timeout=30) as client:
        client.sendall(POST % server.server_port + b"document=half")
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(2**16), b""))
    assert b" 400 " in answer.splitlines()[0]
    assert b"HALF" not in answer


def test_browsers_leave_port_80_out_of_the_name(monkeypatch):
    with serving(echo) as server:
        monkeypatch.setattr(demo, "HTTP_PORT", server.server_port)  # the real 80 may not be ours to take
        for name in ("127.0.0.1", "localhost"):
            assert ask(server, {"document": "a"}, Host=name, Origin=f"http://{name}")[0].status == 200
        assert ask(server, method="GET", Host="evil.example")[0].status == 403


def test_clients_that_leave_write_nothing(capfd, caplog):
    with serving(lambda document: (document * 10**6, "", document)) as server:
        for left in (
            b"",
            b"GET",
            b"GET / HTTP/1.1\r\n",
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % server.server_port,
        ):
            client = socket.create_connection(server.server_address, timeout=30)
            client.sendall(left)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
            client.close()
        client = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        client.request("POST", "/", urlencode({"document": "long " * 9}), FORM)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sock.close()
        assert ask(server, {"document": "a"})[0].status == 200
        for _ in range(demo.CONNECTIONS):  # every handler has ended
            assert server.connections.acquire(timeout=30)
    assert capfd.readouterr().err == ""
    assert caplog.text == ""


def test_one_summary_at_a_time_and_few_that_wait():
    running, most, let_go = 0, 0, threading.Event()

    def slow(document):
        nonlocal running, most
        running += 1
        most = max(most, running)
        let_go.wait(60)
        running -= 1
        return echo(document)

    found = []
    with serving(slow) as server:
        threads = [
            threading.Thread(target=lambda: found.append(ask(server, {"document": "a"})[0].status))
            for _ in range(demo.WAITING + 3)
        ]
        for thread in threads:
            thread.start()
        while len(found) < 3:  # those that are turned away
            time.sleep(0.01)
        let_go.set()
        for thread in threads:
            thread.join()
    assert sorted(found) == [200] * demo.WAITING + [503] * 3
    assert most == 1


def test_a_failure_is_said_and_the_next_text_is_taken(caplog):
    def failing(document):
        if document == "bad":
            raise RuntimeError("secret path")
        return echo(document)

    with serving(failing) as server:
        answer, page = ask(server, {"document": "bad"})
        assert answer.status == 500
        assert "secret path" not in page
        assert "secret path" in caplog.text
        assert ask(server, {"document": "good"})[0].status == 200


def test_what_it_needs_is_said(settings_of, tmp_path):
    assert settings_of().host == "127.0.0.1"
    with pytest.raises(UserError, match="ckpt="):
        demo.run(settings_of("task=demo"), tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="no Chromium is installed")
def test_texts_stay_texts_in_a_browser():
    from playwright.sync_api import sync_playwright

    assert CHROMIUM is not None
    with serving(lambda document: (ATTACK, ATTACK, ATTACK), ATTACK) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        said = []
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        url = f"http://127.0.0.1:{server.server_port}/"
        page.goto(url)
        page.get_by_label("Text").fill(ATTACK)
        page.get_by_label("Reference").fill(ATTACK)
        page.get_by_role("button", name="Summarize").click()
        page.wait_for_selector("#results")
        assert page.title() == f"Summaries by {ATTACK}"
        assert page.locator("#results .text").first.inner_text() == ATTACK
        assert page.get_by_label("Text").input_value() == ATTACK
        assert page.locator("script, img").count() == 0
        assert set(asked) <= {url, f"{url}favicon.ico"}
        assert [line for line in said if "favicon" not in line and "404" not in line] == []
        browser.close()
