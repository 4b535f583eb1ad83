"""What keeps a run going: gateways that do not start or do not stay, and certificates."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.bench import fixture
from loadtest.bench.fixture import Fixture
from loadtest.bench.gateways import Launch, Paths, proxy_unchecked
from loadtest.bench.load import Endpoint, Loader
from loadtest.bench.processes import StartError


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Fixture]:
    """A fixture without an upstream."""
    cores = fixture.split_cores()
    paths = Paths(tmp_path, tmp_path, tmp_path, tmp_path, 1, 2)
    made = Fixture(paths, cores, Loader(tmp_path, tmp_path, cores.load))
    yield made
    made.close()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("sh", "-c", "echo no such setting; exit 1"), "has ended; the end of its log:\nno such setting"),
        (("/nowhere/gateway",), "cannot be started: No such file or directory: /nowhere/gateway"),
        (("sleep", "60"), "gave no answer in 0 s"),
    ],
    ids=["ends", "is absent", "is silent"],
)
def test_the_error_of_a_gateway_that_does_not_start_has_the_reason(
    closed: Fixture, argv: tuple[str, ...], message: str
) -> None:
    with pytest.raises(StartError, match=message):
        closed.launched("gateway", Launch(argv, Endpoint(1), start_timeout_s=0.2))


def test_the_variant_without_checks_is_only_there_with_its_module(closed: Fixture) -> None:
    with pytest.raises(StartError, match=r"unchecked\.py"):
        proxy_unchecked(closed.paths, 1)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the certificates are openssl's")
def test_the_certificate_is_one_that_strict_clients_take(tmp_path: Path) -> None:
    folder = tmp_path / "certificates"
    fixture.make_certificates(folder)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.pem", folder / "server.key")
    client = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (ours, theirs, ours, theirs):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert ours.getpeercert()
