"""The pages say what stands: links lead somewhere, routes, events and problem codes are those of the code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, cast

import pytest
from fastapi.routing import APIWebSocketRoute

from streamer.api import events, video
from streamer.api.app import create_app
from streamer.session.steers import SteerStatus
from streamer.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
)
SOURCES = "\n".join(file.read_text() for file in sorted((ROOT / "streamer").rglob("*.py")))


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Where a page's headings can be linked to, as GitHub names them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page if not path else page.parent / path
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


def test_every_route_is_told_and_every_told_route_exists() -> None:
    # No route is called, so neither sessions nor an engine are needed.
    app = create_app(Settings(), cast(Any, None), cast(Any, None), cast(Any, None))
    built = {f"{method.upper()} {path}" for path, on in app.openapi()["paths"].items() for method in on}
    for router in (video.router, events.router):
        sockets = [route for route in router.routes if isinstance(route, APIWebSocketRoute)]
        assert sockets
        built |= {f"WS /v1{route.path}" for route in sockets}
    told = re.findall(r"^\| `([A-Z]+ /\S+)` \|", (ROOT / "docs" / "api.md").read_text(), flags=re.MULTILINE)
    assert sorted(told) == sorted(built)


def test_every_event_is_told_and_every_told_event_is_published() -> None:
    published = set(re.findall(r'\.publish\("([a-z.]+)"', SOURCES)) | {f"steer.{status}" for status in SteerStatus}
    published |= set(re.findall(r'_event\([^"]*"([a-z.]+)"', SOURCES))
    told = re.findall(r"^\| `([a-z.]+)` \|", (ROOT / "docs" / "events.md").read_text(), flags=re.MULTILINE)
    assert sorted(told) == sorted(published)
    assert 'f"steer.{steer.status}"' in SOURCES  # how the steers' types are made


def test_every_told_problem_exists_and_every_problem_is_told() -> None:
    table = (ROOT / "docs" / "api.md").read_text().partition("\n## Problems\n")[2]
    told = {code for row in re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE) for code in row.split()}
    told = {code.strip("`") for code in told}
    raised = set(re.findall(r'Problem\(\s*\d+,\s*"([a-z-]+)"', SOURCES))
    raised |= set(re.findall(r'\bcode="([a-z-]+)"', SOURCES)) | set(
        re.findall(r'default_code\b.*?= "([a-z-]+)"', SOURCES)
    )
    raised |= set(re.findall(r'WhepError\(\s*"([a-z-]+)"', SOURCES))
    assert told - raised <= {"field-missing", "field-invalid", "not-found", "method-not-allowed"}
    assert raised - told <= {"invalid", "idle-unknown", "at-unknown"}  # of the Python calls alone
