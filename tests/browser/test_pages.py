"""The front page and the documentation in a real browser."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import needs_chromium, opened
from tests.support.nginx import needs_nginx, running_nginx
from tests.support.proxy import Proxy, clean_environment, running_proxy

pytestmark = needs_chromium

MODEL = "echo/echo"
CLIENT_KEY = "client-key-0123"


@pytest.fixture(scope="module")
def echo() -> Iterator[Proxy]:
    """A proxy without keys that has the embedded provider alone."""
    with running_proxy({}) as started:
        yield started


@pytest.fixture
def docs(browser: Browser, echo: Proxy) -> Iterator[Page]:
    """The documentation, once its examples have a model."""
    with opened(browser, f"{echo.url}/docs", permissions=["clipboard-read", "clipboard-write"]) as page:
        expect(page.get_by_label("Model in the examples")).to_have_value(MODEL)
        yield page


def copied(page: Page, button: int = 0) -> str:
    """What the button above a block of code puts into the clipboard."""
    page.get_by_role("button", name="Copy").nth(button).click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    text: str = page.evaluate("navigator.clipboard.readText()")
    return text


def run(command: str) -> str:
    done = subprocess.run(
        ["bash", "-c", command],
        env=clean_environment({"SANIC_PROXY_KEY": CLIENT_KEY}),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


# The front page


def test_an_example_of_the_front_page_works_when_it_is_copied(browser: Browser, echo: Proxy) -> None:
    with opened(browser, f"{echo.url}/", permissions=["clipboard-read", "clipboard-write"]) as page:
        assert json.loads(run(copied(page)))["choices"][0]["message"]["content"] == "Hello"


def test_the_languages_of_the_examples_are_tabs_for_the_keyboard_too(browser: Browser, echo: Proxy) -> None:
    with opened(browser, f"{echo.url}/") as page:
        expect(page.locator("figure:visible")).to_contain_text("curl")
        page.get_by_role("tab", name="curl").focus()
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("tab", name="Python")).to_be_focused()
        expect(page.locator("figure:visible")).to_contain_text("from openai import OpenAI")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        expect(page.locator("figure:visible")).to_contain_text('import OpenAI from "openai"')


# The documentation


def test_an_example_of_the_documentation_works_when_it_is_copied(docs: Page) -> None:
    assert json.loads(run(copied(docs)))["choices"][0]["message"]["content"] == "Hello"


def test_each_route_of_the_document_has_a_link_and_an_example(docs: Page, echo: Proxy) -> None:
    paths = echo.request("GET", "/openapi.json").json["paths"]
    operations = [operation for methods in paths.values() for operation in methods.values()]
    assert docs.locator("details.operation").count() == len(operations)
    docs.evaluate("document.querySelectorAll('details.operation').forEach((each) => { each.open = true; })")
    expect(docs.locator("details.operation pre")).to_have_count(len(operations))
    for operation in operations:
        assert docs.locator(f'#links a[href="#{operation["operationId"]}"]').count() == 1
        assert docs.locator(f"#{operation['operationId']} pre").text_content()


def test_the_filter_finds_routes_by_path_name_and_field(docs: Page) -> None:
    shown = docs.locator("#links a:visible")
    filter_ = docs.get_by_label("Filter routes")
    for text, name in (
        ("count_tokens", "Count the tokens of a message"),
        ("cancel batch", "Cancel a batch"),
        ("input_file_id", "Create a batch"),
    ):
        filter_.fill(text)
        expect(shown).to_have_count(1)
        expect(shown).to_contain_text(name)
        expect(docs.locator("details.operation:visible")).to_have_count(1)
        expect(docs.get_by_role("status")).to_contain_text("1 of ")
    filter_.fill("no such route")
    expect(docs.get_by_role("status")).to_contain_text("0 of ")


def test_the_filter_is_for_the_keyboard(docs: Page) -> None:
    docs.keyboard.press("/")
    filter_ = docs.get_by_label("Filter routes")
    expect(filter_).to_be_focused()
    docs.keyboard.type("moderations")
    docs.keyboard.press("Enter")
    expect(docs.locator("#classifyContent")).to_have_attribute("open", "")
    expect(docs.locator("#classifyContent > summary")).to_be_focused()
    assert docs.url.endswith("#classifyContent")
    docs.keyboard.press("/")
    docs.keyboard.press("ArrowDown")
    expect(docs.locator('#links a[href="#classifyContent"]')).to_be_focused()
    docs.keyboard.press("ArrowUp")
    docs.keyboard.press("Escape")
    expect(filter_).to_have_value("")
    expect(docs.get_by_role("status")).to_be_empty()


def test_a_link_to_a_route_opens_it(browser: Browser, echo: Proxy) -> None:
    with opened(browser, f"{echo.url}/docs#createMessage") as page:
        expect(page.locator("#createMessage")).to_have_attribute("open", "")
        expect(page.locator("#createMessage")).to_be_in_viewport()
        expect(page.locator("#links a[aria-current]")).to_have_text(
            "post Create a message".replace(" ", "", 1)
        )
        page.locator("#createMessage").get_by_role("link", name="429").click()
        expect(page.locator("#error-429")).to_be_in_viewport()


def test_inner_fields_are_folded(docs: Page) -> None:
    messages = docs.locator("#createChatCompletion .fields > li").filter(has_text="the oldest message first")
    expect(messages.get_by_text("tool_call_id")).to_have_count(0)
    messages.get_by_text("5 fields").click()
    expect(messages.get_by_text("tool_call_id")).to_be_visible()
    expect(messages.get_by_text("developer")).to_be_visible()


def test_the_readers_model_is_in_the_examples_if_a_shell_reads_it_as_it_is(docs: Page) -> None:
    field = docs.get_by_label("Model in the examples")
    field.fill("groq/llama-3.3-70b-versatile")
    example = docs.locator("#createChatCompletion pre")
    expect(example).to_contain_text('"model": "groq/llama-3.3-70b-versatile"')
    docs.locator("#generateContent > summary").click()
    expect(docs.locator("#generateContent pre")).to_contain_text(
        "/models/groq/llama-3.3-70b-versatile:generateContent"
    )
    field.fill("a' $(id)")
    expect(example).to_contain_text('"model": "groq/llama-3.3-70b-versatile"')


def test_with_keys_the_documentation_asks_for_no_models(browser: Browser) -> None:
    """Such a request would fail, and the browser would report it."""
    with (
        running_proxy({"SANIC_PROXY_API_KEYS": CLIENT_KEY}) as keyed,
        opened(browser, f"{keyed.url}/docs", permissions=["clipboard-read", "clipboard-write"]) as page,
    ):
        page.get_by_label("Model in the examples").fill(MODEL)
        assert json.loads(run(copied(page)))["choices"][0]["message"]["content"] == "Hello"


# Both


@pytest.mark.parametrize("path", ["/", "/docs"])
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_pages_fit_the_window(browser: Browser, echo: Proxy, path: str, width: int, scheme: str) -> None:
    size = {"width": width, "height": 800}
    with opened(browser, f"{echo.url}{path}", viewport=size, color_scheme=scheme) as page:
        expect(page.get_by_role("button", name="Copy").first).to_be_attached()
        for _ in range(2):  # what is folded is made when it is opened
            page.evaluate(
                """() => {
                  document.querySelectorAll("details").forEach((each) => { each.open = true; });
                  return new Promise((resolve) => setTimeout(resolve));
                }"""
            )
        assert page.evaluate("document.documentElement.scrollWidth") == width
        ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert (ground != "rgb(255, 255, 255)") == (scheme == "dark")


@needs_nginx
@pytest.mark.parametrize("path", ["", "docs"])
def test_pages_work_under_a_path_prefix(browser: Browser, echo: Proxy, tmp_path: Path, path: str) -> None:
    changes = {
        "Host $host;": "Host $http_host;",
        "location / {\n            proxy_pass http://sanic_proxy;": (
            "location /llm/ {\n            proxy_pass http://sanic_proxy/;"
        ),
    }
    with running_nginx(tmp_path, [echo.port], changes) as nginx:
        url = f"https://localhost:{nginx.port}/llm"
        with opened(browser, f"{url}/{path}", ignore_https_errors=True) as page:
            expect(page.locator("figure pre").first).to_contain_text(f"curl {url}/v1/chat/completions")
            page.get_by_role("link", name="Documentation").first.click()
            expect(page.locator("#createChatCompletion pre")).to_contain_text(f"curl {url}/v1/chat")
            page.get_by_role("link", name="sanic-proxy").click()
            expect(page.get_by_role("heading", name="Send a request")).to_be_visible()
