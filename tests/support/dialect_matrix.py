"""What arrives of each feature, for each client dialect and kind of provider: scripts/docs/dialect-matrix.md.

Every cell is executed: the feature's request (`dialect_features`) is prepared for a provider by the code that
prepares it in the proxy (`routing.adaption.aim`, and Straico's plan), and the provider's request is compared
with the client's. Nothing is sent. `python -m tests.support.dialect_matrix` prints the page, and fails if a
feature of a request is lost without notice.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass, replace
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any, Literal

from typing_extensions import override

from sanic_proxy.config.loader import load
from sanic_proxy.dialects.base import Dialect
from sanic_proxy.dialects.registry import DIALECTS
from sanic_proxy.errors import InvalidRequest
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.openai import codec
from sanic_proxy.providers.base import ChatProvider, ChatRequest
from sanic_proxy.providers.registry import build_providers
from sanic_proxy.providers.straico.parameters import dropped_params, dropped_parts
from sanic_proxy.providers.straico.plan import UpstreamPlan, build_plan
from sanic_proxy.providers.straico.replies import parse_reply
from sanic_proxy.providers.straico.validation import validator
from sanic_proxy.routing.adaption import aim
from sanic_proxy.routing.router import Router
from sanic_proxy.translation.translate import Translation
from sanic_proxy.upstream.client import UpstreamClient
from tests.support.dialect_features import ANSWERS, FEATURES, AnswerFeature, Feature

Outcome = Literal["works", "lossy", "refused", "lost"]
Json = dict[str, Any]

# The dialects of clients that have a table.
CLIENTS = ("chat", "messages", "responses", "gemini")
# The columns: a provider of each kind, as the prefix of its models.
PROVIDERS: Mapping[str, str] = {
    "OpenAI-like": "groq",
    "Anthropic": "anthropic",
    "Straico": "straico",
    "Responses-like": "lab",
    "Gemini": "google",
}
_SETTINGS = {
    "GROQ_API_KEY": "key-of-groq",
    "ANTHROPIC_API_KEY": "key-of-anthropic",
    "GOOGLE_API_KEY": "key-of-google",
    "STRAICO_API_KEY": "key-of-straico",
    "SANIC_PROXY_ROUTER": "on",
    "SANIC_PROXY_CONFIG": "sanic-proxy.toml",
}
# A provider that speaks Responses only, for the TOML file.
LAB_TABLE = '[providers.lab]\nbase_url = "{base_url}"\ndialects = ["responses"]\n'


@dataclass(frozen=True, slots=True)
class Cell:
    """The outcome for one feature, and how it is lossy or refused."""

    outcome: Outcome
    how: str = ""

    @override
    def __str__(self) -> str:
        return f"{self.outcome}: {self.how}" if self.how else self.outcome


@dataclass(frozen=True, slots=True)
class Prepared:
    """A client's request as a provider gets it; `plan` is Straico's."""

    request: ChatRequest
    translation: Translation | None
    plan: UpstreamPlan | None = None


class Matrix:
    """The providers of `PROVIDERS`, to which requests are prepared. Built in a running loop."""

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "sanic-proxy.toml").write_text(
                LAB_TABLE.format(base_url="https://lab.example/v1"), "utf-8"
            )
            settings = load(_SETTINGS, Path(folder))
        providers = build_providers(settings, UpstreamClient(settings.pool, settings.ssl_cert_file))
        self._router: Router[ChatProvider] = Router(
            providers,
            settings.providers_off,
            is_on=True,
            embedded=frozenset(),
            name_of=lambda provider: provider.name,
        )

    def cell(self, feature: Feature, client: str, provider: str) -> Cell | None:
        """What a provider gets of a feature; None where the client's dialect has no such feature."""
        fields = feature.request(client, provider)
        if fields is None:
            return None
        dialect = DIALECTS[client]
        try:
            prepared = self.prepared(dialect, fields)
        except InvalidRequest as exc:
            return Cell("refused", f"{exc.status}, `{exc.param}`" if exc.param else str(exc.status))
        if _arrives(feature, dialect, fields, prepared):
            return Cell("lossy", _names(prepared)) if prepared.request.dropped else Cell("works")
        if prepared.request.dropped:
            return Cell("lossy", _names(prepared))
        has_marks = feature.marks and all(mark in _text(prepared) for mark in feature.marks)
        return Cell("lossy", "as text") if has_marks else Cell("lost")

    def count_cell(self, client: str, provider: str) -> Cell | None:
        """How the tokens of a request are counted; None where the client's API has no such endpoint."""
        if client == "chat":
            return None
        (target,) = self._router.resolve(f"{provider}/model-x")
        return Cell("works") if client in target.provider.dialects else Cell("lossy", "estimate")

    def answer_cell(self, feature: AnswerFeature, client: str, provider: str) -> Cell | None:
        """What a client gets of a feature of answers; None where one of the two has no such feature."""
        dialect = DIALECTS[client]
        base = Feature("", lambda _: None, {}, {}, {}, {}).request(client, provider) or {}
        prepared = self.prepared(dialect, {**base, **feature.asked.get(client, {})})
        wire = prepared.request.wire
        if wire.name not in feature.answers or client not in feature.answers:
            return None
        made = feature.answers[wire.name]
        sent = made
        if prepared.plan is not None:
            sent = validator.completion(validator.validate(parse_reply(made), prepared.plan), model="m")
        body = codec.dumps(sent)
        if prepared.translation is not None:
            body = prepared.translation.whole(body)
        got = dialect.format.read_answer(json.loads(body))
        is_kept = feature.view(got) == feature.view(wire.format.read_answer(made))
        return Cell("works") if is_kept else Cell("lossy", "not in the answer")

    def prepared(self, dialect: Dialect, fields: Json) -> Prepared:
        """`fields` of a client as its provider gets them. Raises InvalidRequest."""
        in_path = {"model", "stream"} if dialect.has_model_in_path else set()
        body = json.dumps({name: value for name, value in fields.items() if name not in in_path}).encode()
        asked = dialect.parse(body, codec.loads_strict(body), None)
        if in_path:
            asked = replace(asked, model=fields["model"], is_streaming=fields.get("stream") is True)
        (target,) = self._router.resolve(asked.model)
        record = RequestRecord("r", "POST", dialect.path)
        request = ChatRequest(
            body, asked.fields, asked.model, target.upstream_model, asked.is_streaming, {}, record
        )
        request.dialect = request.wire = dialect
        request.original, request.is_for_stream = body, asked.is_streaming
        translation = aim(request, target)
        if target.provider.provider_kind != "emulated":
            return Prepared(request, translation)
        request.drop([*dropped_params(request.fields), *dropped_parts(request.fields["messages"])])
        return Prepared(request, translation, build_plan(request.fields, request.upstream_model))


