"""The wheel by itself, as somebody installs it who has nothing else of Digi."""

import subprocess

from conftest import ROOT


def test_it_installs_and_chats_under_every_python_that_is_here() -> None:
    command = [ROOT / "tests" / "tools" / "check_wheel.py", ROOT / "target" / "wheels"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert "installs and chats" in done.stdout
