"""The tools of the command line: import, export, watch, top; JSON, help and completion; with and without the extras."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from client.conftest import FakeServer, Peer
from clients.terminal import Terminal
from hypothesis import given
from hypothesis import strategies as st

import kvclient
from kvclient.cli import docs, main
from kvclient.cli.arguments import Form
from kvclient.cli.prompt import history_file, is_secret
from kvclient.cli.records import Record, from_line, to_line
from kvclient.cli.session import Session
from kvclient.url import parse_url

PLAIN = """
import sys
for name in ("prompt_toolkit", "rich"):
    sys.modules[name] = None
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ("prompt_toolkit", "rich") else found(name, *rest)
from kvclient.cli import main
sys.exit(main(sys.argv[1:]))
"""


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = main(argv)
    out, err = capsys.readouterr()
    return status, out, err


# ---- JSON ------------------------------------------------------------------------------------------------------------


def test_replies_as_json(own_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with kvclient.connect(own_url) as kv:
        kv.flushall()
        kv.mset({"a": "grüße", "b": b"\xff\x00", "n": 5})
    for words, expected in (
        (["MGET", "a", "b", "n", "x"], ["grüße", {"base64": "/wA="}, "5", None]),
        (["INCR", "n"], 6),
        (["SET", "a", "b"], "OK"),
        (["CONFIG", "GET", "maxmemory"], {"maxmemory": "0"}),
    ):
        status, out, err = run(capsys, "--json", own_url, *words)
        assert (status, json.loads(out), err) == (0, expected, "")
    status, out, err = run(capsys, "--json", own_url, "INCR", "a")
    assert (status, out) == (1, "")
    assert err == "kv: ERR value is not an integer or out of range\n"


# ---- import and export -----------------------------------------------------------------------------------------------


def test_there_and_back(
    any_url: str, client: kvclient.Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client.mset({f"key:{number}": number for number in range(1200)})
    client.set(b"\xff\x00", b"\x00\xfe")
    client.set("lives", "a while", expire_at=4_000_000_000)
    status, out, err = run(capsys, any_url, "export")
    assert (status, err) == (0, "exported 1202 keys\n")
    assert '{"key": "lives", "value": "a while", "expires": 4000000000000}' in out.splitlines()
    path = tmp_path / "keys.jsonl"
    path.write_text(out, "utf-8")
    before = {key: (client.get(key), client.expiretime(key)) for key in client}
    client.flushall()
    assert run(capsys, any_url, "import", str(path)) == (0, "", "imported 1202 keys\n")
    assert {key: (client.get(key), client.expiretime(key)) for key in client} == before
    client.set("key:7", "mine")
    assert run(capsys, any_url, "import", "--keep", str(path)) == (0, "", "imported 0 keys\n")
    assert client.get("key:7") == b"mine"
    status, out, err = run(capsys, any_url, "export", "--match", "key:11?")
    assert (len(out.splitlines()), err) == (10, "exported 10 keys\n")


def test_other_types_are_told(redis_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"redis://127.0.0.1:{redis_port}"
    with kvclient.connect(url) as kv:
        kv.flushall()
        kv.execute("LPUSH", "list", "a")
        kv.set("k", "v")
    assert run(capsys, url, "export") == (
        0,
        '{"key": "k", "value": "v"}\n',
        "exported 1 keys; 1 of other types were left out\n",
    )


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("nonsense", "it is not JSON"),
        ("[1]", "it is not an object"),
        ('{"key": "a"}', "it is not an object"),
        ('{"key": "a", "value": 1}', '"value" is neither text'),
        ('{"key": {"base64": "?"}, "value": "1"}', '"key" is neither text'),
        ('{"key": "a", "value": "1", "expires": "x"}', '"expires" is not a time'),
        ('{"key": "a", "value": "1", "expires": 0}', '"expires" is not a time'),
        ('{"key": "a", "value": "1", "other": 1}', "it is not an object"),
        ("[" * 200_000, "it is not JSON"),
    ],
)
def test_a_line_that_is_none(
    own_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, why: str
) -> None:
    path = tmp_path / "keys.jsonl"
    path.write_text(f'{{"key": "first", "value": "1"}}\n\n{line}\n{{"key": "last", "value": "1"}}\n')
    with kvclient.connect(own_url) as kv:
        kv.flushall()
        status, out, err = run(capsys, own_url, "import", str(path))
        assert (status, out) == (2, "")
        assert err.startswith(f"kv: line 3: {why}")
        assert err.endswith("Nothing after it was read; 1 keys are stored\n")
        assert kv.keys() == [b"first"]


def test_files_that_cannot_be_read(own_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, own_url, "import", str(tmp_path / "missing"))[2].endswith("missing: No such file or directory\n")
    assert run(capsys, own_url, "import", str(tmp_path))[2].endswith("Is a directory\n")


@given(st.binary(), st.binary(), st.none() | st.integers(1, 2**63 - 1))
def test_a_record_is_read_back(key: bytes, value: bytes, expires: int | None) -> None:
    record = Record(key, value, expires)
    assert from_line(to_line(record).encode()) == record
    assert "\n" not in to_line(record)


def test_in_a_pipe(own_url: str) -> None:
    with kvclient.connect(own_url) as kv:
        kv.flushall()
        kv.set("k", "v")
        kv_program = [sys.executable, "-m", "kvclient", own_url]
        exported = subprocess.run([*kv_program, "export"], capture_output=True, timeout=30, check=True)
        kv.flushall()
        subprocess.run([*kv_program, "import", "-"], input=exported.stdout, capture_output=True, timeout=30, check=True)
        assert kv.get("k") == b"v"


# ---- watch -----------------------------------------------------------------------------------------------------------


def watched(capsys: pytest.CaptureFixture[str], argv: list[str], act: Callable[[], object]) -> tuple[int, str, str]:
    """What `kv watch` has shown, while something was done again and again."""
    ended = threading.Event()

    def again() -> None:
        while not ended.wait(0.01):
            act()

    actor = threading.Thread(target=again)
    actor.start()
    try:
        return run(capsys, *argv)
    finally:
        ended.set()
        actor.join()


def test_changes_of_keys(any_url: str, client: kvclient.Client, capsys: pytest.CaptureFixture[str]) -> None:
    client.config_set({"notify-keyspace-events": ""})
    status, _, err = run(capsys, any_url, "watch", "user:*")
    assert status == 2
    assert err.startswith("kv: this server does not tell of changes: add --enable")
    argv = [any_url, "watch", "--enable", "--count", "2", "user:*"]
    status, out, err = watched(capsys, argv, lambda: client.set("user:7", "x") and client.set("other", "x"))
    assert (status, err) == (0, "")
    assert len(out.splitlines()) == 2
    assert all(line.endswith(' set        "user:7"') for line in out.splitlines())
    client.config_set({"notify-keyspace-events": ""})


def test_messages_of_channels(own_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with kvclient.connect(own_url) as kv:
        argv = [own_url, "watch", "--channel", "--count", "1", "n*"]
        status, out, err = watched(capsys, argv, lambda: kv.publish("news", "a b\x1b"))
    assert (status, err) == (0, "")
    assert out.endswith(' "news" "a b\\x1b"\n')


def test_subscribing_names_the_tool(own_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, own_url, "SUBSCRIBE", "news")[2].endswith("as in: kv watch --channel 'news'\n")
    assert run(capsys, own_url, "PSUBSCRIBE", "it's *")[2].endswith('kv watch --channel "it\'s *"\n')
    assert run(capsys, own_url, "SUBSCRIBE", "caf\udce9")[2].endswith("kv watch --channel 'caf\ufffd'\n")


# ---- top -------------------------------------------------------------------------------------------------------------


def test_top(any_url: str, client: kvclient.Client, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = watched(
        capsys, [any_url, "top", "--once", "--interval", "0.3"], lambda: (client.set("k", "v"), client.get("k"))
    )
    assert (status, err) == (0, "")
    lines = {line[:13].strip(): line[13:] for line in out.splitlines()}
    assert float(lines["operations"].split()[0].replace(",", "")) > 1
    assert lines["hit ratio"].startswith("100.0%")
    assert {"connections", "memory", "network"} <= set(lines)
    if "histogram_usec" in repr(_histogram(client)):
        assert "a second  50 % " in lines["get"]


def _histogram(client: kvclient.Client) -> object:
    return client.execute("LATENCY", "HISTOGRAM", "get")


# ---- what a server says does not drive the terminal ------------------------------------------------------------------

ESCAPES = "\x1b]0;title\x07\x9b2J"


def _nasty(peer: Peer) -> None:
    """Puts escape sequences wherever there is text."""
    text = ESCAPES.encode()
    bulk = b"$%d\r\n%b\r\n" % (len(text), text)
    answers = {
        b"CONFIG": b"%1\r\n$22\r\nnotify-keyspace-events\r\n$2\r\nKA\r\n",
        b"ECHO": bulk,
        b"INFO": b"=%d\r\ntxt:redis_version:%b\r\n\r\n" % (len(text) + 20, text),
        b"LATENCY": b"%1\r\n" + bulk + b"%1\r\n$14\r\nhistogram_usec\r\n%1\r\n:1\r\n:2\r\n",
        b"COMMAND": b"%1\r\n" + bulk + b"%1\r\n$7\r\nsummary\r\n" + bulk,
        b"PSUBSCRIBE": b">3\r\n$10\r\npsubscribe\r\n$1\r\n*\r\n:1\r\n"
        + b">4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$17\r\n__keyspace@0__:\x1b[\r\n"
        + bulk,
    }
    peer.greet()
    while data := peer.read():
        peer.sock.sendall(answers.get(data.split(b"\r\n")[2], b"-ERR " + text + b"\r\n"))


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["watch", "*", "--count", "1"], "\\x1b]0;title\\x07\\x9b2J"),
        (["top", "--once", "--interval", "0.1"], "redis \\x1b]0;title"),
        (["--json", "GET", "k"], "kv: ERR \\x1b]0;title\\x07\\x9b2J"),
        (["--json", "ECHO", "k"], '"\\u001b]0;title\\u0007\\u009b2J"'),
        (["--typed", "GET", "k"], "(error) ERR \\x1b]0;title\\x07\\x9b2J"),
        (["--typed", "ECHO", "k"], '"\\x1b]0;title\\a\\xc2\\x9b2J"'),
        (["export"], "kv: ERR \\x1b]0;title\\x07\\x9b2J"),
    ],
)
def test_no_text_drives_the_terminal(
    fake: Callable[..., FakeServer], capsys: pytest.CaptureFixture[str], words: list[str], shown: str
) -> None:
    url = fake(_nasty).url
    options = [words.pop(0)] if words[0].startswith("--") else []
    _, out, err = run(capsys, *options, url, *words)
    assert shown in out + err
    assert (out + err).replace("\n", "").isprintable()


def test_nor_does_help(fake: Callable[..., FakeServer]) -> None:
    session = Session(parse_url(fake(_nasty).url), Form.TYPED)
    try:
        known = docs.load(session)
    finally:
        session.close()
    (name,) = known
    assert docs.help_on([name], known).replace("\n", "").isprintable()


# ---- help and completion ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def known() -> dict[str, docs.CommandDocs]:
    return {
        "SET": docs.CommandDocs("SET", "Sets a value.", "key value [NX | XX]", "1.0.0", ["NX", "XX"]),
        "STRLEN": docs.CommandDocs("STRLEN"),
        "CONFIG": docs.CommandDocs("CONFIG"),
        "CONFIG GET": docs.CommandDocs("CONFIG GET", "Reads settings.", "parameter [parameter ...]"),
        "CONFIG SET": docs.CommandDocs("CONFIG SET"),
    }


@pytest.mark.parametrize(
    ("line", "choices"),
    [
        ("s", ["SET", "STRLEN"]),
        ("", ["CONFIG", "SET", "STRLEN"]),
        ("config ", ["GET", "SET"]),
        ("CONFIG g", ["GET"]),
        ("set k v ", ["NX", "XX"]),
        ("set k v nx ", ["XX"]),
        ("set k v n", ["NX"]),
        ("nonsense ", []),
    ],
)
def test_completion(known: dict[str, docs.CommandDocs], line: str, choices: list[str]) -> None:
    assert docs.completions(line, known) == choices


def test_help(known: dict[str, docs.CommandDocs]) -> None:
    assert docs.help_on(["set"], known) == "SET key value [NX | XX]\nSets a value.\nsince 1.0.0"
    assert docs.help_on(["config"], known) == "CONFIG\n\n  CONFIG GET\n  CONFIG SET"
    assert docs.help_on(["config", "get"], known).startswith("CONFIG GET parameter [parameter ...]")
    assert "Tab completes" in docs.help_on([], known)
    with pytest.raises(ValueError, match="there is no command 'nope' here"):
        docs.help_on(["nope"], known)
    with pytest.raises(ValueError, match="tells nothing"):
        docs.help_on(["set"], {})


def test_lines_with_secrets_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in ("AUTH x", "hello 3 auth a b", "ACL SETUSER a >b", "config set RequirePass x"):
        assert is_secret(line)
    assert not is_secret("SET k v")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    path = history_file()
    assert path is not None
    assert path.stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    assert history_file() is None


# ---- on a terminal ---------------------------------------------------------------------------------------------------


def test_the_prompt_with_everything(own_url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kvclient", own_url]
    with Terminal(command, {"XDG_STATE_HOME": str(tmp_path)}) as terminal:
        terminal.see("Ctrl-D ends")
        terminal.enter("set greeting hello")
        terminal.see("OK")
        terminal.enter("get greeting")
        terminal.see('"hello"')
        terminal.enter("help getdel")
        terminal.see("GETDEL key")
        terminal.enter("acl whoami")
        terminal.see('"default"')
        terminal.enter("exit")
        assert terminal.exit_status() == 0
    history = (tmp_path / "kv" / "history").read_text()
    assert "set greeting hello" in history
    assert "acl" not in history


def test_the_prompt_without_the_extras(own_url: str) -> None:
    with Terminal([sys.executable, "-c", PLAIN, own_url]) as terminal:
        terminal.see("> ")
        terminal.enter("set greeting hello")
        terminal.see("OK")
        terminal.enter("help getdel")
        terminal.see("GETDEL key")
        terminal.enter("nope")
        terminal.see("(error) ERR unknown command")
        terminal.see("> ")
        terminal.type("\x04")
        assert terminal.exit_status() == 0


def test_colours_are_for_terminals(own_url: str) -> None:
    command = [sys.executable, "-m", "kvclient", own_url, "ECHO", "x"]
    assert subprocess.run(command, capture_output=True, timeout=30, check=True).stdout == b"x\n"
    own, theirs = os.openpty()
    subprocess.run(command, stdin=theirs, stdout=theirs, timeout=30, check=True, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    with io.FileIO(own) as screen:
        assert b"\x1b[" in screen.read(1000)


def test_progress_is_for_terminals(own_url: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    path.write_text("".join(f'{{"key": "{number}", "value": "v"}}\n' for number in range(2000)))
    with Terminal([sys.executable, "-m", "kvclient", own_url, "import", str(path)]) as terminal:
        terminal.see("importing")
        terminal.see("imported 2000 keys")
        assert terminal.exit_status() == 0
    with Terminal([sys.executable, "-c", PLAIN, own_url, "import", str(path)]) as terminal:
        assert "importing" not in terminal.see("imported 2000 keys")
        assert terminal.exit_status() == 0


def test_nothing_of_this_slows_the_library_down() -> None:
    program = "import kvclient, sys; print([m for m in ('rich', 'prompt_toolkit', 'argparse') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "[]\n"