def _arrives(feature: Feature, client: Dialect, fields: Json, prepared: Prepared) -> bool:
    """Whether the provider's request has the feature as the client's has it; Straico's plan has its marks."""
    if prepared.plan is not None:
        marks = feature.planned or feature.marks
        return bool(marks) and all(mark in _text(prepared) for mark in marks)
    request = prepared.request
    if request.wire is client and request.body == json.dumps(request.fields).encode():
        return True  # the client's bytes
    sent = request.fields
    if request.wire.has_model_in_path:
        sent = {**sent, "model": request.upstream_model, "stream": request.is_streaming}
    return feature.view(client.format.read_request(fields)) == feature.view(
        request.wire.format.read_request(sent)
    )


def _text(prepared: Prepared) -> str:
    if prepared.plan is None:
        return json.dumps(prepared.request.fields)
    return json.dumps({"plan": prepared.plan, "stream": prepared.request.is_streaming}, default=_plain)


def _plain(value: object) -> object:
    """The public fields of a dataclass; anything else as its text."""
    if not is_dataclass(value):
        return dict(value) if isinstance(value, Mapping) else str(value)
    names = (field.name for field in fields_of(value))
    return {name: getattr(value, name) for name in names if not name.startswith("_")}


def _names(prepared: Prepared) -> str:
    return ", ".join(f"`{name}`" for name in prepared.request.dropped)


def losses(matrix: Matrix) -> Iterator[str]:
    """The cells of requests in which something is lost without notice."""
    for client in CLIENTS:
        for feature in FEATURES:
            for provider in PROVIDERS.values():
                if (cell := matrix.cell(feature, client, provider)) and cell.outcome == "lost":
                    yield f"{client} -> {provider}: {feature.name}"


_HEAD = """# What arrives: clients' dialects and providers

Generated by `scripts/generate`: each cell is the result of a small request or answer that is translated as
the proxy does it, for a provider that speaks chats only (OpenAI-like; here groq), for Anthropic, Straico, a
provider that speaks Responses only, and google, which speaks Gemini and chats.

| | |
|---|---|
| works | arrives as the client wrote it, or as the provider's API has it |
| lossy: `name` | what is named does not arrive, or is changed; `x-sanic-proxy-dropped-params` names it |
| lossy: as text | arrives as words, in the conversation or in the name or description of a tool |
| lossy: estimate | the proxy estimates the number, and `x-sanic-proxy-estimated` says so |
| lossy: not in the answer | the client's API has no place for it |
| refused: 400, `name` | rejected, with the parameter that is the reason |
| – | not in that API |

A provider that speaks the client's dialect gets the client's bytes. Stored responses (`store`,
`previous_response_id`) are the proxy's own and work with every provider: see
[dialects.md](dialects.md#stored-responses). With `strict = true` in a model's table a request that would be
lossy with a name is rejected.
"""


_TITLES = {"chat": "chat", "messages": "Messages", "responses": "Responses", "gemini": "Gemini"}


def page(matrix: Matrix) -> str:
    """The document."""
    sections = [_HEAD]
    for client, title in _TITLES.items():
        requests = [
            (feature.name, [matrix.cell(feature, client, provider) for provider in PROVIDERS.values()])
            for feature in FEATURES
        ]
        counted = [matrix.count_cell(client, provider) for provider in PROVIDERS.values()]
        answers = [
            (feature.name, [matrix.answer_cell(feature, client, provider) for provider in PROVIDERS.values()])
            for feature in ANSWERS
        ]
        sections += [
            f"## Clients of {title}: requests\n\n{_table([*requests, ('counting tokens', counted)])}",
            f"## Clients of {title}: whole answers\n\n{_table(answers)}",
        ]
    return "\n".join(sections)


def _table(rows: list[tuple[str, list[Cell | None]]]) -> str:
    head = ["feature", *PROVIDERS]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name, cells in rows:
        shown = ["–" if cell is None else str(cell) for cell in cells]
        if any(cell is not None for cell in cells):
            lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


async def generated() -> str:
    """The document. Raises ValueError with the features that are lost without notice."""
    matrix = Matrix()
    if lost := list(losses(matrix)):
        raise ValueError("lost without notice:\n" + "\n".join(lost))
    return page(matrix)


if __name__ == "__main__":
    sys.stdout.write(asyncio.run(generated()))
