"""URLs and options."""

from __future__ import annotations

import pytest

from kvclient.errors import BadURLError
from kvclient.url import Options, parse_url


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("redis://", Options()),
        ("redis://h", Options(host="h")),
        ("valkey://h:1/2", Options(host="h", port=1, db=2)),
        ("REDIS://h/", Options(host="h")),
        ("rediss://h", Options(host="h", tls=True)),
        ("valkeys://h?tls_verify=no&tls_ca=/ca.pem", Options(host="h", tls=True, tls_verify=False, tls_ca="/ca.pem")),
        ("redis://[::1]:7", Options(host="::1", port=7)),
        ("redis://u:p@h", Options(host="h", username="u", password="p")),
        ("redis://:p@h", Options(host="h", password="p")),
        ("redis://u%40x:p%3A%2F%23%C3%A9@h", Options(host="h", username="u@x", password="p:/#é")),
        ("redis://u:a:b@c@h", Options(host="h", username="u", password="a:b@c")),
        ("unix:///tmp/a%20b.sock", Options(path="/tmp/a b.sock")),
        ("redis+unix:///s?db=3", Options(path="/s", db=3)),
        ("valkey+unix://u:p@/s", Options(path="/s", username="u", password="p")),
        ("redis://h?timeout=0.5&max_connections=4&name=me&protocol=2",
         Options(host="h", timeout=0.5, max_connections=4, name="me", protocol=2)),
    ],
)  # fmt: skip
def test_good(url: str, options: Options) -> None:
    assert parse_url(url) == options


@pytest.mark.parametrize(
    "url",
    [
        "", "h", "h:6379", "http://h", "redis:/h", "redis://h:99999", "redis://h:x", "redis://h:-1", "redis://h:\uff16",
        "redis://h/x", "redis://h/-1", "redis://h/1_0", "redis://h/1/2", "redis://h?db=+1", "redis://h?nope=1", "redis://h?db",
        "redis://h?timeout=0", "redis://h?timeout=-1", "redis://h?timeout=nan", "redis://h?timeout=1_0",
        "redis://h?protocol=4", "redis://h?name=a%20b", "redis://h?max_connections=0", "redis://h?tls_verify=maybe",
        "redis://u@h", "redis://u:%zz@h", "redis://u:%ff@h", "redis://:p#q@h", "redis://[::1", "redis://::1",
        "redis://a b", "redis://h\n", "unix://", "unix://rel/path", "unix:///a%00b", "redis://\udc80",
    ],
)  # fmt: skip
def test_bad_is_one_clear_line(url: str) -> None:
    with pytest.raises(BadURLError, match=r"^bad (URL|option): [^\n]*$"):
        parse_url(url)


def test_keywords_win_and_none_does_not_count() -> None:
    assert parse_url("redis://h/1?timeout=2", db=5, timeout=None).db == 5
    assert parse_url("redis://h/1?timeout=2", db=None, timeout=None) == Options(host="h", db=1, timeout=2.0)


def test_the_password_is_not_shown() -> None:
    assert "secret" not in repr(parse_url("redis://u:secret@h"))
    assert parse_url("redis://[::1]:7").address == "[::1]:7"
