"""The document about LiteLLM's file, made from the declared keys and prefixes."""

from __future__ import annotations

from collections.abc import Iterator

from sanic_proxy.config.litellm.keys import PARAMS, REQUEST_PARAMS, SECTIONS, Rule, Rules
from sanic_proxy.config.litellm.vendors import UNSUPPORTED, VENDORS

_PAGE = """\
# LiteLLM's configuration file

    sanic-proxy serve --config litellm_config.yaml
    sanic-proxy check --config litellm_config.yaml --explain     # prints our own TOML for it

A file whose name ends in `.yaml` or `.yml` (also in `SANIC_PROXY_CONFIG`) is read as that of LiteLLM's
proxy, unchanged. Each key that does not do here exactly what it does there is named at the start with its
line: *approximate*, *ignored* or *unknown* (it is not a key of LiteLLM's either; a guess follows). Nothing of
that keeps the proxy from starting: a model whose provider is not supported or whose variable is not set is
left out, and the rest is served. One thing does: a `master_key` that names a variable which is not set, as
the proxy would be open to everybody.

Differences to know:

- The address is that of `SANIC_PROXY_HOST` and `SANIC_PROXY_PORT` (127.0.0.1:8000; LiteLLM's is
  0.0.0.0:4000).
- Clients can use the names of the file, and no others; `GET /v1/models` lists them. Names with `*` are
  served as in LiteLLM; the models of the provider that they match are listed.
- Settings of the environment and of `.env` win over the file.
- Without `routing_strategy`, deployments of one name are chosen at random by `weight`, else by `rpm`, else
  by `tpm`, as LiteLLM's `simple-shuffle` does. A failed request goes to the group's other deployments, then
  to its fallbacks.
- Fallbacks by cause (`context_window_fallbacks`, `content_policy_fallbacks`) become targets with
  `only_after`.
- Keys, budgets, teams, callbacks, guardrails and caches of LiteLLM have no counterpart.
- Keys that are not in the tables below and that LiteLLM 1.110 reads are ignored, and named at the start.
- API keys that are written in the file appear in no output. `--explain` gives them the names of variables
  (`LITELLM_KEY_1`), to be set before its TOML is used.

## Providers

Supported prefixes: {supported}.

`openai/` with `api_base` is any server that speaks OpenAI's protocol. `azure/` uses Azure's v1 endpoint
(`https://RESOURCE.openai.azure.com/openai/v1`). Not supported, and named at the start: {unsupported}.

## Keys
{sections}"""


_REQUEST_PARAM = Rule("exact", "for requests that do not have it; the fallbacks of the name get it, too")


def page() -> str:
    """The document, as Markdown."""
    return _PAGE.format(
        supported=", ".join(f"`{name}`" for name in sorted(VENDORS)),
        unsupported=", ".join(sorted(UNSUPPORTED)),
        sections="".join(_section(name, rules) for name, rules in SECTIONS.items()),
    )


def _section(name: str, rules: Rules) -> str:
    title = "The file" if name == "(top)" else f"`{name}`"
    if rules is PARAMS:
        rules = {**rules, **dict.fromkeys(sorted(REQUEST_PARAMS), _REQUEST_PARAM)}
    others = ", ".join(
        f"`{key}`" for key, rule in sorted(rules.items()) if not (rule.is_common or rule.is_rare)
    )
    lines = [f"\n### {title}\n\n| key | outcome | |\n|---|---|---|\n", *(f"{row}\n" for row in _rows(rules))]
    if others:
        lines.append(f"\nAlso ignored: {others}.\n")
    return "".join(lines)


def _rows(rules: Rules) -> Iterator[str]:
    """A row for each outcome and text, with all keys that share them."""
    rows: dict[tuple[str, str], list[str]] = {}
    for key, rule in rules.items():
        if rule.is_common:
            rows.setdefault((rule.outcome, rule.text), []).append(f"`{key}`")
    for (outcome, text), keys in rows.items():
        yield f"| {', '.join(keys)} | {outcome} | {text} |"
