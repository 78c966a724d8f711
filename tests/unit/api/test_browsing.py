"""What browsers are told: pages run what stands in them and comes from here, and nothing else."""

import base64
import hashlib
import re

import httpx
import pytest
from starlette.datastructures import MutableHeaders

from modelkeep.api import asgi, browsing


def sha(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_a_page_allows_its_own_scripts_and_no_others(path: str) -> None:
    transport = httpx.ASGITransport(asgi.routes(tuple))  # type: ignore[arg-type, arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://h") as http:
        page = (await http.get(path)).text
    said = browsing.policy(page.encode())
    scripts = re.findall(r"<script(.*?)>(.*?)</script>", page, re.DOTALL)
    assert scripts
    for attributes, text in scripts:
        assert 'src="/' in attributes or sha(text) in said
    for attributes, text in re.findall(r"<style(.*?)>(.*?)</style>", page, re.DOTALL):
        assert not attributes
        assert sha(text) in said
    assert not re.search(r"\son\w+=|style=|javascript:|//(?!www\.w3\.org)\w+\.", page)
    assert "unsafe" not in said
    assert "http" not in said
    assert sha("alert(1)") not in said
    assert sha("alert(1)") in browsing.policy(b"<script>alert(1)</script>")


def test_answers_are_not_kept_framed_or_guessed_at() -> None:
    headers = MutableHeaders()
    browsing.harden(headers, "/api/v1/me")
    assert headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    names = ("x-content-type-options", "referrer-policy", "cross-origin-opener-policy", "cross-origin-resource-policy")
    assert [headers[name] for name in names] == ["nosniff", "no-referrer", "same-origin", "same-origin"]
    assets = MutableHeaders({"cache-control": "max-age=60"})
    browsing.harden(assets, "/api/v1/x")
    assert assets["cache-control"] == "max-age=60", "what a route says of its answer stays"
    elsewhere = MutableHeaders()
    browsing.harden(elsewhere, "/static-offline-docs/swagger-ui.css")
    assert "cache-control" not in elsewhere
