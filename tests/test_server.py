"""The example server as an operator meets it: it starts, answers, stops when asked, and comes back after a kill."""

import urllib.request

from conftest import Server


def healthy(server: Server) -> bool:
    with urllib.request.urlopen(f"{server.url}healthz", timeout=10) as response:
        return bool(response.status == 200)


def test_it_listens_where_it_says(server: Server) -> None:
    assert server.port != 0
    assert healthy(server)


def test_it_comes_back_on_the_same_port_after_a_kill(server: Server) -> None:
    port, pid = server.port, server.pid
    server.restart()
    assert (server.port, server.pid != pid) == (port, True)
    assert healthy(server)


def test_it_stops_when_asked(server: Server) -> None:
    assert server.stop() == 0, server.output
