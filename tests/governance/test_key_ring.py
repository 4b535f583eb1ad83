"""Which client a key belongs to."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from sanic_proxy.config.loader import load
from sanic_proxy.governance.key_ring import MAX_REMEMBERED, KeyRing


def test_a_key_is_compared_whole(tmp_path: Path) -> None:
    long = "k" * 60
    ring = KeyRing(load({"SANIC_PROXY_API_KEYS": f"{long}1,{long}2"}, tmp_path))
    first, second = ring.client_with(f"{long}1"), ring.client_with(f"{long}2")
    assert first is not None
    assert second is not None
    assert first.id != second.id
    for wrong in (long, f"{long}3", f"{long}1 ", "", "\udcff", f"{long}1{long}"):
        assert ring.client_with(wrong) is None


def test_a_clients_id_depends_on_its_key_alone(tmp_path: Path) -> None:
    one, other = (KeyRing(load({"SANIC_PROXY_API_KEYS": keys}, tmp_path)) for keys in ("a1,b2", "b2,c3"))
    client = one.client_with("b2")
    assert client == other.client_with("b2")
    assert client is not None
    assert client.id == sha256(b"b2").hexdigest()[:16]


def test_a_remembered_header_stands_for_its_client(tmp_path: Path) -> None:
    ring = KeyRing(load({"SANIC_PROXY_API_KEYS": "a1"}, tmp_path))
    client = ring.client_with("a1")
    assert client is not None
    assert ring.remembered("Bearer a1") is None
    ring.remember("Bearer a1", client)
    assert ring.remembered("Bearer a1") is client
    for count in range(2 * MAX_REMEMBERED):
        ring.remember(f"Bearer{' ' * count}a1", client)
    assert ring.remembered(f"Bearer{' ' * (2 * MAX_REMEMBERED - 1)}a1") is None


def test_a_client_of_the_settings_stays_the_same_when_its_key_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "proxy.toml").write_text(
        f"""
        [clients.app]
        key_env = "APP_KEYS"
        key_sha256 = "{sha256(b"k3").hexdigest().upper()}"
        rpm = 5
        """
    )
    environ = {"SANIC_PROXY_CONFIG": "proxy.toml", "SANIC_PROXY_API_KEYS": "other", "APP_KEYS": "k1, k2"}
    ring = KeyRing(load(environ, tmp_path))
    clients = [ring.client_with(key) for key in ("k1", "k2", "k3")]
    assert {client and client.id for client in clients} == {"app"}
    assert {client and client.rules.limits.rpm for client in clients} == {5}
    assert ring.has_many
    assert not ring.is_empty
