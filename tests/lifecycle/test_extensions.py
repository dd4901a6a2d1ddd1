"""Commands in Python: what follows from a signature, atomicity, what is undone, and every way to get one wrong."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kvclient
import kvserver
from kvclient.errors import AuthError, ServerError, UnknownCommandError
from kvserver import CommandError, ConfigError, Data, command, extensions


@pytest.fixture(autouse=True)
def _no_command_is_left() -> Iterator[None]:
    yield
    for name, _ in list(extensions.functions()):
        extensions.remove(name)


@pytest.fixture
def kv(server: kvserver.Server) -> Iterator[kvclient.Client]:
    with kvclient.connect(server.url) as client:
        yield client


def test_what_follows_from_the_signature(kv: kvclient.Client) -> None:
    @command("T.ALL", keys=(1, 1, 1))
    def everything(data: Data, key: bytes, text: str, number: int, real: float = 1.5, *words: bytes) -> list[Any]:
        """Returns what it was given.

        More of it.
        """
        return [key, text, number, real, list(words)]

    assert kv.execute("T.ALL", "k", "ü", 7) == [b"k", "ü".encode(), 7, 1.5, []]
    assert kv.execute("t.all", "k", "x", 7, 0.5, "a", b"\xff") == [b"k", b"x", 7, 0.5, [b"a", b"\xff"]]
    with pytest.raises(ServerError, match=r"wrong number of arguments for 't\.all'"):
        kv.execute("T.ALL", "k", "x")
    for words, fault in (
        (("k", b"\xff", 1), "not valid UTF-8"),
        (("k", "x", "1.0"), "not an integer"),
        (("k", "x", "1_0"), "not an integer"),
        (("k", "x", 1, "x"), "not a valid float"),
        (("k", "x", 1, "nan"), "not a valid float"),
        (("k", "x", 1, "inf"), "not a valid float"),
        (("k", "x", 1, " 1"), "not a valid float"),
    ):
        with pytest.raises(ServerError, match=fault):
            kv.execute("T.ALL", *words)
    (info,) = kv.command_info("t.all")
    assert info[1:6] == [-4, [b"write", b"denyoom"], 1, 1, 1] or set(info[2]) == {b"write", b"denyoom"}  # type: ignore[index]
    docs = kv.command_docs("t.all")[b"t.all"]
    assert docs[b"summary"] == b"Returns what it was given."  # type: ignore[index,call-overload]
    assert kv.command_getkeys("T.ALL", "k", "x", 1) == [b"k"]


def test_optional_arguments_have_an_end(kv: kvclient.Client) -> None:
    @command("T.OPT", keys=None, flags=kvserver.READONLY)
    def optional(data: Data, word: bytes = b"none") -> bytes:
        return word

    assert kv.execute("T.OPT") == b"none"
    assert kv.execute("T.OPT", "x") == b"x"
    with pytest.raises(ServerError, match="wrong number"):
        kv.execute("T.OPT", "x", "y")


def test_what_data_can_do(kv: kvclient.Client) -> None:
    @command("T.DO")
    def work(data: Data, key: bytes) -> list[Any]:
        data.set(key, 5, ttl=100)
        ttl = data.ttl(key)
        replies: list[Any] = [data.get(key), data.incr(key, 3), data.exists(key), ttl is not None and 99 < ttl <= 100]
        replies += [data.ttl("missing"), data.expire("missing", 5), data.delete("missing"), data.get("missing")]
        replies += [data.call("APPEND", key, "0"), data.call("GETRANGE", key, 0, -1), data.call("DEL", key)]
        return replies

    assert kv.execute("T.DO", "k") == [b"5", 8, True, True, None, False, False, None, 2, b"80", 1]


def test_it_is_atomic(kv: kvclient.Client, server: kvserver.Server) -> None:
    @command("T.MOVE", keys=(1, 2, 1))
    def move(data: Data, source: bytes, target: bytes, amount: int) -> bool:
        if int(data.get(source) or 0) < amount:
            return False
        data.incr(source, -amount)
        data.incr(target, amount)
        return True

    kv.mset({"a": 500, "b": 500})
    start = threading.Barrier(5)

    def work(source: str, target: str) -> None:
        with kvclient.connect(server.url) as client:
            start.wait(10)
            for number in range(100):
                client.execute("T.MOVE", source, target, number % 7)

    threads = [threading.Thread(target=work, args=pair) for pair in (("a", "b"), ("b", "a")) * 2]
    for thread in threads:
        thread.start()
    start.wait(10)
    for _ in range(100):
        assert sum(int(value or 0) for value in kv.mget("a", "b")) == 1000
    for thread in threads:
        thread.join()
    assert sum(int(value or 0) for value in kv.mget("a", "b")) == 1000


def test_what_raises_is_undone(kv: kvclient.Client) -> None:
    secret = "S3CRET"

    @command("T.FAIL")
    def fail(data: Data, key: bytes, how: str) -> None:
        data.set(key, "changed")
        data.set("new", secret)
        data.delete("gone")
        data.expire("lives", 5)
        data.call("APPEND", "lives", "more")
        if how == "refuse":
            raise CommandError("NOTNOW come back later")
        raise ValueError(secret)

    kv.mset({"k": "before", "gone": "here", "lives": "as it was"})
    kv.expire("lives", 1000)
    with pytest.raises(ServerError, match=r"T\.FAIL failed with ValueError; the server's log says where"):
        kv.execute("T.FAIL", "k", "raise")
    with pytest.raises(ServerError, match="NOTNOW come back later"):
        kv.execute("T.FAIL", "k", "refuse")
    assert kv.mget("k", "new", "gone", "lives") == [b"before", None, b"here", b"as it was"]
    assert 900 < kv.ttl("lives") <= 1000
    assert kv.ttl("k") == -1
    assert kv.ping() == b"PONG"


def test_the_log_says_where_and_no_value(caplog: pytest.LogCaptureFixture, kv: kvclient.Client) -> None:
    @command("T.LOG")
    def fail(data: Data, key: bytes) -> None:
        raise ValueError(key.decode())

    with pytest.raises(ServerError):
        kv.execute("T.LOG", "S3CRET")
    logged = caplog.text
    assert "extension.failed" in logged
    assert "ValueError" in logged
    assert "test_extensions.py:" in logged
    assert "S3CRET" not in logged


def test_what_is_no_reply_and_what_calls_itself(kv: kvclient.Client) -> None:
    @command("T.BAD")
    def bad(data: Data, key: bytes, how: str) -> Any:
        data.set(key, "x")
        match how:
            case "object":
                return object()
            case "large":
                return 2**64
            case "nested":
                return [1, {"a": {2}}]
            case "itself":
                return data.call("T.BAD", key, "object")
            case "session":
                return data.call("FLUSHALL")
            case "unknown":
                return data.call("NOPE")
            case "arity":
                return data.call("GET")
        return bad(data, key, how)  # without an end

    for how, fault in (
        ("object", "failed with TypeError"),
        ("large", "failed with OverflowError"),
        ("nested", "failed with TypeError"),
        ("itself", r"T\.BAD cannot be run by a Python command"),
        ("session", "FLUSHALL cannot be run by a Python command"),
        ("unknown", "unknown command 'NOPE'"),
        ("arity", "wrong number of arguments for 'get'"),
        ("recursion", "failed with RecursionError"),
    ):
        with pytest.raises(ServerError, match=fault):
            kv.execute("T.BAD", "k", how)
        assert kv.dbsize() == 0


def test_one_that_only_reads_cannot_write(kv: kvclient.Client) -> None:
    @command("T.READ", flags=kvserver.READONLY)
    def read(data: Data, key: bytes, how: str) -> Any:
        if how == "set":
            data.set(key, "x")
        return data.call("APPEND" if how == "append" else "GETRANGE", key, *(["x"] if how == "append" else [0, -1]))

    kv.set("k", "v")
    assert kv.execute("T.READ", "k", "range") == b"v"
    for how in ("set", "append"):
        with pytest.raises(ServerError, match="READONLY, and tried to change a key"):
            kv.execute("T.READ", "k", how)
    assert kv.get("k") == b"v"


def test_what_could_not_be_undone_cannot_be_done(kv: kvclient.Client) -> None:
    @command("T.AWAY")
    def away(data: Data, key: bytes, name: str, *words: bytes) -> Any:
        return data.call(name, key, *words)

    kv.mset({"k": "abcd", "other": "bc"})
    for words in (("MOVE", "1"), ("COPY", "new", "DB", "1")):
        with pytest.raises(ServerError, match="cannot be run by a Python command"):
            kv.execute("T.AWAY", "k", *words)
    assert kv.execute("T.AWAY", "k", "COPY", "new") == 1
    assert kv.execute("T.AWAY", "k", "LCS", "other") == b"bc"  # whose reply is made after the lock


@pytest.mark.parametrize("how", ["exit", "surrogate", "interrupt"])
def test_whatever_is_raised_the_connection_stays(kv: kvclient.Client, how: str) -> None:
    @command("T.END")
    def end(data: Data, key: bytes, how: str) -> None:
        data.set(key, "changed")
        match how:
            case "exit":
                sys.exit()
            case "interrupt":
                raise KeyboardInterrupt
        raise CommandError("ERR \ud800 is half a character")

    connection = kv.client_id()
    with pytest.raises(ServerError, match=r"failed with|is half a character"):
        kv.execute("T.END", "k", how)
    assert kv.client_id() == connection
    assert not kv.exists("k")


def test_ctrl_c_is_for_the_program_that_embeds_the_server(server: kvserver.Server) -> None:
    @command("T.STOPPED")
    def stopped(data: Data, key: bytes) -> None:
        data.set(key, "changed")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        server.direct("T.STOPPED", "k")
    assert server.direct("GET", "k") is None


class OddBytes(bytes):
    pass


class OddFloat(float):
    def __repr__(self) -> str:
        return f"odd({float(self)})"


def test_odd_types_are_plain_ones_or_errors(kv: kvclient.Client) -> None:
    @command("T.ODD")
    def odd(data: Data, key: bytes, how: str) -> Any:
        match how:
            case "replies":
                return [OddBytes(b"b"), OddFloat(1.5), True]
            case "bytearray":
                return data.set(key, bytearray(b"b"))
            case "float":
                return data.incr(key, 1.5)  # type: ignore[arg-type]
            case "bool":
                return data.call("SET", key, True)
            case "none":
                return data.set(key, None)  # type: ignore[arg-type]
        nested: list[Any] = []
        for _ in range(100):
            nested = [nested]
        data.set(key, "x")
        return nested

    assert kv.execute("T.ODD", "k", "replies") == [b"b", 1.5, True]
    kv.execute("T.ODD", "k", "bytearray")
    assert kv.get("k") == b"b"
    for how in ("float", "bool", "none", "deep"):
        with pytest.raises(ServerError, match="failed with TypeError"):
            kv.execute("T.ODD", "k", how)
    assert kv.get("k") == b"b"


SAYS = """
import kvserver
@kvserver.command("T.{name}", keys=None)
def say(data: kvserver.Data) -> str:
    return {text!r}
