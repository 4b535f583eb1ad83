"""The processes of a benchmark run, scripted upstream and gateways, and their scratch folder."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from loadtest.bench.cases import Case
from loadtest.bench.gateways import LAUNCHERS, Launch, Paths, found, free_port, tls_front
from loadtest.bench.load import HERE, Endpoint, Loader, Metrics
from loadtest.bench.peers import PEERS, install_peer
from loadtest.bench.processes import Command, Session, StartError, machine_lock

SOURCES = ("upstream", "streams")
UPSTREAM = "direct"  # what the upstream is called among the gateways
WARM_UP_S = 1


@dataclass(frozen=True, slots=True)
class Cores:
    """One set of cores for the gateway, one for the load and the upstream; the same if there is one core."""

    gateway: frozenset[int]
    load: frozenset[int]

    @property
    def are_shared(self) -> bool:
        return self.gateway == self.load


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that answers; the upstream itself has no session to be measured."""

    endpoint: Endpoint
    session: Session | None


def split_cores() -> Cores:
    """The first core we may use for the gateways, the second for the rest."""
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(frozenset(allowed[:1]), frozenset(allowed[1:2] or allowed[:1]))


def compiled(cache: Path) -> Path:
    """The folder of the compiled programs, made anew when their sources have changed. Raises StartError."""
    compiler = found("cc")
    sources = sorted(HERE.glob("*.[ch]"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    folder = cache / "bin" / digest
    for name in SOURCES:
        if (folder / name).exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        argv = (compiler, "-O2", "-o", str(folder / f"{name}.new"), str(HERE / f"{name}.c"))
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise StartError(f"{name}.c does not compile:\n{done.stderr.strip()[-800:]}")
        (folder / f"{name}.new").rename(folder / name)
    return folder


def await_answer(endpoint: Endpoint, session: Session, timeout_s: float) -> bytes:
    """The first good answer of a gateway that starts. Raises StartError with the tail of its log."""
    until = time.monotonic() + timeout_s
    body, seen = endpoint.body(is_stream=False), "nothing listens"
    while time.monotonic() < until and session.is_running:
        try:
            status, answer = endpoint.send(body)
        except (OSError, http.client.HTTPException) as exc:
            seen = str(exc)
        else:
            if status == 200:
                return answer
            seen = f"status {status}: {answer[:200].decode(errors='replace')}"
        time.sleep(0.05)
    what = f"gave no answer in {timeout_s:.0f} s ({seen})" if session.is_running else "has ended"
    raise StartError(f"{what}; the end of its log:\n{session.log_tail()}")


def await_health(port: int, session: Session, timeout_s: float) -> None:
    """Return at the first 200 of GET /health. Raises StartError."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until and session.is_running:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                connection.close()
                return
        connection.close()
        time.sleep(0.002)
    raise StartError(f"not up in {timeout_s:.0f} s; the end of its log:\n{session.log_tail()}")


class Fixture:
    """Starts gateways on their first use, and remembers why one could not be started."""

    def __init__(self, paths: Paths, cores: Cores, loader: Loader) -> None:
        self.paths = paths
        self.cores = cores
        self.loader = loader
        self.reasons: dict[str, str] = {}
        self._running: dict[str, Running] = {}
        self._stack = ExitStack()
        self._warm: set[tuple[str, str]] = set()
        self._has_tls = False

    def open(self) -> None:
        """Start the upstream, and keep one of its answers for the app that answers a constant."""
        argv = (str(self.loader.binaries / "upstream"), str(self.paths.upstream_port))
        session = self._start("upstream", argv, {}, self.cores.load)
        endpoint = Endpoint(self.paths.upstream_port)
        self.paths.answer.write_bytes(await_answer(endpoint, session, 5))
        self._running[UPSTREAM] = Running(endpoint, None)

    def close(self) -> None:
        self._stack.close()

    def _start(self, name: str, argv: tuple[str, ...], env: dict[str, str], cores: frozenset[int]) -> Session:
        log = self.paths.scratch / f"{name}.log"
        try:
            session = Session(Command(argv, env, self.paths.scratch, log), cores)
        except OSError as exc:
            raise StartError(f"cannot be started: {exc.strerror}: {argv[0]}") from exc
        self._stack.callback(session.stop)
        return session

    def script(self, **settings: int) -> None:
        """Configure the upstream for later requests; upstream.c describes the settings."""
        defaults = {"frames": 100, "interval_ms": 0, "delay_ms": 0, "hold": 0, "burst": 1, "step": 0}
        wanted = {**defaults, **settings}
        connection = http.client.HTTPConnection("127.0.0.1", self.paths.upstream_port, timeout=5)
        query = "&".join(f"{name}={value}" for name, value in wanted.items())
        connection.request("POST", f"/control?{query}", b"")
        connection.getresponse().read()
        connection.close()

    def running(self, name: str) -> Running | None:
        """The gateway, started if it is not; None if it cannot be, with the reason in `reasons`."""
        if name in self.reasons:
            return None
        if name not in self._running:
            try:
                self._running[name] = self._started(name)
            except StartError as exc:
                self.reasons[name] = str(exc)
                return None
        found_one = self._running[name]
        if found_one.session is not None and not found_one.session.is_running:
            self.reasons[name] = f"has ended; the end of its log:\n{found_one.session.log_tail()}"
            return None
        return found_one

    def _started(self, name: str) -> Running:
        if name in PEERS:
            install_peer(name, self.paths.cache)
        if name.endswith("-tls"):
            self._open_tls()
        with machine_lock():
            self.script()
            return self.launched(name, LAUNCHERS[name](self.paths, free_port()))

    def launched(self, name: str, launch: Launch) -> Running:
        """Start a gateway, and wait until it answers. Raises StartError."""
        session = self._start(name, launch.argv, dict(launch.env), self.cores.gateway)
        try:
            await_answer(launch.endpoint, session, launch.start_timeout_s)
        except StartError:
            session.stop()
            raise
        return Running(launch.endpoint, session)

    @contextmanager
    def fresh(self, name: str) -> Iterator[tuple[Endpoint, Session]]:
        """A gateway of its own inside, just started. Raises StartError."""
        with machine_lock():
            self.script()
            launch = LAUNCHERS[name](self.paths, free_port())
            running = self.launched(f"{name}-fresh", launch)
        assert running.session is not None
        try:
            yield running.endpoint, running.session
        finally:
            running.session.stop()

    def _open_tls(self) -> None:
        if self._has_tls:
            return
        make_certificates(self.paths.certificates)
        front = tls_front(self.paths)
        self._start("tls-front", front.argv, {}, self.cores.load)
        self._has_tls = True

    def measure(self, case: Case, name: str, seconds: int) -> Metrics | None:
        """Put the load on the gateway once; None if it does not run. Raises LoadError.

        CPU is that of all its processes until it is quiet again, per 1,000 answers or frames.
        """
        running = self.running(name)
        if running is None:
            return None
        with machine_lock():
            self.script(frames=case.frames or 100, interval_ms=case.interval_ms)
            if (case.name, name) not in self._warm and not case.total:
                self.loader.run(case, running.endpoint, WARM_UP_S)
            self._warm.add((case.name, name))
            if running.session is None:
                return self.loader.run(case, running.endpoint, seconds)
            running.session.settle()
            before = running.session.cpu_s()
            metrics = self.loader.run(case, running.endpoint, seconds)
            running.session.settle()
            cpu_s = running.session.cpu_s() - before
        amount = metrics["frames"] if case.frames else metrics["requests"]
        return {
            **metrics,
            "cpu_s": cpu_s,
            "cpu_s_per_1000": 1000 * cpu_s / amount,
            "rss_mib": running.session.rss_mib(),
        }


@contextmanager
def opened(root: Path, proxy_root: Path, cache: Path) -> Iterator[Fixture]:
    """A fixture with its upstream running. Raises StartError."""
    cores = split_cores()
    binaries = compiled(cache)
    scratch = Path(tempfile.mkdtemp(prefix="sanic-proxy-bench-"))
    paths = Paths(root, proxy_root, scratch, cache, free_port(), free_port())
    fixture = Fixture(paths, cores, Loader(binaries, scratch, cores.load))
    try:
        fixture.open()
        yield fixture
    finally:
        fixture.close()
        shutil.rmtree(scratch, ignore_errors=True)


_LEAF = """subjectAltName=DNS:localhost,IP:127.0.0.1
basicConstraints=CA:FALSE
extendedKeyUsage=serverAuth
authorityKeyIdentifier=keyid
subjectKeyIdentifier=hash
"""


def make_certificates(folder: Path) -> None:
    """A CA of our own, and a certificate for localhost that it signed. Raises StartError."""
    openssl = found("openssl")
    folder.mkdir()
    (folder / "leaf.ext").write_text(_LEAF)
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    ca = ("-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "30", "-subj", "/CN=Benchmark CA")
    usage = ("-addext", "keyUsage=critical,keyCertSign")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30", "-extfile", "leaf.ext")
    for argv in (
        (openssl, "req", *ca, *usage),
        (openssl, "req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost"),
        (openssl, "x509", "-req", "-in", "server.csr", *signed, "-out", "server.pem"),
    ):
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=30, check=False)
        if done.returncode:
            raise StartError(f"openssl failed:\n{done.stderr.strip()[-500:]}")
