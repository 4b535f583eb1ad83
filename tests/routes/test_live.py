"""What goes on in all workers: numbers, the last requests, and events as they happen."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import time
from collections.abc import Iterator
from itertools import islice

import pytest

from tests.support.admin import ADMIN_KEY, CLIENT_KEY, SETTINGS, bearer
from tests.support.load import wait_until
from tests.support.page import Listener, listening, logged_in
from tests.support.proxy import Proxy, Reply, running_proxy

ADMIN = bearer(ADMIN_KEY)
HOSTILE = "echo/</script><img src=x onerror=alert(1)>\u2028\"'\\\r\n\0\U0001f600"


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with running_proxy(SETTINGS, "--workers", "3") as started:
        yield started


def chat(proxy: Proxy, model: str = "echo/echo", **fields: object) -> Reply:
    return proxy.chat(model, headers=bearer(CLIENT_KEY), **fields)


def latest(proxy: Proxy, query: str = "") -> list[dict[str, object]]:
    reply = proxy.request("GET", f"/admin/requests{query}", headers=ADMIN)
    assert reply.status == 200
    found: list[dict[str, object]] = reply.json["data"]
    return found


def test_requests_of_all_workers_are_in_one_list(proxy: Proxy) -> None:
    ids = [chat(proxy).headers["x-request-id"] for _ in range(12)]
    wait_until(lambda: {one["id"] for one in latest(proxy)} >= set(ids))
    found = latest(proxy)
    numbers = [int(str(one["number"])) for one in found]
    assert numbers == sorted(numbers, reverse=True)
    assert [one["id"] for one in latest(proxy, "?limit=2")] == [one["id"] for one in found[:2]]
    assert latest(proxy, f"?before={numbers[1]}&limit=3") == found[2:5]
    one = next(one for one in found if one["id"] == ids[3])
    assert (one["model"], one["target"], one["ended"], one["status"]) == (
        "echo/echo",
        "echo/echo",
        "complete",
        200,
    )
    assert one["time"]
    assert one["attempts"]


def test_the_pages_own_requests_are_not_shown(proxy: Proxy) -> None:
    shown = chat(proxy).headers["x-request-id"]
    for path in ("/ui", "/admin/now", "/health", "/docs", "/style.css", "/metrics"):
        proxy.request("GET", path, headers=ADMIN)
    later = chat(proxy).headers["x-request-id"]
    wait_until(lambda: {one["id"] for one in latest(proxy)} >= {shown, later})
    paths = {str(one["path"]) for one in latest(proxy, "?limit=1000")}
    assert paths == {"/v1/chat/completions"}


@pytest.mark.parametrize("query", ["?limit=x", "?limit=-1", "?before=1.5", "?before=" + "9" * 40, "?limit="])
def test_other_than_numbers_are_a_clients_error(proxy: Proxy, query: str) -> None:
    reply = proxy.request("GET", f"/admin/requests{query}", headers=ADMIN)
    assert reply.status in ({200} if query == "?limit=" else {400})


def test_now_adds_up_all_workers(proxy: Proxy) -> None:
    chat(proxy, stream=True)
    proxy.chat("nobody/x", headers=bearer(CLIENT_KEY))

    def now() -> dict[str, object]:
        found: dict[str, object] = proxy.request("GET", "/admin/now", headers=ADMIN).json
        return found

    wait_until(lambda: float(str(now()["requests_per_s"])) > 0)
    wait_until(lambda: now()["first_content_ms"] != {"p50": None, "p95": None})
    found = now()
    workers = found["workers"]
    assert isinstance(workers, list)
    assert sorted(worker["pid"] for worker in workers) == proxy.worker_pids()
    assert found["window_s"] == 60
    assert set(found) >= {"in_flight", "waiting", "tokens_per_s", "errors", "spend_today_usd", "prices"}


def test_events_of_all_workers_come_in_order_with_ids(proxy: Proxy) -> None:
    with listening(proxy, ADMIN) as listener:
        assert listener.headers["content-type"] == "text/event-stream"
        assert listener.headers["x-accel-buffering"] == "no"
        ids = {chat(proxy).headers["x-request-id"] for _ in range(9)}
        found = (event for event in listener.requests() if event.data["id"] in ids)
        events = list(islice(found, len(ids)))
        assert {event.data["id"] for event in events} == ids
        numbers = [int(event.id) for event in events]
        assert numbers == sorted(numbers)
        assert [event.data["number"] for event in events] == numbers
        third = events[3]
    with listening(proxy, {**ADMIN, "last-event-id": third.id}) as again:
        found = (event for event in again.requests() if event.data["id"] in ids)
        assert list(islice(found, 5)) == events[4:]


def test_now_comes_once_a_second_and_types_are_chosen(proxy: Proxy) -> None:
    with listening(proxy, ADMIN, "?types=now") as listener:
        chat(proxy)
        assert [event.type for event in listener.take(2, "now")] == ["now", "now"]
    reply = proxy.request("GET", "/admin/events?types=now,all", headers=ADMIN)
    assert (reply.status, reply.error["param"]) == (400, "types")


def test_a_listener_costs_no_place_in_flight(proxy: Proxy) -> None:
    with listening(proxy, ADMIN, "?types=now") as listener:
        assert [event.data["in_flight"] for event in listener.take(3, "now")] == [0, 0, 0]


@pytest.mark.parametrize("last", ["x", "-1", "1" * 40, "99999999999999999", ""])
def test_an_id_that_is_none_is_ignored(proxy: Proxy, last: str) -> None:
    with listening(proxy, {**ADMIN, "last-event-id": last}) as listener:
        wanted = chat(proxy).headers["x-request-id"]
        assert wanted in {event.data["id"] for event in listener.take(1)}


def test_hostile_names_are_text_in_one_line(proxy: Proxy) -> None:
    with listening(proxy, ADMIN) as listener:
        wanted = chat(proxy, HOSTILE).headers["x-request-id"]
        event = next(event for event in listener.requests() if event.data["id"] == wanted)
    assert event.data["model"] == HOSTILE


def test_an_endless_path_is_cut(proxy: Proxy) -> None:
    with listening(proxy, ADMIN) as listener:
        reply = proxy.request("GET", "/v1/" + "x" * 7000, headers=bearer(CLIENT_KEY))
        wanted = reply.headers["x-request-id"]
        event = next(event for event in listener.requests() if event.data["id"] == wanted)
    assert event.data["is_cut"]
    assert len(str(event.data)) < 4096


def sees(listener: Listener, request_id: str) -> bool:
    """Whether the request comes; the stream of a killed worker breaks off."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return any(event.data["id"] == request_id for event in listener.events())
    return False


