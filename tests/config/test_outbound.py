"""Through which outbound proxy a URL is reached."""

from __future__ import annotations

import pytest

from sanic_proxy.config.outbound import outbound_proxy


@pytest.mark.parametrize(
    ("variables", "proxy"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ({"https_proxy": "http://a:1", "HTTPS_PROXY": "http://b:2"}, "http://a:1"),
        ({"HTTPS_PROXY": "user:key@proxy:3128"}, "http://user:key@proxy:3128"),
        ({"HTTP_PROXY": "http://proxy:3128"}, None),
        ({"HTTPS_PROXY": "http://proxy", "NO_PROXY": "example.com"}, None),
        ({"HTTPS_PROXY": "http://proxy", "no_proxy": "other.com"}, "http://proxy"),
        ({"HTTPS_PROXY": "http://proxy", "NO_PROXY": "*"}, None),
    ],
)
def test_the_proxy_of_an_encrypted_url(variables: dict[str, str], proxy: str | None) -> None:
    found = outbound_proxy("https://api.example.com/v1", variables)
    assert (None if found is None else found.reveal()) == proxy
