"""`manage.py digi serve`: a process in which Rust owns the chat's sockets, and Django says who somebody is."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from types import FrameType

from digi._digi import Handshake, serve
from digi.django import conf, logins, origins
from digi.django.engine import get_engine

#: Seconds before a worker that ended by itself is started again.
PAUSE = 1.0


def who(handshake: Handshake) -> tuple[str, str, str] | None:
    """The user of a request, by its cookie and its page's origin."""
    if not origins.allow(handshake.header("origin"), handshake.header("host")):
        return None
    cookies = (value for name, value in handshake.headers if name == "cookie")
    return logins.user_of("; ".join(cookies))


def run(bind: str, say: Callable[[str], object], *, reuse_port: bool = False) -> None:
    """Serves until SIGTERM or SIGINT, then ends in good order."""
    stop = _stopping()
    config, engine = conf.get(), get_engine()
    engine.open().result()
    serving = serve(engine, bind, authenticator=who, route=config.route, origins=["*"], reuse_port=reuse_port)
    with serving.result() as server:
        say(f"Digi listens on ws://{server.address}{config.route}<token>/")
        stop.wait()
    say("Digi has ended.")


def run_workers(count: int, command: list[str]) -> int:
    """Runs a command so many times at once, and again where it ends by itself, until SIGTERM or SIGINT."""
    stop = _stopping()
    workers = [subprocess.Popen(command) for _ in range(count)]
    while not stop.wait(PAUSE):
        for number, worker in enumerate(workers):
            if worker.poll() is not None:
                print(f"a worker has ended with status {worker.returncode}, another one starts", file=sys.stderr)
                workers[number] = subprocess.Popen(command)
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    return max(abs(worker.wait()) for worker in workers)


def _stopping() -> threading.Event:
    stop = threading.Event()

    def on_signal(_: int, __: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return stop