def test_listeners_go_on_when_a_worker_is_killed(proxy: Proxy) -> None:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(listening(proxy, ADMIN)) for _ in range(6)]
        for listener in listeners:
            chat(proxy)
            listener.take(1)
        victim = proxy.worker_pids()[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: victim not in proxy.worker_pids() and len(proxy.worker_pids()) == 3)
        proxy.wait_for_log("Worker ready", times=4)
        wanted = chat(proxy).headers["x-request-id"]
        assert any(sees(listener, wanted) for listener in listeners)

    def pids() -> list[int]:
        now = proxy.request("GET", "/admin/now", headers=ADMIN).json
        return sorted(worker["pid"] for worker in now["workers"])

    wait_until(lambda: pids() == proxy.worker_pids())


def test_the_number_of_listeners_is_limited_on_the_machine(proxy: Proxy) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(32):
            assert stack.enter_context(listening(proxy, ADMIN)).status == 200
        refused = proxy.request("GET", "/admin/events", headers=ADMIN)
        assert (refused.status, refused.error["code"]) == (503, "server_overloaded")
        assert refused.headers["retry-after"] == "10"
    wait_until(lambda: can_listen(proxy))


def can_listen(proxy: Proxy) -> bool:
    with listening(proxy, ADMIN) as listener:
        return listener.status == 200


def test_events_end_with_the_session(proxy: Proxy) -> None:
    login = logged_in(proxy)
    with listening(proxy, login.reading) as listener, listening(proxy, ADMIN) as other:
        chat(proxy)
        assert listener.take(1) == other.take(1)
        assert proxy.request("POST", "/ui/logout", headers=login.changing).status == 204
        assert list(listener.requests()) == []
        chat(proxy)
        assert len(other.take(1)) == 1


def test_a_head_request_ends_at_once(proxy: Proxy) -> None:
    reply = proxy.request("HEAD", "/admin/events", headers=ADMIN)
    assert (reply.status, reply.body) == (200, b"")
    assert can_listen(proxy)


@pytest.mark.parametrize("arguments", [["--single-process"], ["--workers", "2"]])
def test_a_stop_ends_the_listeners_in_order(arguments: list[str]) -> None:
    with running_proxy(SETTINGS, *arguments) as proxy, listening(proxy, ADMIN) as listener:
        wanted = chat(proxy).headers["x-request-id"]
        assert listener.take(1)[0].data["id"] == wanted
        proxy.terminate()
        assert list(listener.requests()) == []
        assert proxy.process.wait(30) == 0


def test_a_reload_ends_the_listeners(tmp_path: object) -> None:
    with running_proxy(SETTINGS, "--workers", "2") as proxy, listening(proxy, ADMIN) as listener:
        chat(proxy)
        listener.take(1)
        proxy.process.send_signal(signal.SIGHUP)
        assert list(listener.requests()) == []
        assert can_listen(proxy)


@pytest.mark.slow
def test_a_listener_that_reads_nothing_is_cut() -> None:
    """It takes megabytes to fill the kernel's buffers."""
    with running_proxy(SETTINGS, "--single-process") as proxy, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", proxy.port))
        client.sendall(f"GET /admin/events HTTP/1.1\r\nhost: x\r\nx-api-key: {ADMIN_KEY}\r\n\r\n".encode())
        until = time.monotonic() + 120
        while "ended=client_stalled" not in proxy.log and time.monotonic() < until:
            proxy.request("GET", "/v1/" + "x" * 3500, headers=bearer(CLIENT_KEY))
        proxy.wait_for_log("ended=client_stalled")
        assert can_listen(proxy)
