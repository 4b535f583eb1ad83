"""Files and batches of several clients behind one key of a provider: nobody gets at those of another one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.proxy import Proxy, Reply, running_proxy
from tests.support.upstream import Exchange, Upstream

KEY = "sk-{}-0123456789abcdef"
CLIENTS = ("ann", "bob", "ops")
SETTINGS = """
[providers.lab]
base_url = "{url}/v1"
api_key_env = "LAB_KEY"
"""
CLIENT = """
[clients.{0}]
key_env = "{0}_KEY"
"""
FORM = {"content-type": "multipart/form-data; boundary=B"}
UPLOAD = (
    b'--B\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n{}\r\n--B--\r\n'
)
SECRET = b"what ann has written"
# More requests than one worker gets by chance.
TRIES = 6


class Account:
    """A provider's account with files and batches, paged as OpenAI's; it serves whoever has its key."""

    def __init__(self) -> None:
        self.upstream = Upstream()
        self.upstream.start()
        self._numbers = count(1)
        self.made: dict[str, list[dict[str, Any]]] = {"files": [], "batches": []}
        self.upstream.on("*", self._list)
        self.upstream.on("POST /v1/files", self._upload)
        self.upstream.on("POST /v1/batches", self._create)

    def add(self, folder: str, **fields: Any) -> str:
        made = self.made[folder]
        kind = {"files": "file", "batches": "batch"}[folder]
        id_ = f"{kind}-{next(self._numbers)}"
        made.append({"id": id_, "object": kind, **fields})
        self._serve(folder, id_)
        return id_

    def find(self, folder: str, id_: str) -> dict[str, Any]:
        return next(each for each in self.made[folder] if each["id"] == id_)

    def _serve(self, folder: str, id_: str) -> None:
        path = f"/v1/{folder}/{id_}"

        async def describe(exchange: Exchange) -> None:
            await exchange.answer(self.find(folder, id_))

        async def content(exchange: Exchange) -> None:
            await exchange.answer(SECRET, 200, kind="application/octet-stream")

        for asked in (f"GET {path}", f"DELETE {path}", f"POST {path}/cancel"):
            self.upstream.on(asked, describe)
        self.upstream.on(f"GET {path}/content", content)

    async def _upload(self, exchange: Exchange) -> None:
        await exchange.answer(self.find("files", self.add("files", purpose="batch")))

    async def _create(self, exchange: Exchange) -> None:
        file = exchange.seen.json["input_file_id"]
        await exchange.answer(self.find("batches", self.add("batches", input_file_id=file)))

    async def _list(self, exchange: Exchange) -> None:
        target = urlsplit(exchange.seen.path)
        entries = self.made.get(target.path.rpartition("/")[2])
        if entries is None:
            await exchange.answer({"error": {"message": "no such path"}}, 404)
            return
        asked = {name: values[0] for name, values in parse_qs(target.query).items()}
        ids = [each["id"] for each in entries]
        start = ids.index(asked["after"]) + 1 if "after" in asked else 0
        page = entries[start:][: int(asked.get("limit", 100))]
        await exchange.answer(
            {
                "object": "list",
                "data": page,
                "first_id": page[0]["id"] if page else None,
                "last_id": page[-1]["id"] if page else None,
                "has_more": start + len(page) < len(entries),
            }
        )


class Clients:
    """The clients of a proxy."""

    def __init__(self, proxy: Proxy, account: Account) -> None:
        self.proxy = proxy
        self.account = account

    def request(self, client: str, method: str, path: str, body: object = None, **headers: str) -> Reply:
        headers = {"authorization": f"Bearer {KEY.format(client)}", "x-provider": "lab", **headers}
        return self.proxy.request(method, f"/v1{path}", body, headers)

    def upload(self, client: str) -> str:
        reply = self.request(client, "POST", "/files", UPLOAD, **FORM)
        assert reply.status == 200, reply.body
        id_: str = reply.json["id"]
        return id_

    def batch(self, client: str, file: str) -> Reply:
        return self.request(client, "POST", "/batches", {"input_file_id": file, "endpoint": "/v1/embeddings"})

    def ids(self, client: str, path: str) -> list[str]:
        return [each["id"] for each in self.request(client, "GET", path).json["data"]]


@contextmanager
def running(
    directory: Path, account: Account, names: tuple[str, ...] = CLIENTS, more: str = ""
) -> Iterator[Clients]:
    file = directory / "proxy.toml"
    tables = "".join(CLIENT.format(name) + (more if name == "ann" else "") for name in names)
    file.write_text(SETTINGS.format(url=account.upstream.url) + tables)
    variables = {f"{name}_KEY": KEY.format(name) for name in names}
    state = {"SANIC_PROXY_CONFIG": str(file), "SANIC_PROXY_STATE_DIR": str(directory / "state")}
    settings = {**variables, **state, "LAB_KEY": "sk-lab-0123456789", "SANIC_PROXY_UNOWNED_FILES": "ops"}
    with running_proxy(settings, "--workers=2") as proxy:
        yield Clients(proxy, account)
    assert "Traceback" not in proxy.log


@pytest.fixture(scope="module")
def shared() -> Iterator[Account]:
    account = Account()
    try:
        yield account
    finally:
        account.upstream.stop()


@pytest.fixture
def account(shared: Account) -> Account:
    """The account without what other tests have made; no id is used twice."""
    for made in shared.made.values():
        made.clear()
    return shared


@pytest.fixture(scope="module")
def started(shared: Account, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    with running(tmp_path_factory.mktemp("several"), shared) as clients:
        yield clients


@pytest.fixture
def clients(started: Clients, account: Account) -> Clients:
    assert started.account is account
    return started


def test_another_clients_resources_do_not_exist(clients: Clients, account: Account) -> None:
    file = clients.upload("ann")
    batch = clients.batch("ann", file).json["id"]
    account.find("batches", batch).update(output_file_id=account.add("files"))
    output = clients.request("ann", "GET", f"/batches/{batch}").json["output_file_id"]
    paths = (
        ("GET", f"/files/{file}"),
        ("GET", f"/files/{file}/content"),
        ("GET", f"/files/{output}/content"),
        ("DELETE", f"/files/{file}"),
        ("GET", f"/batches/{batch}"),
        ("POST", f"/batches/{batch}/cancel"),
    )
    seen = len(account.upstream.requests)
    for method, path in paths:
        for other in ("bob", "ops"):
            for _ in range(TRIES):
                reply = clients.request(other, method, path)
                missing = clients.request("bob", method, path.replace(path.split("/")[2], "nothing"))
                assert (reply.status, reply.error["code"]) == (404, "not_found")
                assert {**reply.error, "message": ""} == {**missing.error, "message": ""}
                assert reply.error["message"].startswith(missing.error["message"].partition("'")[0])
    assert clients.batch("bob", file).status == 404
    assert clients.batch("ops", file).status == 404
    assert len(account.upstream.requests) == seen
    for method, path in paths:
        assert {clients.request("ann", method, path).status for _ in range(TRIES)} == {200}
    assert clients.request("ann", "GET", f"/files/{output}/content").body == SECRET


def test_lists_have_what_is_the_clients(clients: Clients, account: Account) -> None:
    before = account.add("files")
    anns, bobs = clients.upload("ann"), clients.upload("bob")
    batch = clients.batch("ann", anns).json["id"]
    for _ in range(TRIES):
        assert clients.ids("ann", "/files") == [anns]
        assert clients.ids("bob", "/files") == [bobs]
        assert clients.ids("ops", "/files") == [before]
        assert clients.ids("ann", "/batches") == [batch]
    assert clients.request("bob", "GET", "/batches").json == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }
    listed = clients.request("ann", "GET", "/files").json
    assert (listed["first_id"], listed["last_id"], listed["has_more"]) == (anns, anns, False)


def test_a_list_of_batches_makes_their_output_the_clients(clients: Clients, account: Account) -> None:
    batch = clients.batch("ann", clients.upload("ann")).json["id"]
    account.find("batches", batch).update(
        output_file_id=account.add("files"), error_file_id=account.add("files")
    )
    for name in ("output_file_id", "error_file_id"):
        path = f"/files/{account.find('batches', batch)[name]}/content"
        assert clients.request("ann", "GET", path).status == 404
        clients.request("bob", "GET", "/batches")
    assert clients.ids("ann", "/batches") == [batch]
    for name in ("output_file_id", "error_file_id"):
        path = f"/files/{account.find('batches', batch)[name]}/content"
        assert clients.request("ann", "GET", path).body == SECRET
        assert clients.request("bob", "GET", path).status == 404


def test_pages_without_an_entry_of_the_client_are_passed_over(clients: Clients, account: Account) -> None:
    for _ in range(5):
        clients.upload("bob")
    anns = [clients.upload("ann"), clients.upload("ann")]
    first = clients.request("ann", "GET", "/files?limit=2").json
    assert [each["id"] for each in first["data"]] == anns[:1]
    assert (first["first_id"], first["last_id"], first["has_more"]) == (anns[0], anns[0], True)
    assert clients.ids("ann", f"/files?limit=2&after={first['last_id']}") == anns[1:]


def test_a_list_that_cannot_be_read_is_an_error(clients: Clients, account: Account) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer({"files": ["file-1"]})

    account.upstream.on("GET /v1/files?order=odd", script)
    assert clients.request("bob", "GET", "/files?order=odd").status == 502


def test_what_no_client_has_made_is_for_those_whom_the_operator_names(
    clients: Clients, account: Account
) -> None:
    file = account.add("files")
    assert clients.request("ops", "GET", f"/files/{file}/content").body == SECRET
    assert clients.batch("ops", file).status == 200
    for client in ("ann", "bob"):
        assert clients.request(client, "GET", f"/files/{file}/content").status == 404
        assert clients.batch(client, file).status == 404


def test_a_provider_reads_the_input_file_that_was_checked(clients: Clients, account: Account) -> None:
    bobs, anns = clients.upload("bob"), clients.upload("ann")
    for first, second, status in ((anns, bobs, 200), (bobs, anns, 404)):
        body = f'{{"input_file_id":"{first}","input\\u005ffile_id":"{second}","endpoint":"/v1/x"}}'
        assert clients.request("bob", "POST", "/batches", body.encode()).status == status
    sent = account.upstream.requests[-1]
    assert json.loads(sent.body) == {"input_file_id": bobs, "endpoint": "/v1/x"}
    assert sent.body.count(b"file") == 2
    for odd in (7, "a/b", " file-1", ""):
        reply = clients.request("bob", "POST", "/batches", {"input_file_id": odd})
        assert (reply.status, reply.error["param"]) == (400, "input_file_id")


def test_it_holds_over_restarts_and_with_budgets(account: Account, tmp_path: Path) -> None:
    budget = "budget = { usd = 10 }\nendpoints = ['/files*', '/batches*']\n"
    with running(tmp_path, account, more=budget) as clients:
        bobs, anns = clients.upload("bob"), clients.upload("ann")
    with running(tmp_path, account, more=budget) as clients:
        assert clients.ids("ann", "/files?limit=1") == [anns]
        assert clients.request("ann", "GET", f"/files/{bobs}").status == 404
        assert clients.request("ann", "GET", f"/files/{anns}").status == 200
        reply = clients.batch("ann", bobs)  # whose content is not read either
        assert (reply.status, reply.error["param"]) == (404, "input_file_id")


def test_one_client_has_all_of_the_account(account: Account, tmp_path: Path) -> None:
    before = account.add("files")
    # A budget makes a store, which could hold further clients.
    with running(tmp_path, account, ("ann",), "budget = { usd = 10 }\nendpoints = ['/files*']\n") as clients:
        for _ in range(TRIES):
            assert clients.ids("ann", "/files") == [before]
            assert clients.request("ann", "GET", f"/files/{before}/content").body == SECRET
    with running(tmp_path, account, ("ann",)) as clients:
        assert clients.ids("ann", "/files") == [before]
