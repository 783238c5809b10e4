"""Who may ask: no other site, no other name, and elsewhere nobody without the token."""

from __future__ import annotations

import http.client
import json
from contextlib import closing

import pytest

from deep_piano.serve.safety import HEADER, Guard, is_this_machine_only
from tests.support import errands
from tests.support.serving import Serving, small_config

TOKEN = "a-token-of-a-test"


def errand_work(pipe, config):
    errands.work(pipe)


@pytest.fixture(scope="module")
def open_one(tmp_path_factory, weights, three_keys):
    config = small_config(weights, three_keys)
    server = Serving(tmp_path_factory.mktemp("open"), config, errand_work)
    yield server
    server.close()


@pytest.fixture(scope="module")
def locked(tmp_path_factory, weights, three_keys):
    config = small_config(weights, three_keys)
    server = Serving(tmp_path_factory.mktemp("locked"), config, errand_work, token=TOKEN)
    yield server
    server.close()


def changes(server):
    """Return what a request needs to change something."""
    return {HEADER: "1", "Cookie": server.cookie}


@pytest.mark.parametrize("path", ["/", "/api/state", "/api/events", "/page/page.js", "/no"])
@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.2:{port}",
     "127.0.0.1.evil.example:{port}", "LOCALHOST.:{port}", ""],
)  # fmt: skip
def test_a_foreign_host_is_refused(open_one, path, host):
    status, _, content = open_one.request("GET", path, Host=host.format(port=open_one.port))
    assert status == 403
    assert "not called so" in json.loads(content)["error"]


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "LocalHost:{port}"])
def test_its_own_names_are_answered(open_one, host):
    host = host.format(port=open_one.port)
    assert open_one.request("GET", "/", Host=host)[0] == 200
    assert open_one.request("GET", "/api/state", Host=host, Origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1", "http://localhost:{port}",
     "http://127.0.0.1:{port}.evil.example"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_a_foreign_origin_is_refused(open_one, origin, method):
    origin = origin.format(port=open_one.port)
    status, headers, _ = open_one.request(
        method, "/api/example", Origin=origin, **changes(open_one)
    )
    assert status == 403
    assert not [name for name in headers if name.startswith("Access-Control")]


def test_what_a_browser_says_of_another_site_counts(open_one):
    cross = {"Sec-Fetch-Site": "cross-site"}
    assert open_one.request("GET", "/api/state", **cross)[0] == 403
    assert open_one.request("GET", "/", **cross)[0] == 200  # a link leads to the page
    assert open_one.request("GET", "/api/state", **{"Sec-Fetch-Site": "same-origin"})[0] == 200


@pytest.mark.parametrize("left_out", [HEADER, "Cookie"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/example"), ("POST", "/api/seeds"), ("POST", "/api/pieces"),
     ("PATCH", "/api/pieces/0123456789abcdef"), ("DELETE", "/api/pieces/0123456789abcdef"),
     ("DELETE", "/api/jobs/0123456789abcdef")],
)  # fmt: skip
def test_a_change_needs_the_header_and_the_cookie(open_one, method, path, left_out):
    headers = changes(open_one)
    del headers[left_out]
    assert open_one.request(method, path, **headers)[0] == 403
    headers[left_out] = "deep_piano=wrong" if left_out == "Cookie" else "2"
    assert open_one.request(method, path, **headers)[0] == 403


def test_the_cookie_comes_with_the_page_and_stays_on_it(open_one):
    _, headers, _ = open_one.request("GET", "/")
    cookie = headers["Set-Cookie"]
    assert cookie.startswith(open_one.cookie)
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert "Set-Cookie" not in open_one.request("GET", "/api/state")[1]


@pytest.mark.parametrize("path", ["/", "/page/page.js", "/api/state", "/no"])
def test_every_answer_has_a_strict_policy(open_one, path):
    _, headers, _ = open_one.request("GET", path)
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "//" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Server" not in headers


@pytest.mark.parametrize(
    "path",
    ["/../etc/passwd", "/page/../page.html", "/page/..%2f..%2fworker.py", "/page/%2e%2e/worker.py",
     "/page/worker.py", "/page/", "/api/seeds/..%2f..%2frun.json", "/api/seeds/../pieces/sound",
     "/api/pieces/..%2f..%2f..%2fetc/1/mp3", "/api/pieces/0123456789abcdef/1/..%2f..%2fabout.json",
     "/api/seeds/0123456789abcdeg/sound", "//etc/passwd", "/page/page.js%00.html"],
)  # fmt: skip
def test_no_path_leads_elsewhere(open_one, path):
    assert open_one.ask("GET", path)[0] in (403, 404)


@pytest.mark.parametrize("path", ["/", "/api/state", "/api/events", "/page/page.js"])
def test_without_the_token_nothing_is_answered(locked, path):
    assert locked.request("GET", path)[0] == 403
    assert locked.request("GET", path, Cookie=f"{locked.guard.cookie}={TOKEN}")[0] == 403
    assert locked.request("GET", path, Authorization=f"Bearer {TOKEN}")[0] == 403
    assert locked.request("GET", f"{path}?token={TOKEN}x")[0] == 403
    assert locked.request("GET", f"{path}?token=")[0] == 403


def test_the_token_is_given_once_and_brings_page_and_cookie(locked):
    link = {"Sec-Fetch-Site": "cross-site"}  # in a mail or a chat
    status, headers, page = locked.request("GET", f"/?token={TOKEN}", **link)
    assert (status, b"/page/page.js" in page) == (200, True)
    assert headers["Referrer-Policy"] == "no-referrer"
    cookie = headers["Set-Cookie"].partition(";")[0]
    assert TOKEN not in cookie
    assert locked.request("GET", "/", Cookie=cookie)[0] == 200
    assert locked.request("GET", "/api/state", Cookie=cookie)[0] == 200
    assert locked.request("GET", f"/api/state?token={TOKEN}")[0] == 403  # only the page takes it


def test_two_hosts_in_one_request_are_refused(open_one):
    connection = http.client.HTTPConnection("127.0.0.1", open_one.port, timeout=60)
    connection.putrequest("GET", "/", skip_host=True)
    for host in (f"127.0.0.1:{open_one.port}", "evil.example"):
        connection.putheader("Host", host)
    connection.endheaders()
    with closing(connection), connection.getresponse() as answer:
        assert answer.status in (400, 403)


def test_a_secret_is_not_printed():
    guard = Guard(8018, token=TOKEN)
    assert guard.secret not in repr(guard)
    assert TOKEN not in repr(guard)


@pytest.mark.parametrize(
    ("host", "alone"),
    [("127.0.0.1", True), ("127.3.2.1", True), ("::1", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("192.168.1.5", False), ("piano.local", False)],
)  # fmt: skip
def test_only_loopback_needs_no_token(host, alone):
    assert is_this_machine_only(host) == alone
