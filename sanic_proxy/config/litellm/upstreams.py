"""Where a deployment's requests go: vendor, address, key and headers -> a provider's table."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field

from sanic_proxy.config.catalog import Row
from sanic_proxy.config.litellm.document import Path
from sanic_proxy.config.litellm.vendors import UNSUPPORTED, VENDORS, Vendor, vendor_of_bare
from sanic_proxy.config.litellm.work import LEFT_OUT, MAX_SHOWN_CHARS, Work, referred
from sanic_proxy.config.urls import ENDPOINTS, url_fault
from sanic_proxy.config.variables import Headers, Keys, suggestion

COMPATIBLE = "openai-compatible"
# LiteLLM waits as long between two bytes as for the first; a stream that brings nothing for so long is dead.
MAX_IDLE_S = 120.0
MAX_TIMEOUT_S = 86400.0


@dataclass(frozen=True, slots=True)
class Upstream:
    """Deployments with equal upstreams share a provider. `base_url` and `key` are None for those of the row.

    `key` is the name of a variable, "" for none. Header values are text that may hold `${NAME}`. `drops`:
    parameters that the vendor rejects are removed.
    """

    vendor: Vendor
    base_url: str | None
    key: str | None
    headers: tuple[tuple[str, str], ...] = ()
    timeout_s: float | None = None
    drops: bool = False


@dataclass(slots=True)
class Upstreams:
    """Reads upstreams, and gives each a provider's name and table."""

    work: Work
    names: dict[Upstream, str] = field(default_factory=dict)

    def vendor(self, path: Path, params: Mapping[str, object]) -> tuple[Vendor, str] | None:
        """The vendor of a deployment and the vendor's name for the model; None, with a note, for none."""
        model = self.work.text(params.get("model"))
        if model is None:
            self.work.note((*path, "model"), "ignored", f"there is no model: {LEFT_OUT}")
            return None
        custom = self.work.text(params.get("custom_llm_provider"))
        prefix, slash, rest = model.partition("/")
        if custom is not None:
            rest = rest if slash and prefix == custom else model
            prefix = custom
        elif not slash or (prefix not in VENDORS and prefix not in UNSUPPORTED):
            found = vendor_of_bare(model) if not slash else None
            if found is None and ("api_base" in params or "base_url" in params):
                self.work.note((*path, "model"), "approximate", "without a known prefix: as `openai/`")
                found = "openai"
            if found is not None:
                prefix, rest = found, model
        vendor = VENDORS.get(prefix)
        if vendor is None or not rest:
            self._note_unsupported(path, model, prefix)
            return None
        if rest.startswith("responses/"):
            rest = rest.removeprefix("responses/")
            self.work.note((*path, "model"), "approximate", "chats stay chats: they do not become responses")
        else:
            self.work.note((*path, "model"), "approximate" if vendor.note else "exact", vendor.note)
        if vendor.model_prefix and "/" not in rest:
            rest = vendor.model_prefix + rest
        return vendor, rest

    def _note_unsupported(self, path: Path, model: str, prefix: str) -> None:
        if "/" not in model:
            text = f"{model[:MAX_SHOWN_CHARS]!r} has no prefix, and it is not known whose model it is"
        elif prefix in UNSUPPORTED:
            text = f"the provider {prefix!r} is not supported"
        else:
            guess = suggestion(prefix, [*VENDORS, *sorted(UNSUPPORTED)])
            text = f"the prefix {prefix[:MAX_SHOWN_CHARS]!r} is not the name of a provider{guess}"
        self.work.note((*path, "model"), "ignored", f"{text}: {LEFT_OUT}")

    def upstream(
        self,
        path: Path,
        vendor: Vendor,
        params: Mapping[str, object],
        timeout_s: float | None,
        *,
        drops: bool,
    ) -> Upstream | None:
        """Where the requests go; None, with a note, where that cannot work."""
        name = "api_base" if params.get("api_base") is not None else "base_url"
        raw = params.get(name)
        if raw is None and vendor.base_variable in self.work.environ:
            raw = f"os.environ/{vendor.base_variable}"
        base_url, fault = self._base_url(vendor, raw)
        if fault is not None:
            self.work.note((*path, name), "ignored", f"{fault}: {LEFT_OUT}")
            return None
        where = (*path, "api_key")
        key, fault = self._key(where, vendor, params.get("api_key"), is_own_address=base_url is not None)
        if fault is not None:
            self.work.note(where, "ignored", f"{fault}: {LEFT_OUT}")
            return None
        drops = drops and vendor.row is not None and bool(vendor.row.unsupported_params)
        return Upstream(vendor, base_url, key, self._headers(path, params), timeout_s, drops)

    def _base_url(self, vendor: Vendor, raw: object) -> tuple[str | None, str | None]:
        """The address (None: the row's own), and why there is none."""
        if raw is None:
            if vendor.base_url is None:
                return None, "an api_base is needed"
            is_rows = vendor.row is not None and vendor.row.base_url == vendor.base_url
            return (None if is_rows else vendor.base_url), None
        variable, given = referred(raw), self.work.text(raw)
        if given is None:
            return (f"${{{variable}}}", None) if variable else (None, "api_base is no text")
        base_url = _cleaned(given, vendor.base_suffix)
        if url_fault(base_url) is not None:
            return None, "api_base is no http or https URL"
        if vendor.row is not None and vendor.row.base_url == base_url:
            return None, None
        if variable and base_url.startswith(given) and not given.endswith("/"):
            return f"${{{variable}}}{base_url[len(given) :]}", None
        return base_url, None

    def _key(
        self, path: Path, vendor: Vendor, raw: object, *, is_own_address: bool
    ) -> tuple[str | None, str | None]:
        """The variable with the key ("" for none, None: the row's), and why the key cannot be used."""
        if (named := referred(raw)) is not None:
            is_rows = vendor.row is not None and not is_own_address and named == vendor.key_variable
            return (None if is_rows else named), None
        if (literal := self.work.text(raw)) is not None:
            try:
                is_single = len(Keys().parse(literal)) == 1
            except ValueError:
                is_single = False
            if not is_single:
                return None, "the key holds a comma, a space, quotes or a character that is not ASCII"
            return self.work.secret(path, literal), None
        if vendor.row is not None and not is_own_address:
            return None, None
        # As LiteLLM: without a key, the vendor's own variable is used, whatever the address.
        own = vendor.key_variable or ""
        is_vendors = vendor.row is None and vendor.base_url is not None
        return (own if is_vendors or own in self.work.environ else ""), None

    def _headers(self, path: Path, params: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
        found: dict[str, str] = {}
        for section in ("headers", "extra_headers"):
            given = params.get(section)
            for name, value in (given if isinstance(given, dict) else {}).items():
                where, text = (*path, section, name), self.work.text(value) or ""
                if not text and referred(value) is None:
                    continue
                try:
                    Headers().from_toml({name: text})
                except ValueError:
                    self.work.note(where, "ignored", "it cannot be sent as a header")
                    continue
                found[name.lower()] = f"${{{referred(value) or self.work.secret(where, text, 'HEADER')}}}"
        organization = params.get("organization")
        if isinstance(organization, list):
            self.work.note((*path, "organization"), "approximate", "the first of the organizations")
            organization = organization[0] if organization else None
        if (named := self.work.text(organization)) is not None:
            variable = referred(organization)
            found["openai-organization"] = f"${{{variable}}}" if variable else named
        return tuple(sorted(found.items()))

    # Names and tables

    def name(self, upstream: Upstream) -> str:
        """The provider's name: the row's where it can be, else with a number."""
        if upstream not in self.names:
            row = upstream.vendor.row
            is_rows = row is not None and (upstream.base_url is None or row.base_url is None)
            base = row.name if row is not None else upstream.vendor.name.replace("_", "-")
            if row is not None and not is_rows and row.name == "openai":
                base = COMPATIBLE
            taken = set(self.names.values()) | ({row.name} if row is not None and not is_rows else set())
            number, name = 1, base
            while name in taken:
                number += 1
                name = f"{base}-{number}"
            self.names[upstream] = name
        return self.names[upstream]

    def tables(self) -> dict[str, dict[str, object]]:
        """The tables `[providers.NAME]`."""
        return {name: self._table(name, upstream) for upstream, name in self.names.items()}

    def _table(self, name: str, upstream: Upstream) -> dict[str, object]:
        row = upstream.vendor.row
        table: dict[str, object] = {}
        is_rows = row is not None and row.name == name
        if upstream.base_url is not None:
            table["base_url"] = upstream.base_url
        elif row is not None and not is_rows:
            table["base_url"] = row.base_url
        if upstream.key:
            table["api_key_env"] = upstream.key
        elif upstream.key is None and row is not None and not is_rows and row.key_variable:
            table["api_key_env"] = row.key_variable
        if row is not None and not is_rows and not name.startswith(COMPATIBLE):
            table |= _apis(row)
        if upstream.drops:
            table["remove_params"] = [] if row is None else list(row.unsupported_params)
        if upstream.headers:
            table["headers"] = dict(upstream.headers)
        if upstream.timeout_s is not None:
            table["timeouts"] = timeouts(upstream.timeout_s)
        return table


def _apis(row: Row) -> dict[str, object]:
    """What another address of a vendor has in common with the vendor's own."""
    plain = Row("", None, None)
    table: dict[str, object] = {}
    if row.dialects != plain.dialects:
        table["dialects"] = list(row.dialects)
    if row.key_header != plain.key_header:
        table["key_header"] = row.key_header
    return table


def timeouts(timeout_s: float) -> dict[str, float]:
    """The clocks of a provider for LiteLLM's `timeout`."""
    first_byte_s = seconds(timeout_s)
    clocks = {"first_byte": first_byte_s, "idle": min(first_byte_s, MAX_IDLE_S)}
    return {**clocks, "total": first_byte_s} if first_byte_s > 600 else clocks


def seconds(given_s: float) -> float:
    """A duration within the bounds of our settings."""
    return round(min(max(given_s, 0.001), MAX_TIMEOUT_S), 3)


def _cleaned(url: str, suffix: str) -> str:
    """A base URL without an endpoint at its end, and with the vendor's suffix where it has no path."""
    plain = ENDPOINTS.sub("", url.rstrip("/")).rstrip("/")
    try:
        path = urllib.parse.urlsplit(plain).path
    except ValueError:
        return plain
    if suffix.startswith("/openai") and "/openai" in path:
        return plain[: plain.index("/openai", len(plain) - len(path))] + suffix
    return plain if path else plain + suffix
