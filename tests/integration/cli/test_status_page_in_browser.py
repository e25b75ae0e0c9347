"""The page of ``edgeshard status --html`` as Chromium shows it: on a phone and on a screen, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import edgeshard
from edgeshard import cli
from edgeshard.cli import exits, status_page
from edgeshard.reports import Gap
from tests.support import browser as chromium

pytestmark = pytest.mark.slow

#: The agents of the page; one has a name that would run, and one that is as wide as a page.
_AGENTS = ("door", "<script>document.title = 'run'</script>", "W" * 200)

_MEASURE = """() => ({
    width: [document.documentElement.scrollWidth, innerWidth],
    charts: [...document.querySelectorAll('svg')].map(svg => {
        const box = svg.getBoundingClientRect();
        return [box.width, box.height, svg.querySelectorAll('rect.rect').length];
    }),
    letters: Math.min(...[...document.querySelectorAll('svg text')].map(text => text.getBoundingClientRect().height)),
    colours: ['body', 'section', 'svg text', 'svg rect.rect'].map(selector => {
        const style = getComputedStyle(document.querySelector(selector));
        return [style.backgroundColor, style.color, style.fill].join(' ');
    }),
    title: document.title,
})"""


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of a store with rows, pending rows, a budget and a gap."""
    folder = tmp_path_factory.mktemp("page")
    store = edgeshard.Store(folder / "data", max_bytes="50M")
    for _ in range(2):
        for agent in _AGENTS:
            with store.shard(agent) as shard:
                shard.write_many({"n": number} for number in range(20))
        if not store.has_master():
            store.merge()
    path = folder / "page.html"
    assert exits.DONE == cli.main(["status", str(store.root), "--html", str(path)])
    status = store.status()
    gaps = tuple(Gap(agent, "aa" * 16, 11, 20) for agent in _AGENTS)
    shards = tuple(attrs.evolve(shard, oldest_age_s=100.0) for shard in status.shards)
    path.write_text(status_page.page(attrs.evolve(status, gaps=gaps, shards=shards), store.activity(), store.root))
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Yield a browser."""
    with chromium.opened() as opened:
        yield opened


def measured(browser: Any, path: Path, width: int, scheme: str) -> dict[str, Any]:
    """Open the page, and return what was measured there; all that it asks for besides itself is an error."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked: list[str] = []
    try:
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: asked.append(str(error)))
        page.goto(path.as_uri())
        found: dict[str, Any] = page.evaluate(_MEASURE)
    finally:
        context.close()
    assert [path.as_uri()] == asked
    return found


@pytest.mark.parametrize("width", [400, 1_400])
def test_the_page_fits_and_its_charts_are_seen_light_and_dark(browser: Any, page_path: Path, width: int) -> None:
    light, dark = (measured(browser, page_path, width, scheme) for scheme in ("light", "dark"))
    for found in (light, dark):
        assert found["width"][0] <= found["width"][1] == width
        assert 7 == len(found["charts"])
        for chart_width, height, bars in found["charts"]:
            assert chart_width > 300
            assert height > 60
            assert bars > 0
        assert found["letters"] >= 10
        assert found["title"].startswith(("green: ", "yellow: "))
    assert all(before != after for before, after in zip(light["colours"], dark["colours"], strict=True))
