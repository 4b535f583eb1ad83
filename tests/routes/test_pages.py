"""Pages for people, health for machines, and the OpenAPI document."""

from __future__ import annotations

import html
import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from sanic_proxy.server.admission import DOCS_FILES, PAGE_FILES
from tests.support.proxy import Proxy, clean_environment, running_proxy

FILES = (*PAGE_FILES, *DOCS_FILES)
KEY = "client-key-0123"


@pytest.mark.parametrize("path", ["/", "/docs", *FILES])
def test_pages_load_nothing_from_elsewhere(proxy: Proxy, path: str) -> None:
    reply = proxy.request("GET", path)
    assert reply.status == 200
    assert not re.search(rb"(?:src|href)=[\"']?(?:https?:)?//|url\(|@import", reply.body)
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_urls_of_pages_are_relative_for_hosts_with_a_path_prefix(proxy: Proxy, path: str) -> None:
    page = proxy.request("GET", path).body.decode()
    assert re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    assert not re.search(r"(?:src|href)=\"/", page)


def test_the_documentation_has_one_path(proxy: Proxy) -> None:
    reply = proxy.request("GET", "/docs/")
    assert (reply.status, reply.headers["location"]) == (308, "../docs")


def test_the_front_page_lists_the_providers_that_are_on(proxy: Proxy) -> None:
    page = proxy.request("GET", "/", headers={"host": "localhost:1"}).body.decode()
    assert "<code>groq</code>" in page
    assert "<b>" not in page
    assert "__" not in page


@pytest.mark.parametrize(
    ("headers", "url"),
    [
        ({"host": "localhost:8000"}, "http://localhost:8000"),
        ({"host": "localhost:8000", "x-forwarded-proto": "https"}, "https://localhost:8000"),
        (
            {"host": "localhost", "x-forwarded-proto": "https", "x-forwarded-host": "llm.example"},
            "https://llm.example",
        ),
        ({"host": "localhost", "x-forwarded-proto": "gopher"}, "http://localhost"),
    ],
)
def test_the_example_uses_the_address_of_the_reverse_proxy(
    proxy: Proxy, headers: dict[str, str], url: str
) -> None:
    page = proxy.request("GET", "/", headers=headers).body.decode()
    assert f"curl {url}/v1/chat/completions" in shown(page)
    assert f'baseURL: "{url}/v1"' in shown(page)


def test_text_from_outside_is_quoted_for_html_and_for_the_language_of_the_example(proxy: Proxy) -> None:
    host = "<b>'$(id)"
    page = proxy.request("GET", "/", headers={"host": "localhost", "x-forwarded-host": host}).body.decode()
    assert "<b>" not in page
    assert shlex.split(shown(page).partition("curl ")[2])[0] == f"http://{host}/v1/chat/completions"


def test_the_examples_work_when_they_are_pasted() -> None:
    with running_proxy({"SANIC_PROXY_API_KEYS": KEY}) as keyed:
        page = keyed.request("GET", "/", headers={"authorization": f"Bearer {KEY}", "host": keyed.url[7:]})
        curl, python, node = examples(page.body.decode())
        environment = clean_environment({"SANIC_PROXY_KEY": KEY})
        answer = run(["bash", "-c", curl], environment)
        assert json.loads(answer)["choices"][0]["message"]["content"] == "Hello"
        assert run([sys.executable, "-c", python], environment) == "Hello\n"
        assert f'baseURL: "{keyed.url}/v1", apiKey: process.env.SANIC_PROXY_KEY' in node
        if executable := shutil.which("node"):
            run([executable, "--check", "--input-type=module"], environment, node)


def test_the_examples_need_no_key_where_the_proxy_needs_none() -> None:
    with running_proxy({}) as open_proxy:
        page = open_proxy.request("GET", "/", headers={"host": open_proxy.url[7:]}).body.decode()
        assert "SANIC_PROXY_KEY" not in page
        curl, *_ = examples(page)
        assert "choices" in json.loads(run(["bash", "-c", curl], clean_environment({})))


def run(command: list[str], environment: dict[str, str], text: str = "") -> str:
    """The output of a command, which must not fail."""
    done = subprocess.run(command, env=environment, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown(page: str) -> str:
    """The text of a page."""
    return html.unescape(re.sub(r"<[^>]*>", "", page))


def examples(page: str) -> list[str]:
    """The blocks of code of a page."""
    return [shown(block) for block in re.findall(r"<pre[^>]*>(.*?)</pre>", page, re.DOTALL)]


def test_the_example_names_a_model_that_exists(proxy: Proxy) -> None:
    page = proxy.request("GET", "/").body.decode()
    listed = [entry["id"] for entry in proxy.request("GET", "/v1/models").json["data"]]
    model = re.search(r'"model": "([^"]+)"', shown(page))
    assert model is not None
    assert model[1] in listed


def test_pages_and_document_are_open_where_keys_are_set() -> None:
    with running_proxy({"SANIC_PROXY_API_KEYS": KEY}) as keyed:
        for path in ("/docs", *FILES):
            assert keyed.request("GET", path).status == 200
        assert keyed.request("GET", "/v1/models").status == 401


def test_the_front_page_links_the_page_of_administrators_where_it_is(proxy: Proxy) -> None:
    assert b'href="ui"' not in proxy.request("GET", "/").body
    with running_proxy({"SANIC_PROXY_ADMIN_KEY": "admin-key-0123456789"}) as administered:
        assert b'href="ui"' in administered.request("GET", "/").body
        assert administered.request("GET", "/ui").status == 200


def test_the_documentation_asks_for_models_only_where_no_key_is_needed(proxy: Proxy) -> None:
    assert b"<body data-open>" in proxy.request("GET", "/docs").body
    with running_proxy({"SANIC_PROXY_API_KEYS": KEY}) as keyed:
        assert b"<body>" in keyed.request("GET", "/docs").body


def test_health_touches_no_upstream(proxy: Proxy) -> None:
    for path in ("/health", "/healthz", "/health/liveliness"):
        assert proxy.request("GET", path).json == {"status": "ok"}
    assert proxy.request("GET", "/health/readiness").json == {"status": "ready", "not_ready": []}
