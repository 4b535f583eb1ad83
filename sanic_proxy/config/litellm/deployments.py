"""`model_list`: each entry is a deployment, those of one name are a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sanic_proxy.config.litellm.costs import COMMON_NAMES, prices_of
from sanic_proxy.config.litellm.document import Path
from sanic_proxy.config.litellm.keys import INFO, MODEL, PARAMS, REQUEST_PARAMS
from sanic_proxy.config.litellm.upstreams import Upstreams
from sanic_proxy.config.litellm.work import Work
from sanic_proxy.config.variables import Params
from sanic_proxy.json_types import JsonMapping

MAX_WEIGHT = 1_000_000
# Keys that stand beside `litellm_params`, and mean the same there.
_BESIDE = ("rpm", "tpm", "weight", "order")


@dataclass(frozen=True, slots=True)
class Deployment:
    """One target of the group `name`. `prices` is the table of ours; None: not said."""

    name: str
    provider: str
    model: str
    order: int = 1
    weight: float | None = None
    rpm: int | None = None
    tpm: int | None = None
    concurrent: int | None = None
    context_window: int | None = None
    max_output: int | None = None
    prices: JsonMapping = field(default_factory=dict)
    stream_timeout_s: float | None = None
    default_params: Mapping[str, object] = field(default_factory=dict)
    remove_params: tuple[str, ...] = ()

    @property
    def changes(self) -> tuple[object, ...]:
        """What is changed in its requests: one model has it for all of its targets."""
        return self.default_params, self.remove_params


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for deployments that do not say it. `params` are further ones by name."""

    params: Mapping[str, object]
    credentials: Mapping[str, Mapping[str, object]]
    timeout_s: float | None = None
    concurrent: int | None = None
    drops: bool = False


