"""The documents are true where a machine can tell: links lead somewhere, examples of frames are JSON."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from conftest import ROOT

LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def prose(document: Path) -> str:
    """A page without its code blocks and comments."""
    return re.sub(r"<!--.*?-->", "", FENCE.sub("", document.read_text()), flags=re.DOTALL)


def documents() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.splitlines()]


def anchors(document: Path) -> set[str]:
    """The anchors that a page's headings get: lower case, spaces as hyphens, punctuation dropped."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for link in LINK.findall(prose(document)):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_every_frame_in_the_protocol_is_a_json_object_with_a_type() -> None:
    fences = FENCE.findall((ROOT / "docs/protocol.md").read_text())
    lines = [line for language, text in fences if language == "json" for line in text.splitlines()]
    assert len(lines) > 10
    for line in lines:
        frame = json.loads(line)
        assert isinstance(frame, dict), line
        assert "type" in frame or "message" in frame, line


def test_the_way_from_channels_shows_the_changes_that_are_tested() -> None:
    text = (ROOT / "docs/migrate-from-channels.md").read_text()
    shown = [fence for language, fence in FENCE.findall(text) if language in ("diff", "nginx", "")]
    names = ("1-layer.patch", "2-consumer.patch", "3-server.patch", "nginx.conf", "Caddyfile")
    assert shown == [(ROOT / "examples/classic-chat/steps" / name).read_text() for name in names]


def test_the_protocol_names_only_codes_that_exist() -> None:
    table = set(re.findall(r"^\| \d+ \| `([a-z_]+)` \|", (ROOT / "docs/errors.md").read_text(), re.MULTILINE))
    used = re.findall(r'"code":"([a-z_]+)"', (ROOT / "docs/protocol.md").read_text())
    assert used
    assert set(used) <= table
