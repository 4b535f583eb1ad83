"""The gateways: how each is started, and the form of its requests. A row of the table each."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from loadtest.bench.load import Endpoint
from loadtest.bench.peers import peer_folder
from loadtest.bench.processes import StartError

CLIENT_KEY = "bench-client-key"  # what Endpoint presents
# LiteLLM refuses to start with a key that is short or well known.
LITELLM_KEY = "sk-loadtest-8c1e5a90d2b7463f"
PACKAGES = {
    "nginx": "nginx (Debian: apt-get install nginx-light)",
    "wrk": "wrk (Debian: apt-get install wrk)",
    "cc": "a C compiler (Debian: apt-get install gcc libc6-dev)",
    "openssl": "openssl (Debian: apt-get install openssl)",
    "valgrind": "valgrind (Debian: apt-get install valgrind)",
    "callgrind_control": "callgrind_control (Debian: apt-get install valgrind)",
}


@dataclass(frozen=True, slots=True)
class Paths:
    """Where things are: folders, and the ports of the upstream (plain, and behind TLS)."""

    root: Path  # this repository
    proxy_root: Path  # the one whose proxy is measured
    scratch: Path
    cache: Path
    upstream_port: int
    tls_port: int

    @property
    def upstream(self) -> str:
        return f"http://127.0.0.1:{self.upstream_port}"

    @property
    def tls_upstream(self) -> str:
        return f"https://127.0.0.1:{self.tls_port}"

    @property
    def answer(self) -> Path:
        """A whole answer of the upstream's, for the app that answers a constant."""
        return self.scratch / "answer.json"

    @property
    def certificates(self) -> Path:
        return self.scratch / "certificates"


@dataclass(frozen=True, slots=True)
class Launch:
    """A gateway's command line and environment, and how it is then reached."""

    argv: tuple[str, ...]
    endpoint: Endpoint
    env: Mapping[str, str] = field(default_factory=dict)
    start_timeout_s: float = 20.0


Launcher = Callable[[Paths, int], Launch]


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def found(tool: str) -> str:
    """The path of a program. Raises StartError with how to install it."""
    path = shutil.which(tool) or (shutil.which(f"/usr/sbin/{tool}") if tool == "nginx" else None)
    if path is None:
        raise StartError(f"needs {PACKAGES.get(tool, tool)}")
    return path


# nginx

