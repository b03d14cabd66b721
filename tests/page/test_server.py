"""Whom the server answers, how much it takes, and how long it waits; with an application that echoes."""

import asyncio
import http.client
import json
import os
import socket
import struct
import threading
import time
from contextlib import contextmanager

import pytest

from warmstart.errors import UserError
from warmstart.page import guard

if "CI" not in os.environ:
    pytest.importorskip("uvicorn")
from warmstart.page import server as served

JOIN = "/gradio_api/queue/join"
POST = b"\r\n".join(
    (
        b"POST /gradio_api/queue/join HTTP/1.1",
        *(b"Host: 127.0.0.1:%d", b"Content-Type: application/json", b"Content-Length: 1000", b"", b""),
    )
)


async def echo(scope, receive, send):
    """Answer with the body in upper case; the path / with a megabyte."""
    if scope["type"] != "http":
        return
    body = b"a" * 2**20 if scope["path"] == "/" else (await receive())["body"].upper()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def serving(host="127.0.0.1", app=echo):
    with served.opened("127.0.0.1", 0) as listening:
        server = served.server_of(app, listening, host)
        server.config.lifespan = "off"
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
        thread.start()
        try:
            server.port = listening.getsockname()[1]
            yield server
        finally:
            server.should_exit = True
            thread.join()


def ask(server, body=None, *, method="POST", path=JOIN, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    sent = {"Content-Type": "application/json"} if body is not None else {}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, sent)
    answer = connection.getresponse()
    return answer, answer.read()


def test_foreign_names_and_sites_are_refused():
    with serving() as server:
        own = f"127.0.0.1:{server.port}"
        for foreign in ("evil.example", f"evil.example:{server.port}", "127.0.0.1", ""):
            for method, path in (("GET", "/"), ("POST", JOIN)):
                answer, body = ask(server, b"secret", method=method, path=path, Host=foreign)
                assert answer.status == 403
                assert b"SECRET" not in body
        for headers in (
            *({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": f"http://localhost:{server.port}"}),
            *({"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}),
        ):
            assert ask(server, b"secret", **headers)[0].status == 403
        assert ask(server, method="GET", path="/gradio_api/queue/data", Sec_Fetch_Site="cross-site")[0].status == 403
        assert ask(server, method="GET", path="/", Sec_Fetch_Site="cross-site")[0].status == 200  # a link leads here
        answer, body = ask(server, b"own", Origin=f"http://{own}", Sec_Fetch_Site="same-origin")
        assert (answer.status, body) == (200, b"OWN")
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_an_open_server_answers_to_any_name_but_not_to_other_sites():
    with serving("0.0.0.0") as server:
        assert ask(server, b"a", Host="my.example")[0].status == 200
        assert ask(server, b"a", Host="my.example", Origin="https://my.example")[0].status == 200
        assert ask(server, b"a", Host="my.example", Origin="http://evil.example")[0].status == 403


def test_browsers_leave_port_80_out_of_the_name(monkeypatch):
    with serving() as server:
        monkeypatch.setattr(guard, "HTTP_PORT", server.port)  # the real 80 may not be free
        hosts = guard.Guard(echo, "127.0.0.1", server.port).hosts
    assert {"127.0.0.1", "localhost"} < hosts
    assert "127.0.0.1" not in guard.Guard(echo, "127.0.0.1", 7860).hosts


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", "/gradio_api/file=/etc/passwd"), ("GET", "/gradio_api/proxy=http://evil.example/")),
        *(("POST", "/gradio_api/upload"), ("POST", "/gradio_api/vibe-edit"), ("POST", "/gradio_api/run/predict")),
        *(("GET", "/../../etc/passwd"), ("GET", "/monitoring"), ("PUT", JOIN), ("DELETE", "/")),
    ],
)
def test_only_the_paths_of_the_page_exist(method, path):
    with serving() as server:
        assert ask(server, method=method, path=path)[0].status == 404


def test_only_json_of_a_bounded_size_is_read():
    with serving() as server:
        for times in (1, 4):  # it is read to its end: else the browser shows a broken connection, not the reason
            answer, body = ask(server, b"a" * (guard.LARGEST * times + 1))
            assert answer.status == 413
            assert json.loads(body) == {"detail": "The text is too long. The limit is 1,048,576 bytes."}
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
            assert ask(server, b"a", Content_Type=kind)[0].status == 415
        assert ask(server, b"still there")[0].status == 200


def test_slow_senders_hold_no_connection_beyond_the_deadline(monkeypatch):
    monkeypatch.setattr(guard, "SECONDS", 1.0)
    with serving() as server:
        starts = (b"", b"GET / HTTP/1.1\r\nX: ", POST % server.port)  # cut in the first line, a header, the text
        senders = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in range(served.CONNECTIONS)]
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
        assert ask(server, b"a")[0].status == 200


def test_further_connections_are_closed(monkeypatch):
    monkeypatch.setattr(served, "CONNECTIONS", 3)
    with serving() as server:
        held = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in range(4)]
        assert held[3].recv(1) == b""
        held[0].close()
        for _ in range(100):  # the server sees the end a moment later
            try:
                assert ask(server, b"a")[0].status == 200
                break
            except (ConnectionError, http.client.HTTPException):
                time.sleep(0.1)
        else:
            pytest.fail("the server does not answer")
        for one in held:
            one.close()


def test_a_text_that_does_not_arrive_whole_is_not_passed_on():
    passed = []

    async def app(scope, receive, send):
        passed.append(await receive())

    with serving(app=app) as server, socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(POST % server.port + b"half")
        client.shutdown(socket.SHUT_WR)
        b"".join(iter(lambda: client.recv(2**16), b""))
    assert passed == []


def test_clients_that_leave_write_nothing(capfd, caplog):
    with serving() as server:
        for left in (b"", b"GET", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % server.port):
            client = socket.create_connection(("127.0.0.1", server.port), timeout=30)
            client.sendall(left)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
            client.close()
        assert ask(server, b"a")[0].status == 200
    assert capfd.readouterr().err == ""
    assert caplog.text == ""


def test_a_port_in_use_is_reported():
    with served.opened("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(UserError, match=f"port={port} cannot be opened .*port=0"):
            served.opened("127.0.0.1", port)
    with pytest.raises(UserError, match="cannot be opened"):
        served.opened("127.0.0.1", 70000)
