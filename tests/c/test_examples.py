"""The examples in C and C++, built as their folders say, and the binding of 90 lines."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from c_library import ROOT, Library


def built(library: Library, example: str, program: str, folder: Path, by: str) -> Path:
    source = ROOT / "examples" / example
    if by == "make":
        # Outside of the sources, which it leaves as they are.
        library.run(["make", "-f", source / "Makefile", f"VPATH={source}", program], cwd=folder)
    else:
        prefix = f"-DCMAKE_PREFIX_PATH={library.prefix}"
        library.run(["cmake", "-S", source, "-B", folder, prefix, "-DCMAKE_BUILD_TYPE=Release"])
        library.run(["cmake", "--build", folder])
    return folder / program


@contextmanager
def running(library: Library, *command: str | Path) -> Iterator[tuple[IO[str], IO[str]]]:
    """A program's input and output; its end is waited for, and is a good one."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=library.environment) as process:
        assert process.stdin
        assert process.stdout
        try:
            yield process.stdin, process.stdout
            process.stdin.close()
            assert process.wait(60) == 0
        finally:
            process.kill()


def write(to: IO[str], line: str) -> None:
    to.write(line + "\n")
    to.flush()


@pytest.mark.parametrize("by", ["make", "cmake"])
def test_two_terminals_chat_through_one_database(library: Library, tmp_path: Path, by: str) -> None:
    chat = built(library, "c-chat", "chat", tmp_path, by)
    database = tmp_path / "chat.db"
    with running(library, chat, database, "alice") as (alice, of_alice):
        write(alice, 'hello, "world"')
        assert of_alice.readline() == 'alice: hello, \\"world\\"\n'
        with running(library, chat, database, "bob") as (bob, of_bob):
            write(bob, "good morning")
            assert of_bob.readline() == "bob: good morning\n"
            assert of_alice.readline() == "bob: good morning\n"
            write(bob, "/edit good evening")
            assert of_alice.readline() == "bob means: good evening\n"
            write(alice, "/delete")
            assert of_bob.readline() == "bob means: good evening\n"
            assert of_bob.readline() == "alice has deleted a message\n"
            assert of_alice.readline() == "alice has deleted a message\n"


def receive(client: ClientConnection) -> dict[str, Any]:
    frame: dict[str, Any] = json.loads(client.recv(timeout=20))
    return frame


@pytest.mark.parametrize("by", ["make", "cmake"])
def test_a_server_with_a_store_of_its_own(library: Library, tmp_path: Path, by: str) -> None:
    server = built(library, "cpp-chat", "server", tmp_path, by)
    with ExitStack() as after, running(library, server, "127.0.0.1:0") as (host, output):
        url = output.readline().strip()
        with connect(url) as alice, connect(url.replace("=alice", "=bob")) as bob:
            cursor = receive(alice)["cursor"]
            assert receive(bob)["type"] == "resumed"
            alice.send(json.dumps({"type": "add", "message": "hello", "client_id": "one"}))
            added = receive(bob)
            assert (added["type"], added["user"], added["pos"]) == ("add", "Alice", 1)
            assert {receive(alice)["type"], receive(alice)["type"]} == {"add", "ack"}
            alice.send(json.dumps({"type": "add", "message": "hello", "client_id": "one", "resend": True}))
            assert receive(alice)["message_id"] == added["message_id"]
            alice.send(json.dumps({"type": "add", "message": "spam"}))
            assert receive(alice)["detail"] == "No advertising, please."
            alice.send(json.dumps({"type": "edit", "message_id": added["message_id"], "message": "hello, Bob"}))
            assert receive(bob)["message"] == "hello, Bob"
            bob.send(json.dumps({"type": "delete", "message_id": added["message_id"]}))
            assert receive(bob)["code"] == "not_sender"
            write(host, "lunch is ready")
            assert receive(bob)["user"] == "host"
            bob.send(json.dumps({"type": "history", "limit": 10}))
            assert [message["message"] for message in receive(bob)["messages"]] == ["hello, Bob", "lunch is ready"]
        with connect(f"{url.replace('=alice', '=bob')}&after={cursor}"):
            pass  # That is another query than the server knows: nobody.
        with connect(url.replace("=alice", "=carol")) as carol, pytest.raises(ConnectionClosed, match="4501"):
            receive(carol)
        with connect(url.replace("=alice", "=mallory")) as mallory, pytest.raises(ConnectionClosed, match="4503"):
            receive(mallory)
        # Closed in good order when the server's input ends.
        last = after.enter_context(connect(url))
        receive(last)
        host.close()
        with pytest.raises(ConnectionClosed, match="1012"):
            receive(last)


def test_cpp_throws_and_catches(library: Library, tmp_path: Path) -> None:
    source = Path(__file__).parent / "server.cpp"
    for compiler, flags in [("clang++", []), ("g++", ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"])]:
        program = library.compile(compiler, source, tmp_path / compiler, *flags)
        with running(library, program) as (_, output):
            address, token = output.readline().split()
            url = f"ws://{address}/ws/chat/{token}/"
            with connect(url, additional_headers={"X-User": "8"}) as bob:
                assert receive(bob)["type"] == "resumed"
                bob.send(json.dumps({"message": "hello"}))
                assert receive(bob)["user"] == "from C++"
            for user, code in {"throw": "4001", "9": "4501"}.items():
                headers = {"X-User": user}
                with connect(url, additional_headers=headers) as other, pytest.raises(ConnectionClosed, match=code):
                    receive(other)
            with connect(url) as nobody, pytest.raises(ConnectionClosed, match="4503"):
                receive(nobody)


def test_a_binding_without_rust(library: Library) -> None:
    chat = ROOT / "examples/ctypes-chat/chat.py"
    lines = library.run([sys.executable, chat, library.prefix / "lib/libdigi.so"]).splitlines()
    shown = [(line.split(": ")[0], json.loads(line.split(": ", 1)[1])) for line in lines]
    assert [(who, frame["type"], frame.get("message")) for who, frame in shown] == [
        (who, *what) for what in (("resumed", None), ("add", "hello from ctypes")) for who in ("alice", "bob")
    ]