_NGINX = """daemon off;
{processes}
worker_processes 1;
worker_rlimit_nofile 16384;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000;
  client_max_body_size 64m;
  client_body_buffer_size 2m;  # no body of ours goes through a file
  upstream provider {{ server 127.0.0.1:{upstream_port}; keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port}{listen} backlog=4096;
    {tls}
    location / {{
      proxy_pass {scheme}://provider;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


def _nginx(paths: Paths, port: int, **options: str) -> Launch:
    binary = found("nginx")
    folder = paths.scratch / f"nginx-{port}"
    folder.mkdir()
    defaults = {"processes": "", "listen": "", "tls": "", "scheme": "http"}
    values = {**defaults, "upstream_port": str(paths.upstream_port), **options}
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, port=port, **values))
    argv = (binary, "-c", f"{folder}/nginx.conf", "-e", f"{folder}/error.log", "-p", str(folder))
    return Launch(argv, Endpoint(port))


def nginx(paths: Paths, port: int) -> Launch:
    return _nginx(paths, port)


def nginx_to_tls(paths: Paths, port: int) -> Launch:
    """The same with a TLS upstream, which it verifies."""
    checks = (
        "proxy_ssl_verify on;",
        f"proxy_ssl_trusted_certificate {paths.certificates}/ca.pem;",
        "proxy_ssl_name localhost;",
    )
    return _nginx(paths, port, scheme="https", upstream_port=str(paths.tls_port), tls=" ".join(checks))


def tls_front(paths: Paths) -> Launch:
    """TLS for the scripted upstream.

    Its buffer holds a whole answer or two frames: a larger one would gather the frames that come back to
    back, and the gateways would see fewer and longer pieces than without TLS.
    """
    files = (
        f"ssl_certificate {paths.certificates}/server.pem;",
        f"ssl_certificate_key {paths.certificates}/server.key;",
        "proxy_buffer_size 768; proxy_buffers 8 1k; proxy_busy_buffers_size 1k;",
    )
    return _nginx(paths, paths.tls_port, listen=" ssl", tls=" ".join(files))


# Sanic


def sanic_argv(python: Path, app: str, port: int, workers: int = 1) -> tuple[str, ...]:
    """The command line; with 0 workers everything runs in one process."""
    processes = ("--workers", str(workers)) if workers else ("--single-process",)
    where = ("--host", "127.0.0.1", "--port", str(port), *processes)
    return (str(python), "-m", "sanic", app, *where, "--no-access-logs", "--no-motd")


def constant(paths: Paths, port: int, *, workers: int = 1) -> Launch:
    env = {"PYTHONPATH": str(paths.root), "BENCH_ANSWER": str(paths.answer)}
    argv = sanic_argv(Path(sys.executable), "loadtest.bench.constant:app", port, workers)
    return Launch(argv, Endpoint(port), env)


def proxy_python(paths: Paths) -> Path:
    """The interpreter of the environment that the measured proxy is installed in."""
    return Path(sys.executable) if paths.proxy_root == paths.root else paths.proxy_root / ".venv/bin/python"


def _proxy(
    paths: Paths, port: int, env: Mapping[str, str], *, app: str = "sanic_proxy.app", workers: int = 1
) -> Launch:
    settings = {
        "PYTHONPATH": str(paths.proxy_root),
        "SANIC_PROXY_API_KEYS": CLIENT_KEY,
        "SANIC_PROXY_ACCESS_LOG": "off",
        "SANIC_PROXY_LAME_DUCK_SECONDS": "0",
        **env,
    }
    argv = sanic_argv(proxy_python(paths), app, port, workers)
    model = "straico/openai/bench-model" if "STRAICO_API_KEY" in env else "openai/bench-model"
    return Launch(argv, Endpoint(port, model=model), settings)


def _provider(base_url: str) -> dict[str, str]:
    return {"OPENAI_API_KEY": "bench-provider-key", "OPENAI_BASE_URL": f"{base_url}/v1"}


def proxy(paths: Paths, port: int) -> Launch:
    return _proxy(paths, port, _provider(paths.upstream))


def proxy_two_workers(paths: Paths, port: int) -> Launch:
    return _proxy(paths, port, _provider(paths.upstream), workers=2)


def proxy_unchecked(paths: Paths, port: int) -> Launch:
    """The proxy without its checks of each frame, to measure their cost."""
    if not (paths.proxy_root / "loadtest/bench/unchecked.py").exists():
        raise StartError("there is no loadtest/bench/unchecked.py")
    return _proxy(paths, port, _provider(paths.upstream), app="loadtest.bench.unchecked")


def proxy_straico(paths: Paths, port: int) -> Launch:
    keys = {"STRAICO_API_KEY": "bench-provider-key", "STRAICO_BASE_URL": paths.upstream}
    return _proxy(paths, port, {**keys, "SANIC_PROXY_ROUTER": "on"})


def proxy_to_tls(paths: Paths, port: int) -> Launch:
    trusted = {"SSL_CERT_FILE": f"{paths.certificates}/ca.pem"}
    return _proxy(paths, port, {**_provider(paths.tls_upstream), **trusted})


# Peers


def vllm_router(paths: Paths, port: int) -> Launch:
    binary = peer_folder("vllm-router", paths.cache) / "bin/vllm-router"
    where = ("--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port()))
    options = ("--worker-urls", paths.upstream, "--policy", "round_robin", "--log-level", "warning")
    return Launch((str(binary), *where, *options), Endpoint(port), {"RUST_LOG": "warn"}, 40)


def litellm(paths: Paths, port: int) -> Launch:
    """As its quick start has it: a configuration file, one worker, no database."""
    binary = peer_folder("litellm", paths.cache) / "bin/litellm"
    config = paths.scratch / "litellm.yaml"
    config.write_text(
        "model_list:\n"
        "  - model_name: bench-model\n"
        "    litellm_params:\n"
        f"      {{model: openai/bench-model, api_base: '{paths.upstream}/v1', api_key: bench-provider-key}}\n"
        f"general_settings: {{master_key: {LITELLM_KEY}}}\n"
    )
    where = ("--host", "127.0.0.1", "--port", str(port), "--config", str(config), "--num_workers", "1")
    endpoint = Endpoint(port, headers=(("Authorization", f"Bearer {LITELLM_KEY}"),), is_exact=False)
    offline = {"LITELLM_TELEMETRY": "False", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    return Launch((str(binary), *where), endpoint, offline, 55)


def portkey(paths: Paths, port: int) -> Launch:
    server = peer_folder("portkey", paths.cache) / "node_modules/@portkey-ai/gateway/build/start-server.js"
    target = (("x-portkey-provider", "openai"), ("x-portkey-custom-host", f"{paths.upstream}/v1"))
    argv = (found("node"), str(server), "--headless", f"--port={port}")
    return Launch(argv, Endpoint(port, headers=target), {"NODE_ENV": "production"}, 30)


# For counting instructions: all in one process, and the proxy without client keys, so that the count holds
# only what every request needs.


def single_nginx(paths: Paths, port: int) -> Launch:
    return _nginx(paths, port, processes="master_process off;")


def single_constant(paths: Paths, port: int) -> Launch:
    return constant(paths, port, workers=0)


def single_proxy(paths: Paths, port: int) -> Launch:
    """With providers of each dialect: openai, groq (chats only), anthropic and google."""
    providers = _provider(paths.upstream)
    for name, path in (("ANTHROPIC", "/v1"), ("GROQ", "/v1"), ("GOOGLE", "/v1beta/openai")):
        providers |= {f"{name}_API_KEY": "bench-provider-key", f"{name}_BASE_URL": paths.upstream + path}
    return _proxy(paths, port, {**providers, "SANIC_PROXY_API_KEYS": ""}, workers=0)


_ROUTED = """
[models.routed]
strategy = "weighted"
targets = [
    {{ provider = "openai", model = "bench-model", {limits} }},
    {{ provider = "groq", model = "bench-model", {limits} }},
]
"""


def single_routed(paths: Paths, port: int) -> Launch:
    """The same with all that decides about a request's target: two of them with limits, and a session."""
    config = paths.scratch / "routed.toml"
    config.write_text(_ROUTED.format(limits="rpm = 1000000000, tpm = 1000000000, concurrent = 1000"))
    launch = single_proxy(paths, port)
    endpoint = replace(launch.endpoint, model="routed", headers=(("x-session-affinity", "bench"),))
    return replace(launch, endpoint=endpoint, env={**launch.env, "SANIC_PROXY_CONFIG": str(config)})


