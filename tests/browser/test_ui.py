"""The operator's page in a real browser, before real workers and a scripted upstream."""

from __future__ import annotations

import http.client
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.support.admin import ADMIN_KEY, bearer
from tests.support.browser import go_to, log_in, needs_chromium, opened
from tests.support.load import wait_until
from tests.support.nginx import needs_nginx, running_nginx
from tests.support.proxy import GENEROUS_S, Proxy, running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import DONE, Exchange, Upstream, frame

pytestmark = needs_chromium

WORKERS = 2
CLIENT_KEY = "client-canary-0123456789"
TOML = """
[models.fast]
targets = ["groq/a", "groq/b"]
prices = { input = 1, output = 10 }

[clients.app]
key_env = "APP_KEY"
"""
USAGE = {
    "prompt_tokens": 1200,
    "completion_tokens": 40,
    "total_tokens": 1240,
    "prompt_tokens_details": {"cached_tokens": 1024},
    "completion_tokens_details": {"reasoning_tokens": 16},
}
# The name of a model is a client's text. So is what a model writes.
HOSTILE = "groq/<img src=x onerror=alert(1)>"
VIEWS = ("Now", "Targets", "Requests", "Spend", "Keys", "Explain", "Playground")


@pytest.fixture(scope="module")
def proxy(shared_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    directory = tmp_path_factory.mktemp("ui")
    (directory / "proxy.toml").write_text(TOML)
    settings = {
        **provider_settings(shared_upstream),
        "SANIC_PROXY_ATTEMPTS": "2",
        "SANIC_PROXY_ADMIN_KEY": ADMIN_KEY,
        "SANIC_PROXY_CONFIG": str(directory / "proxy.toml"),
        "SANIC_PROXY_STATE_DIR": str(directory / "state"),
        "APP_KEY": CLIENT_KEY,
    }
    with running_proxy(settings, "--workers", str(WORKERS)) as started:
        yield started


@pytest.fixture
def page(browser: Browser, proxy: Proxy, upstream: Upstream) -> Iterator[Page]:
    """An administrator's page."""
    for model in ("a", "b"):
        upstream.on(model, answers)
    with opened(browser, f"{proxy.url}/ui") as found:
        log_in(found, ADMIN_KEY)
        yield found


async def answers(exchange: Exchange) -> None:
    """An answer of some words, or one that calls the first tool of the request."""
    body = exchange.seen.json
    words = ["The ", "answer ", "of ", body["model"]]
    if body["messages"][-1]["role"] == "tool":
        words = ["It is ", body["messages"][-1]["content"]]
    if not body.get("stream"):
        message = {"role": "assistant", "content": "".join(words)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        await exchange.answer({"id": "c", "object": "chat.completion", "choices": [choice], "usage": USAGE})
        return
    frames = [frame({"content": word}) for word in words]
    finish = "stop"
    if body.get("tools") and body["messages"][-1]["role"] != "tool":
        name = body["tools"][0]["function"]["name"]
        frames = [
            frame({"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]})
            for function in ({"name": name, "arguments": '{"city"'},)
        ]
        frames.append(frame({"tool_calls": [{"index": 0, "function": {"arguments": ': "Oxford"}'}}]}))
        finish = "tool_calls"
    last = frame(choices=[], usage=USAGE)
    await exchange.stream([*frames, frame(finish=finish), last, DONE])


async def never_ends(exchange: Exchange) -> None:
    await exchange.begin_stream()
    await exchange.chunk(frame({"content": "It goes on"}))
    await exchange.client_leaves()


def chat(proxy: Proxy, model: str, key: str = CLIENT_KEY) -> int:
    return proxy.chat(model, headers=bearer(key)).status


def made_key(proxy: Proxy, **fields: Any) -> str:
    """A new key, made by HTTP."""
    reply = proxy.request("POST", "/admin/keys", fields, headers=bearer(ADMIN_KEY))
    assert reply.status == 201
    return str(reply.json["secret"])


def row(page: Page, text: str) -> Locator:
    return page.locator("main tbody tr", has_text=text)


def choose(page: Page, name: str) -> None:
    page.get_by_role("radio", name=name, exact=True).check()


# Login and logout


def test_without_login_there_is_the_form_alone(browser: Browser, proxy: Proxy) -> None:
    with opened(browser, f"{proxy.url}/ui#/keys") as page:
        expect(page.get_by_role("button", name="Log in")).to_be_visible()
        assert page.locator("main > *, nav > *").count() == 0
        page.get_by_label("Key", exact=False).fill("sk-a-wrong-key-0123456789")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("does not open")
        expect(page.get_by_role("banner")).to_be_hidden()
        log_in(page, ADMIN_KEY)
        expect(page.locator("main h1")).to_have_text("Keys")


def test_a_session_lasts_over_a_reload_and_ends_with_the_logout(page: Page, proxy: Proxy) -> None:
    page.reload()
    expect(page.locator("main h1")).to_have_text("Now")
    cookies = page.context.cookies()
    assert [(cookie["httpOnly"], cookie["sameSite"]) for cookie in cookies] == [(True, "Strict")]
    assert page.evaluate("document.cookie + JSON.stringify(localStorage)") == "{}"
    assert ADMIN_KEY not in page.content()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
    assert page.locator("main > *, nav > *").count() == 0
    page.context.add_cookies(
        [{"name": one["name"], "value": one["value"], "url": proxy.url} for one in cookies]
    )
    page.reload()
    expect(page.get_by_role("button", name="Log in")).to_be_visible()


# Views of what happens


def test_requests_of_all_workers_appear_live(page: Page, proxy: Proxy) -> None:
    go_to(page, "Requests")
    expect(page.locator("#connection")).to_have_text("Live")
    by_worker: dict[int, str] = {}

    def of_both_workers() -> bool:
        pid, request_id = chat_of_a_worker(proxy)
        by_worker[pid] = request_id
        return len(by_worker) == WORKERS

    wait_until(of_both_workers)
    for request_id in by_worker.values():
        expect(page.get_by_role("button", name=f"Attempts of request {request_id}")).to_have_count(1)
    request_id = next(iter(by_worker.values()))
    opener = page.get_by_role("button", name=f"Attempts of request {request_id}")
    opener.click()
    details = page.locator("tr.details")
    expect(details).to_contain_text("groq/a")
    expect(details.locator(".timeline li").first).to_contain_text("ok")
    expect(details).to_contain_text(request_id)
    opener.click()
    expect(details).to_have_count(0)


def chat_of_a_worker(proxy: Proxy) -> tuple[int, str]:
    """A request for a model, and the process that has answered it: that of its connection."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=GENEROUS_S)
    try:
        connection.request("GET", "/admin/info", headers=bearer(ADMIN_KEY))
        pid = json.loads(connection.getresponse().read())["worker"]["pid"]
        body = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}]}
        headers = {"content-type": "application/json", **bearer(CLIENT_KEY)}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        return pid, str(answer.getheader("x-request-id"))
    finally:
        connection.close()


def test_requests_can_be_filtered(page: Page, proxy: Proxy) -> None:
    assert chat(proxy, "groq/filtered-model") == 404
    assert chat(proxy, "groq/b") == 200
    go_to(page, "Requests")
    expect(row(page, "groq/filtered-model").first).to_contain_text("404")
    choose(page, "Succeeded")
    expect(row(page, "groq/filtered-model")).to_have_count(0)
    expect(row(page, "groq/b").first).to_be_visible()
    assert "outcome=ok" in page.url
    choose(page, "Failed")
    page.get_by_label("Model").fill("filtered")
    expect(row(page, "groq/filtered-model").first).to_be_visible()
    expect(row(page, "groq/b")).to_have_count(0)


def test_now_shows_the_figures_of_all_workers(page: Page, proxy: Proxy) -> None:
    assert chat(proxy, "groq/none") == 404
    tile = page.locator(".tile", has_text="Errors")
    expect(tile.locator("strong")).not_to_have_text("–")
    expect(page.get_by_role("region", name="Workers").locator("tbody tr")).to_have_count(WORKERS)
    expect(page.get_by_text("Spent today")).to_be_visible()


def test_a_lost_connection_is_shown_and_made_again(browser: Browser, proxy: Proxy) -> None:
    with opened(browser, f"{proxy.url}/ui", ("/admin/",)) as page:
        log_in(page, ADMIN_KEY)
        expect(page.locator("#connection")).to_have_text("Live")
        ready = proxy.log.count("Worker ready")
        for pid in proxy.worker_pids():
            os.kill(pid, signal.SIGKILL)
        expect(page.locator("#connection")).to_have_text("Reconnecting")
        expect(page.get_by_text("The connection to the proxy is lost")).to_be_visible()
        proxy.wait_for_log("Worker ready", ready + WORKERS)
        expect(page.locator("#connection")).to_have_text("Live")
        expect(page.get_by_text("The connection to the proxy is lost")).to_be_hidden()


def test_a_hostile_name_of_a_model_stays_text(page: Page, proxy: Proxy) -> None:
    assert chat(proxy, HOSTILE) == 404
    for view in ("Now", "Requests"):
        go_to(page, view)
        expect(page.locator("main").get_by_text(HOSTILE).first).to_be_visible()
    go_to(page, "Targets")
    expect(page.locator("main tbody tr").first).to_be_visible()
    go_to(page, "Explain")
    page.get_by_label("Model").fill(HOSTILE)
    page.get_by_role("button", name="Explain").click()
    expect(page.locator(".steps")).to_contain_text("onerror")
    assert page.evaluate("document.images.length") == 0


# What can be changed


def test_a_target_is_switched_off_and_on(page: Page, proxy: Proxy) -> None:
    go_to(page, "Targets")
    page.get_by_role("button", name="Switch off groq/a").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert chat(proxy, "groq/a") == 200
    page.get_by_role("button", name="Switch off groq/a").click()
    page.get_by_role("dialog").get_by_role("button", name="Switch off").click()
    expect(row(page, "groq/a")).to_contain_text("switched off")
    wait_until(lambda: {chat(proxy, "groq/a") for _ in range(6 * WORKERS)} == {503})
    page.get_by_role("button", name="Switch on groq/a").click()
    expect(row(page, "groq/a")).to_contain_text("in use")
    wait_until(lambda: {chat(proxy, "groq/a") for _ in range(6 * WORKERS)} == {200})


def test_a_key_is_created_used_edited_blocked_and_deleted(page: Page, proxy: Proxy) -> None:
    go_to(page, "Keys")
    page.get_by_role("button", name="Create key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name", exact=True).fill("browser-key")
    dialog.get_by_label("Models").fill("groq/*, fast")
    dialog.get_by_label("Budget in US dollars").fill("2.5")
    dialog.get_by_label("Requests per minute").fill("600")
    dialog.get_by_role("button", name="Create").click()
    secret = page.locator("#secret").inner_text()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("dialog").get_by_role("button", name="Copy").click()
    expect(page.get_by_text("Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == secret
    page.get_by_role("dialog").get_by_role("button", name="Done").click()
    assert secret not in page.content()
    key = row(page, "browser-key")
    for text in ("active", "fast", "$2.50 per month", "600 requests/min"):
        expect(key).to_contain_text(text)

    wait_until(lambda: chat(proxy, "fast", secret) == 200)
    assert chat(proxy, "echo/echo", secret) == 403
    key.get_by_role("button", name="Edit").click()
    dialog.get_by_label("Requests per minute").fill("")
    dialog.get_by_label("Requests at once").fill("3")
    dialog.get_by_role("button", name="Save").click()
    expect(key).to_contain_text("3 at once")
    expect(key).not_to_contain_text("requests/min")
    expect(key).to_contain_text("$2.50 per month")

    key.get_by_role("button", name="Block").click()
    dialog.get_by_role("button", name="Block").click()
    expect(key).to_contain_text("blocked")
    wait_until(lambda: {chat(proxy, "fast", secret) for _ in range(6 * WORKERS)} == {401})
    key.get_by_role("button", name="Unblock").click()
    expect(key).to_contain_text("active")
    key.get_by_role("button", name="Delete").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(key.get_by_role("button")).to_have_count(0)


def test_what_is_wrong_with_a_key_is_shown_in_its_dialog(browser: Browser, proxy: Proxy) -> None:
    with opened(browser, f"{proxy.url}/ui#/keys", ("/admin/keys",)) as page:
        log_in(page, ADMIN_KEY)
        page.get_by_role("button", name="Create key").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Name", exact=True).fill("<b>")
        dialog.get_by_role("button", name="Create").click()
        expect(dialog.get_by_role("alert")).to_contain_text("A name has up to 255")
        dialog.get_by_role("button", name="Cancel").click()
        expect(dialog).to_have_count(0)


def test_spend_is_shown_by_day_and_key(page: Page, proxy: Proxy) -> None:
    secret = made_key(proxy, name="spender", budget={"usd": 5, "per": "day"})
    wait_until(lambda: chat(proxy, "fast", secret) == 200)
    go_to(page, "Spend")
    choose(page, "Key")

    def is_shown() -> bool:
        choose(page, "Tokens")
        choose(page, "Today")
        choose(page, "7 days")
        page.locator("[aria-busy]").first.wait_for(state="detached")
        return row(page, "spender").count() == 1

    wait_until(is_shown)
    expect(row(page, "spender")).to_contain_text("1,200")
    expect(page.get_by_role("img", name="Tokens by day")).to_be_visible()


def test_a_client_sees_its_own_usage_alone(browser: Browser, proxy: Proxy, upstream: Upstream) -> None:
    upstream.on("a", answers)
    secret = made_key(proxy, name="own-usage", ui=True, rpm=77, budget={"usd": 5, "per": "day"})
    wait_until(lambda: chat(proxy, "fast", secret) == 200)
    with opened(browser, f"{proxy.url}/ui#/keys", ("/admin/keys",)) as page:
        log_in(page, secret)
        expect(page.locator("main h1")).to_have_text("Usage")
        expect(page.get_by_role("navigation", name="Views").get_by_role("link")).to_have_text(["Usage"])
        expect(page.locator("main")).to_contain_text("own-usage")
        expect(page.locator("main")).to_contain_text("77")
        expect(page.locator("main")).to_contain_text("of $5.00 per day")
        assert page.evaluate("fetch('admin/keys').then((answer) => answer.status)") == 401


def test_explain_shows_what_follows_a_failure(page: Page) -> None:
    go_to(page, "Explain")
    page.get_by_label("Model").fill("fast")
    page.keyboard.press("Enter")
    expect(page.locator(".steps li")).to_have_count(1)
    page.get_by_label("Failure of groq/a").select_option("timeout")
    expect(page.locator(".steps li").first).to_contain_text("timeout")
    expect(page.locator(".steps li").last).to_contain_text("groq/b")


# The playground


def say_in_playground(page: Page, model: str, text: str = "Hello") -> Locator:
    go_to(page, "Playground")
    page.get_by_label("Model", exact=True).fill(model)
    page.get_by_label("Message").fill(text)
    page.keyboard.press("Enter")
    return page.locator(".lane").first


def test_a_chat_is_streamed_with_its_figures(page: Page, upstream: Upstream) -> None:
    lane = say_in_playground(page, "groq/a")
    expect(lane.locator(".turn.assistant")).to_contain_text("The answer of a")
    figures = lane.locator(".figures-line")
    for text in ("First content", "1,200 tokens, 1,024 cached", "40 tokens, 16 reasoning", "Cost"):
        expect(figures).to_contain_text(text)
    page.get_by_label("Message").fill("And now?")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(lane.locator(".turn.assistant")).to_have_count(2)
    roles = [message["role"] for message in upstream.seen("a")[-1].json["messages"]]
    assert roles == ["user", "assistant", "user"]
    go_to(page, "Requests")
    expect(row(page, "groq/a").first).to_contain_text("admin")
    go_to(page, "Playground")
    expect(lane.locator(".turn.assistant")).to_have_count(2)


def test_a_tool_is_called_and_its_result_sent(page: Page, upstream: Upstream) -> None:
    go_to(page, "Playground")
    page.get_by_text("System prompt, parameters and tools").click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Temperature").fill("0.5")
    page.get_by_role("button", name="Insert an example").click()
    lane = say_in_playground(page, "groq/a", "How is the weather?")
    expect(lane.locator("figure.code")).to_contain_text('"city": "Oxford"')
    lane.get_by_label("Result of get_weather").fill("mild")
    lane.get_by_role("button", name="Send result").click()
    expect(lane.locator(".turn.assistant").last).to_contain_text("It is mild")
    sent = upstream.seen("a")[-1].json
    assert (sent["temperature"], sent["messages"][0]) == (0.5, {"role": "system", "content": "Be brief."})
    assert [message["role"] for message in sent["messages"][1:]] == ["user", "assistant", "tool"]
    assert sent["messages"][-1]["tool_call_id"] == "call_1"


def test_two_models_are_compared(page: Page) -> None:
    go_to(page, "Playground")
    page.get_by_label("Compare two models").check()
    page.get_by_label("Second model", exact=True).fill("groq/b")
    say_in_playground(page, "groq/a")
    lanes = page.locator(".lane")
    for place, name in enumerate("ab"):
        expect(lanes.nth(place).locator(".turn.assistant")).to_contain_text(f"The answer of {name}")
        expect(lanes.nth(place).locator(".figures-line")).to_contain_text("First content")


def test_stop_ends_the_request_of_the_provider(page: Page, upstream: Upstream) -> None:
    upstream.on("a", never_ends)
    lane = say_in_playground(page, "groq/a")
    expect(lane.locator(".turn.assistant")).to_contain_text("It goes on")
    page.get_by_role("button", name="Stop").click()
    expect(lane.locator(".turn.assistant")).to_contain_text("stopped")
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    go_to(page, "Requests")
    expect(row(page, "client left").first).to_be_visible()


def test_errors_are_shown_as_they_come(browser: Browser, proxy: Proxy, upstream: Upstream) -> None:
    async def breaks_off(exchange: Exchange) -> None:
        await exchange.begin_stream()
        await exchange.chunk(frame({"content": "Half an <b>answer</b>"}))
        exchange.reset()

    upstream.on("a", breaks_off)
    with opened(browser, f"{proxy.url}/ui", ("/ui/chat/completions",)) as page:
        log_in(page, ADMIN_KEY)
        lane = say_in_playground(page, "nobody/x")
        expect(lane.get_by_role("alert")).to_contain_text("nobody")
        expect(lane.get_by_role("button", name="Try again")).to_be_visible()
        page.get_by_role("button", name="Clear").click()
        say_in_playground(page, "groq/a")
        expect(lane.locator(".turn.assistant")).to_contain_text("Half an <b>answer</b>")
        expect(lane.get_by_role("alert")).to_be_visible()


# How it can be used


def test_the_page_can_be_used_by_keyboard_alone(browser: Browser, proxy: Proxy) -> None:
    with opened(browser, f"{proxy.url}/ui") as page:
        expect(page.get_by_label("Key", exact=False)).to_be_focused()
        page.keyboard.type(ADMIN_KEY)
        page.keyboard.press("Enter")
        expect(page.locator("main h1")).to_be_focused()
        page.keyboard.press("Shift+Tab")  # to the last link of the navigation
        for _ in range(len(VIEWS) - 1 - VIEWS.index("Keys")):
            page.keyboard.press("Shift+Tab")
        link = page.get_by_role("navigation", name="Views").get_by_role("link", name="Keys")
        expect(link).to_be_focused()
        assert link.evaluate("(node) => getComputedStyle(node).outlineStyle") == "solid"
        page.keyboard.press("Enter")
        expect(page.locator("main h1")).to_be_focused()
        expect(page.locator("main h1")).to_have_text("Keys")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        opener = page.get_by_role("button", name="Create key")
        expect(opener).to_be_focused()
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_label("Name", exact=True)).to_be_focused()
        for _ in range(30):  # more than the dialog has controls: the focus stays inside, or is the browser's
            page.keyboard.press("Tab")
            assert page.evaluate("!document.activeElement.closest('main, nav, header')")
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
        expect(opener).to_be_focused()
        page.evaluate("document.activeElement.blur()")
        page.reload()
        expect(page.locator("main h1")).to_have_text("Keys")
        page.locator("#skip").focus()
        page.keyboard.press("Enter")
        expect(page.locator("main h1")).to_be_focused()


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_no_view_is_wider_than_the_screen(
    browser: Browser, proxy: Proxy, upstream: Upstream, width: int, scheme: str
) -> None:
    upstream.on("a", answers)
    assert chat(proxy, "groq/a") == 200
    size = {"width": width, "height": 800}
    with opened(browser, f"{proxy.url}/ui", viewport=size, color_scheme=scheme) as page:
        log_in(page, ADMIN_KEY)
        for view in VIEWS:
            go_to(page, view)
            assert page.evaluate("document.documentElement.scrollWidth") == width, view
        is_dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor") != (
            "rgb(255, 255, 255)"
        )
        assert is_dark == (scheme == "dark")


@needs_nginx
def test_the_page_works_under_a_path_prefix_behind_nginx(
    browser: Browser, proxy: Proxy, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.on("a", answers)
    changes = {
        # The port is not that of https, so browsers name it, and `$host` has none.
        "Host $host;": "Host $http_host;",
        "location / {\n            proxy_pass http://sanic_proxy;": (
            "location /llm/ {\n            proxy_pass http://sanic_proxy/;"
        ),
    }
    with (
        running_nginx(tmp_path, [proxy.port], changes) as nginx,
        opened(browser, f"https://localhost:{nginx.port}/llm/ui", ignore_https_errors=True) as page,
    ):
        log_in(page, ADMIN_KEY)
        assert page.context.cookies()[0]["secure"]
        expect(page.locator("#connection")).to_have_text("Live")
        lane = say_in_playground(page, "groq/a")
        expect(lane.locator(".turn.assistant")).to_contain_text("The answer of a")
        go_to(page, "Requests")
        expect(row(page, "groq/a").first).to_contain_text("admin")
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("button", name="Log in")).to_be_visible()
