"""The guard before the routes: a key first, and no more of a body than is allowed."""

import pytest


@pytest.mark.parametrize("path", ["/api/v1/models", "/api/v1/models/", "/api/v1/nothing", "/nothing", "/api"])
async def test_without_a_key_nothing_tells_what_exists(stranger, path):
    for method in ("GET", "POST", "OPTIONS"):
        answer = await stranger.request(method, path, headers={"host": "evil.example"})
        assert answer.status_code == 401, (method, path)
        assert "location" not in answer.headers


async def test_a_body_is_not_looked_at_for_whom_has_no_key(stranger):
    answer = await stranger.post("/api/v1/models", content=b"{", headers={"content-type": "application/json"})
    assert answer.status_code == 401


async def test_a_large_document_is_refused_with_a_key_too(client):
    answer = await client.post("/api/v1/models", content=b" " * (2 << 20), headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["code"] == "too_large"