_GOVERNED = """
[models.governed]
targets = ["openai/bench-model"]
prices = {{ input = 1, output = 2 }}

[clients.bench]
key_env = "BENCH_CLIENT_KEY"
rpm = 1000000000
tpm = 1000000000000
concurrent = 1000
budget = [{{ usd = 1000000, per = "day" }}, {{ usd = 10000000, per = "month" }}]
"""


def single_governed(paths: Paths, port: int) -> Launch:
    """The same with a key, rates, two budgets and the ledger."""
    config = paths.scratch / "governed.toml"
    config.write_text(_GOVERNED.format())
    launch = single_proxy(paths, port)
    headers = (("Authorization", f"Bearer {CLIENT_KEY}"),)
    state = str(paths.scratch / "governed-state")
    env = {"SANIC_PROXY_CONFIG": str(config), "BENCH_CLIENT_KEY": CLIENT_KEY, "SANIC_PROXY_STATE_DIR": state}
    endpoint = replace(launch.endpoint, model="governed", headers=headers)
    return replace(launch, argv=_slowed(launch.argv), endpoint=endpoint, env={**launch.env, **env})


def single_metered(paths: Paths, port: int) -> Launch:
    """The same with metrics."""
    launch = single_proxy(paths, port)
    env = {**launch.env, "SANIC_PROXY_METRICS_ADDRESS": f"127.0.0.1:{free_port()}"}
    return replace(launch, argv=_slowed(launch.argv), env=env)


def _slowed(argv: tuple[str, ...]) -> tuple[str, ...]:
    return tuple("loadtest.bench.slowed:app" if word == "sanic_proxy.app" else word for word in argv)


SINGLE_PROCESS: Mapping[str, Launcher] = {
    "constant": single_constant,
    "nginx": single_nginx,
    "proxy": single_proxy,
    "proxy-metrics": single_metered,
    "proxy-routed": single_routed,
    "proxy-governed": single_governed,
}

LAUNCHERS: Mapping[str, Launcher] = {
    "nginx": nginx,
    "constant": constant,
    "proxy": proxy,
    "proxy-unchecked": proxy_unchecked,
    "proxy-straico": proxy_straico,
    "proxy-2-workers": proxy_two_workers,
    "nginx-tls": nginx_to_tls,
    "proxy-tls": proxy_to_tls,
    "vllm-router": vllm_router,
    "litellm": litellm,
    "portkey": portkey,
}
