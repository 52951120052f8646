"""Node's `ws` and Python's `websockets` chat through the example server."""

from chat_client import live
from conftest import Server
from node_client import node_client


def test_node_and_python_chat(server: Server) -> None:
    with live(server, "alice") as alice, node_client(server.url, "bob") as bob:
        bob.wait(lambda shown: shown["state"] == "online")
        bob.do("add", text="from Node 🎉")
        assert alice.expect("add")["message"] == "from Node 🎉"
        added = alice.add("from Python")
        bob.wait_for_texts("from Node 🎉", "from Python")
        bob.do("edit", pos=1, text="from Node, edited")
        assert alice.expect("edit")["message"] == "from Node, edited"
        alice.send("delete", message_id=added["message_id"])
        bob.wait_for_texts("from Node, edited", None)
        bob.do("remove", pos=1)
        alice.expect("delete", pos=1)
        bob.wait_for_texts(None, None)
        assert alice.history()["through"] == 5


def test_a_restart_in_mid_conversation(server: Server) -> None:
    with node_client(server.url, "alice") as alice, node_client(server.url, "bob") as bob:
        alice.do("add", text="before")
        bob.wait_for_texts("before")
        server.kill()
        for client in (alice, bob):
            client.wait(lambda shown: shown["state"] == "offline")
        alice.do("edit", pos=1, text="before, edited offline")
        alice.do("add", text="offline")
        server.start()
        for client in (alice, bob):
            client.wait_for_texts("before, edited offline", "offline")
        with live(server, "alice") as reader:
            assert reader.history()["through"] == 3


def test_a_new_key_changes_no_message(server: Server) -> None:
    with node_client(server.url, "alice") as alice:
        alice.do("add", text="sealed under the old key")
        old = alice.wait_for_texts("sealed under the old key")["messages"][0]["id"]
        server.kill()
        (server.data / "secret").unlink()
        server.start()
        with live(server, "alice") as other:
            new = other.history()["messages"][0]["message_id"]
            assert new != old
            other.send("edit", message_id=new, message="edited under the new one")
            alice.wait_for_texts("edited under the new one")