"""


def test_files_of_one_name_are_two(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "json.py" for folder in ("one", "two")]  # the name of one of Python's own, too
    for path in paths:
        path.parent.mkdir()
        path.write_text(SAYS.format(name=path.parent.name, text=str(path)))
    extensions.load(",".join(map(str, paths)))
    assert {name for name, _ in extensions.functions()} == {"T.ONE", "T.TWO"}
    assert sys.modules["json"].loads("1") == 1
    with kvserver.Server(port=0) as server:
        assert [server.direct(name).decode() for name in ("T.ONE", "T.TWO")] == list(map(str, paths))  # type: ignore[union-attr]
    paths[1].write_text(SAYS.format(name="ONE", text="mine now"))
    with pytest.raises(ValueError, match=r"there is a command T\.ONE already"):
        extensions.load(str(paths[1]))


def test_a_file_again_is_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "limits.of.mine.py"
    for text in ("before", "after, and longer"):
        path.write_text(SAYS.format(name="AGAIN", text=text))
        extensions.load(str(path))
        with kvserver.Server(port=0) as server:
            assert server.direct("T.AGAIN") == text.encode()


def test_of_a_file_that_fails_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "half_of_it.py"
    path.write_text(SAYS.format(name="HALF", text="x") + "\n1 / 0\n")
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        extensions.load(str(path))
    assert not list(extensions.functions())
    assert "half_of_it" not in sys.modules
    path.write_text(SAYS.format(name="HALF", text="whole now"))
    extensions.load(str(path))
    assert [name for name, _ in extensions.functions()] == ["T.HALF"]


def test_a_fork_does_not_load_again(tmp_path: Path) -> None:
    path = tmp_path / "counted.py"
    path.write_text(
        "import kvserver\nloads = []\n"
        "@kvserver.command('T.LOADS', keys=None)\n"
        "def count(data: kvserver.Data) -> int:\n    loads.append(1)\n    return len(loads)\n"
    )
    with kvserver.Server(port=0, load=str(path)) as server:
        assert server.direct("T.LOADS") == 1
        with server.fork() as other:
            assert other.direct("T.LOADS") == 2


def test_data_is_for_one_command(kv: kvclient.Client) -> None:
    kept: list[Data] = []

    @command("T.KEEP", keys=None)
    def keep(data: Data) -> None:
        kept.append(data)

    kv.execute("T.KEEP")
    with pytest.raises(RuntimeError, match="which has ended"):
        kept[0].get("k")


@pytest.mark.parametrize(
    "result",
    [None, True, False, 1.5, -0.0, float("inf"), b"\xff", "x", [1, [b"y", 2.5]], {"a": {"b": [True, None]}}, {}],
)
def test_it_can_be_run_once(kv: kvclient.Client, result: Any) -> None:
    @command("T.ANY")
    def count(data: Data, key: bytes) -> Any:
        data.incr(key)
        return result

    first = kv.execute("T.ANY", "k")
    for _ in range(3):
        assert repr(kv.execute("KV.ONCE", "token", 60_000, "T.ANY", "k")) == repr(first)
    assert kv.get("k") == b"2"


def test_one_that_takes_long_is_told(kv: kvclient.Client, caplog: pytest.LogCaptureFixture) -> None:
    @command("T.SLOW", keys=None)
    def slow(data: Data) -> None:
        threading.Event().wait(0.03)

    kv.execute("T.SLOW")
    assert "extension.slow" in caplog.text


def test_permissions(kv: kvclient.Client, server: kvserver.Server) -> None:
    @command("T.SET")
    def set_(data: Data, key: bytes) -> None:
        data.set(key, "x")

    kv.acl_setuser("ann", "on", ">secret", "~a:*", "+t.set")
    with kvclient.connect(server.url, username="ann", password="secret") as ann:
        ann.execute("T.SET", "a:1")
        with pytest.raises(AuthError):
            ann.execute("T.SET", "b:1")
    kv.acl_setuser("ann", "-t.set")
    with kvclient.connect(server.url, username="ann", password="secret") as ann, pytest.raises(AuthError):
        ann.execute("T.SET", "a:1")


def test_the_data_is_loaded_without_the_module(tmp_path: Path) -> None:
    @command("T.TWO", keys=None)
    def two(data: Data) -> None:
        data.set("a", 1)
        data.set("b", 2, ttl=1000)

    path = str(tmp_path / "data")
    with kvserver.Server(port=0, data_dir=path) as server:
        server.direct("T.TWO")
    extensions.remove("T.TWO")
    with kvserver.Server(port=0, data_dir=path) as server, kvclient.connect(server.url) as client:
        assert client.mget("a", "b") == [b"1", b"2"]
        assert client.ttl("b") > 900
        with pytest.raises(UnknownCommandError):
            client.execute("T.TWO")


def test_signatures_that_are_none() -> None:
    def no_data(key: bytes) -> None: ...
    def keyword(data: Data, *, key: bytes) -> None: ...
    def untyped(data: Data, key) -> None: ...  # type: ignore[no-untyped-def]
    def strange(data: Data, key: list[bytes]) -> None: ...
    def fine(data: Data, key: bytes) -> None: ...

    for function in (no_data, keyword, untyped, strange):
        with pytest.raises(TypeError, match=function.__name__):
            command("T.X")(function)
    with pytest.raises(TypeError, match="says arity 2, not 3"):
        command("T.X", arity=3)(fine)
    with pytest.raises(ValueError, match="there is a command GET already"):
        command("GET")(fine)
    command("T.X", arity=2)(fine)
    command("T.X")(fine)  # loaded again
    with pytest.raises(ValueError, match=r"there is a command T\.X already"):
        command("T.X")(keyword_free)


def keyword_free(data: Data, key: bytes) -> None: ...


@pytest.mark.parametrize("keys", [(1, 1, 1), (2, 2, 1), (1, 5, 1), (1, 1, 0), (0, 0, 1), (3, 2, 1)])
def test_a_key_is_always_among_the_arguments(keys: tuple[int, int, int]) -> None:
    """Or permissions would be asked for an argument that is not there."""

    def optional(data: Data, key: bytes = b"x") -> None: ...
    def none(data: Data) -> None: ...

    for function in (optional, none):
        with pytest.raises(TypeError, match=r"does not go with its arguments, of which 0 are always given"):
            command("T.X", keys=keys)(function)
    command("T.X", keys=None)(none)


@pytest.mark.parametrize("name", ["", "A B", "X\r\nY", "CONFIG|MINE", "NOPE|X", "R" * 33, "\u00dc", "\u0131", "\u00df"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ValueError, match="is no name for a command"):
        command(name)(keyword_free)
    assert not list(extensions.functions())


def test_functions_that_are_none() -> None:
    async def later(data: Data, key: bytes) -> None: ...
    def some(data: Data, key: bytes) -> Iterator[int]:
        yield 1

    def nothing() -> None: ...

    for function in (later, some, nothing):
        with pytest.raises(TypeError, match=function.__name__):
            command("T.X")(function)  # type: ignore[type-var]


MODULE = '''
import kvserver

@kvserver.command("HI.SAY", keys=None, flags=kvserver.READONLY)
def say(data: kvserver.Data, name: str, times: int = 1) -> str:
    """Greets."""
    return " ".join(["hi", *[name] * times])
'''


def test_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "greetings.py").write_text(MODULE)
    for name in ("greetings", "greetings.py"):
        program = [sys.executable, "-m", "kvserver", "--port", "0", "--load", name]
        with subprocess.Popen(program, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            port = int(process.stdout.readline().rpartition(b":")[2])
            with kvclient.connect(f"redis://127.0.0.1:{port}") as client:
                assert client.execute("HI.SAY", "ann", 2) == b"hi ann ann"
            process.terminate()
            assert process.wait(20) == 0


def test_modules_that_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import kvserver\n1 / 0\n")
    for name, fault in (
        (str(tmp_path / "broken.py"), r"ZeroDivisionError: .* \(broken\.py:2\)"),
        (str(tmp_path / "missing.py"), "there is no file"),
        ("no_such_module_at_all", "ModuleNotFoundError"),
    ):
        with pytest.raises(ConfigError, match=fault):
            kvserver.Server(port=0, load=name)


def test_stubs(tmp_path: Path) -> None:
    (tmp_path / "greetings.py").write_text(MODULE)
    program = [sys.executable, "-m", "kvserver", "stubs", "greetings.py"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    (tmp_path / "greetings_client.py").write_text(done.stdout)
    check = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "greetings_client.py"]
    check.append(f"--cache-dir={tmp_path / 'cache'}")
    environment = {"MYPYPATH": str(Path(__file__).parents[2])}
    checked = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, timeout=100, env=environment)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    names: dict[str, Any] = {}
    exec(done.stdout, names)
    with (
        kvserver.Server(port=0, load=str(tmp_path / "greetings.py")) as server,
        kvclient.connect(server.url) as client,
    ):
        assert names["hi_say"](client, "ann", 2) == b"hi ann ann"
    missing = subprocess.run([*program[:-1], "missing.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert missing.returncode == 2