class Reader:
    """Reads the deployments of a file. `passes_any`: an entry `*` for `*` lets prefixes pick the provider."""

    def __init__(self, work: Work, upstreams: Upstreams, defaults: Defaults) -> None:
        self._work = work
        self._upstreams = upstreams
        self._defaults = defaults
        self.passes_any = False

    def read(self, entries: object) -> list[Deployment]:
        """The deployments that can be served, in the file's order; a note says why another cannot."""
        if not isinstance(entries, list | None):
            self._work.note(("model_list",), "ignored", "expected a list")
        found: list[Deployment] = []
        first: dict[str, Deployment] = {}
        for place, entry in enumerate(entries if isinstance(entries, list) else []):
            path = ("model_list", place)
            deployment = self._deployment(path, entry)
            if deployment is not None:
                found.append(deployment)
                if deployment.changes != first.setdefault(deployment.name, deployment).changes:
                    text = "the parameters of the name's first deployment count for all of them"
                    self._work.note((*path, "litellm_params"), "approximate", text)
        return found

    def _deployment(self, path: Path, entry: object) -> Deployment | None:
        work = self._work
        given = entry.get("litellm_params") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(given, dict):
            work.note(path, "ignored", "expected model_name and litellm_params")
            return None
        self._note(path, entry, given)
        name = work.text(entry.get("model_name"))
        if name is None or not _is_name(name):
            work.note((*path, "model_name"), "ignored", "expected up to 256 printable ASCII characters")
            return None
        params = {**self._defaults.params, **self._credentials(path, given), **given}
        params |= {key: entry[key] for key in _BESIDE if key in entry and key not in given}
        path = (*path, "litellm_params")
        if name == work.text(params.get("model")) == "*":
            self.passes_any = True
            work.note((*path, "model"), "approximate", "prefixes pick the provider; other names need one")
            return None
        placed = self._upstreams.vendor(path, params)
        if placed is None:
            return None
        vendor, model = placed
        timeout_s = work.number((*path, "timeout"), params.get("timeout"))
        own_timeout_s = None if timeout_s == self._defaults.timeout_s else timeout_s
        drops = work.is_on(params.get("drop_params", self._defaults.drops))
        upstream = self._upstreams.upstream(path, vendor, params, own_timeout_s or None, drops=drops)
        if upstream is None:
            return None
        deployment = Deployment(name, self._upstreams.name(upstream), model)
        return self._described(deployment, path, params, _mapping(entry.get("model_info")))

    def _described(
        self, deployment: Deployment, path: Path, params: Mapping[str, object], info: Mapping[str, object]
    ) -> Deployment:
        """The deployment with its numbers."""
        work = self._work
        window = info.get("max_input_tokens") or info.get("max_tokens")
        for name in COMMON_NAMES:
            work.number((*path, name), params.get(name, info.get(name)))  # a note for what is no price
        costs = {name: work.value(value) for name, value in {**info, **params}.items() if "cost" in name}
        tiers = {"tiered_pricing": {**info, **params}.get("tiered_pricing")}
        return replace(
            deployment,
            order=work.count((*path, "order"), params.get("order")) or 1,
            weight=work.number((*path, "weight"), params.get("weight")),
            rpm=work.count((*path, "rpm"), params.get("rpm")),
            tpm=work.count((*path, "tpm"), params.get("tpm")),
            concurrent=work.count((*path, "max_parallel_requests"), params.get("max_parallel_requests"))
            or self._defaults.concurrent,
            context_window=work.count((*path[:-1], "model_info"), window),
            max_output=work.count((*path[:-1], "model_info"), info.get("max_output_tokens")),
            prices=prices_of({**costs, **tiers}),
            stream_timeout_s=work.number((*path, "stream_timeout"), params.get("stream_timeout")),
            default_params=self._default_params(path, params),
            remove_params=tuple(
                name for name in _list(params.get("additional_drop_params")) if isinstance(name, str) and name
            ),
        )

    def _note(self, path: Path, entry: Mapping[str, object], params: Mapping[str, object]) -> None:
        work = self._work
        work.note_keys(path, entry, MODEL)
        ours = [name for name in params if name in REQUEST_PARAMS]
        # Where the model itself is not quite served as in LiteLLM, there is a note of its own.
        work.note_keys((*path, "litellm_params"), params, PARAMS, skip={*ours, "model"})
        work.note_keys((*path, "model_info"), _mapping(entry.get("model_info")), INFO)

    def _default_params(self, path: Path, params: Mapping[str, object]) -> dict[str, object]:
        """The parameters of requests that the deployment sets where the client does not."""
        found: dict[str, object] = {}
        for name in sorted(REQUEST_PARAMS & params.keys()):
            given = self._work.value(params[name])
            try:
                values = Params().from_toml(given if name == "extra_body" else {name: given})
            except ValueError:
                values = {}
            if not values or "${" in str(values):
                self._work.note((*path, name), "ignored", "it cannot be a parameter of a request")
            else:
                found |= values
                self._work.note((*path, name), "exact")
        return found

    def _credentials(self, path: Path, params: Mapping[str, object]) -> Mapping[str, object]:
        name = self._work.text(params.get("litellm_credential_name"))
        if name is None:
            return {}
        if name not in self._defaults.credentials:
            where = (*path, "litellm_params", "litellm_credential_name")
            self._work.note(where, "ignored", "there is no credential of that name in credential_list")
        return self._defaults.credentials.get(name, {})


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _is_name(name: str) -> bool:
    return len(name) <= 256 and name.isascii() and name.isprintable()


def weights(group: Sequence[Deployment]) -> list[float]:
    """The weight of each deployment of a group, as LiteLLM's simple-shuffle takes it.

    By `weight` if any has one, else by `rpm`, else by `tpm`, else all alike.
    """
    for metric in ("weight", "rpm", "tpm"):
        found = [float(getattr(deployment, metric) or 0) for deployment in group]
        if any(found):
            largest = max(found)
            return found if largest <= MAX_WEIGHT else [round(weight / largest, 6) for weight in found]
    return [1.0] * len(group)
