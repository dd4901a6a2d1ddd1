"""Who is let in over HTTP: host names, other sites' pages, passwords, permissions."""

from __future__ import annotations

import logging
import socket

import pytest
import redis
from web.asking import Web
from web.conftest import Serve

PATHS = ["/", "/metrics", "/api/live", "/api/keys", "/api/key?key=YQ=="]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "[", "a@b"])
def test_a_name_that_a_stranger_made_up(web: Web, path: str, host: str) -> None:
    answer = web.get(path, Host=host)
    assert answer.status == 421
    assert host not in answer.text or not host


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost:9121", "[::1]:9121", "10.0.0.7", "kv.example", "KV.EXAMPLE.:80"]
)
def test_a_name_that_is_ours(serve: Serve, host: str) -> None:
    assert serve(web_hosts="kv.example").get("/metrics", Host=host).status == 200


def test_a_request_without_a_name(web: Web) -> None:
    assert web.raw(b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert web.raw(b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 421 ")
    assert web.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_sites_page_gets_nothing(web: Web, site: str) -> None:
    for path in PATHS:
        assert web.get(path, Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors").status == 403
    assert web.get("/", Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate").status == 200  # a link
    assert web.get("/api/keys", Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate").status == 403
    assert web.get("/api/keys", Sec_Fetch_Site="same-origin").status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:1"}, 403),
        ({"Origin": "http://[evil"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
        ({}, 200),
    ],
)
def test_another_sites_page_cannot_write(serve: Serve, headers: dict[str, str], status: int) -> None:
    web = serve(web_writes="yes")
    with redis.Redis(port=web.server.port) as client:
        assert web.change("set", b"k", b"v", **headers).status == status
        assert client.exists("k") == (status == 200)


def test_our_own_page_can_write(serve: Serve) -> None:
    web = serve(web_writes="yes")
    origin = f"http://127.0.0.1:{web.port}"
    assert web.change("set", b"k", b"v", Origin=origin, Sec_Fetch_Site="same-origin").status == 200


def test_nothing_is_shared_with_other_origins(web: Web) -> None:
    for path in (*PATHS[:2], "/healthz", "/nowhere"):
        headers = web.get(path, Origin="http://evil.example").headers
        assert not [name for name in headers if name.lower().startswith("access-control")]
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert web.ask("OPTIONS", "/api/key", Origin="http://evil.example").status == 405


def test_a_password_is_needed_and_a_wrong_one_is_counted(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kvserver")
    web = serve(requirepass="right-secret")
    for path in PATHS:
        answer = web.get(path)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")
        for user in ("default:wrong-secret", "nobody:right-secret", ":wrong-secret", "right-secret"):
            assert web.get(path, user=user).status == 401
        assert web.get(path, Authorization="Bearer right-secret").status == 401
        assert web.get(path, Authorization="Basic !").status == 401
    assert web.get("/", user="default:right-secret").status == 200
    assert web.get("/metrics", user=":right-secret").status == 200
    with redis.Redis(port=web.server.port, password="right-secret") as client:
        assert client.info()["acl_access_denied_auth"] == 3 * len(PATHS)
        assert client.acl_log()[0]["reason"] == "auth"
    assert 'kvserver_http_refused_total{reason="password"}' in web.get("/metrics", user=":right-secret").text
    assert "secret" not in caplog.text
    assert [record for record in caplog.records if "password" in record.getMessage()]


@pytest.mark.parametrize("how", ["Content-Length: 2000000", "Transfer-Encoding: chunked"])
def test_no_body_is_read_of_who_may_not_ask(serve: Serve, how: str) -> None:
    """The head says enough to refuse it; nothing of the body is waited for."""
    web = serve(requirepass="secret", web_writes="yes")
    head = f"Host: localhost\r\nContent-Type: application/json\r\n{how}\r\n\r\n"
    for start, status in (
        ("POST /api/key", b"401"), ("POST /metrics", b"405"), ("PUT /api/key", b"400"), ("POST /none", b"404"),
        ("POST /healthz", b"404"), ("GET /metrics", b"400"), ("GET /healthz", b"400"),
    ):  # fmt: skip
        with socket.create_connection(("127.0.0.1", web.port), 3) as sock:
            sock.sendall(f"{start} HTTP/1.1\r\n{head}".encode())
            assert sock.recv(12) == b"HTTP/1.1 " + status, start


def test_permissions_hold(serve: Serve) -> None:
    web = serve(requirepass="secret", web_writes="yes")
    with redis.Redis(port=web.server.port, password="secret") as client:
        client.acl_setuser("prometheus", enabled=True, passwords=["+p"], commands=["+info"])
        client.acl_setuser(
            "reader",
            enabled=True,
            passwords=["+p"],
            keys=["app:*"],
            commands=["+info", "+@read", "+@keyspace", "-keys"],
        )
        client.mset({"app:a": "1", "other": "2"})
        assert web.get("/metrics", user="prometheus:p").status == 200
        for path in PATHS[3:]:
            answer = web.get(path, user="prometheus:p")
            assert answer.status == 403
            assert answer.text.startswith("NOPERM")
        assert web.key(b"app:a", user="reader:p").json()["value"] == "MQ=="
        assert web.key(b"other", user="reader:p").status == 403
        assert web.change("set", b"app:a", b"x", user="reader:p").status == 403
        assert client.get("app:a") == b"1"
        denied = [entry for entry in client.acl_log() if entry["username"] == "reader"]
        assert {entry["object"] for entry in denied} >= {"other", "set"}


def test_who_may_not_look_is_told_once(serve: Serve) -> None:
    web = serve(requirepass="secret")
    with redis.Redis(port=web.server.port, password="secret") as client:
        client.acl_setuser("writer", enabled=True, passwords=["+p"], commands=["+set"], keys=["*"])
        assert web.get("/api/live", user="writer:p").status == 403
        assert web.get("/metrics", user="writer:p").status == 403


def test_a_page_that_only_reads_writes_nothing(web: Web) -> None:
    for answer in (web.change("set", b"k", b"v"), web.change("delete", b"k"), web.post("/api/hotkeys", {})):
        assert answer.status == 403
        assert "--web-writes yes" in answer.text
    with redis.Redis(port=web.server.port) as client:
        assert client.dbsize() == 0


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page.html", "//etc/passwd", "/api/../page.html",
        "/api/live/", "/..%5c..", "/%00", "/metrics/..;/",
    ],
)  # fmt: skip
def test_there_are_no_files(web: Web, path: str) -> None:
    answer = web.get(path)
    assert answer.status == 404
    assert answer.text == "There is nothing here.\n"


def test_methods(web: Web) -> None:
    for method, path in (("PUT", "/"), ("DELETE", "/api/key"), ("TRACE", "/"), ("POST", "/metrics")):
        answer = web.ask(method, path, b"", Content_Type="application/json")
        assert answer.status == 405
    assert web.ask("HEAD", "/").body == b""
    assert web.ask("HEAD", "/api/live").status == 200
