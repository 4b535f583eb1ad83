"""OpenAI's messages -> text turns of system, user and assistant. Pure.

Calls and results become text (`families`). An image is replaced by a reference with its number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.providers.straico import families
from sanic_proxy.providers.straico.images import MAX_IMAGES, PART_KINDS, Image, parse_image
from sanic_proxy.providers.straico.tools import Family

# Tuples, because a client's value need not be hashable.
_SYSTEM_ROLES = ("system", "developer")
_RESULT_ROLES = ("tool", "function")
_TEXT_KINDS = ("text", "refusal", "input_text", "output_text")


class Conversation:
    """Converts messages in order, collecting the images, and matching results with calls."""

    def __init__(self, family: Family) -> None:
        self._family = family
        # By the client's id. Ids may be missing or repeated; results answer the oldest call first.
        self._pending: dict[str, deque[families.PastCall]] = {}
        self._answered: dict[str, families.PastCall] = {}
        self._labels: set[str] = set()
        self._count = 0
        self.images: list[Image] = []

    def convert(self, messages: list[object]) -> list[dict[str, str]]:
        """Convert all messages. Raises InvalidRequest with the path of the invalid part."""
        turns: list[tuple[str, list[str]]] = []
        results: list[str] = []
        was_result = False
        for index, message in enumerate(messages):
            path = f"messages.{index}"
            if not isinstance(message, dict):
                raise InvalidRequest("A message must be an object", param=path)
            role = message.get("role")
            upstream_role = _role(role, path)
            content = self._content(message, path)
            if role in _RESULT_ROLES and was_result:
                # Consecutive results are one turn, because some models require alternating roles.
                results.append(content or "")
            elif content is not None:
                results = [content]
                turns.append((upstream_role, results))
            was_result = role in _RESULT_ROLES
        return [{"role": role, "content": "\n\n".join(texts)} for role, texts in turns]

    def _content(self, message: Mapping[str, object], path: str) -> str | None:
        """The text of a message; None for an empty assistant turn."""
        text = self._text(message.get("content"), f"{path}.content")
        if message.get("role") in _RESULT_ROLES:
            return self._result(message, text)
        if message.get("role") != "assistant":
            return text
        calls = [*self._calls(message, path)]
        if not calls:
            # Straico rejects empty assistant turns.
            refusal = message.get("refusal")
            return text or (refusal if isinstance(refusal, str) and refusal else None)
        rendered = families.render_calls(calls, family=self._family)
        return f"{text}\n\n{rendered}" if text else rendered

    def _text(self, content: object, path: str) -> str:
        if content is None:
            return ""
        if isinstance(content, str):
            return content
        if not isinstance(content, list):
            raise InvalidRequest("`content` must be a string or a list of parts", param=path)
        return "\n".join([self._part(part, f"{path}.{index}") for index, part in enumerate(content)])

    def _part(self, part: object, path: str) -> str:
        if not isinstance(part, dict):
            raise InvalidRequest("A content part must be an object with a type", param=path)
        kind = part.get("type")
        text = part.get("refusal" if kind == "refusal" else "text")
        if kind in _TEXT_KINDS and isinstance(text, str):
            return text
        if isinstance(kind, str) and kind in PART_KINDS:
            self.images.append(parse_image(part, path))
            if len(self.images) > MAX_IMAGES:
                raise InvalidRequest(
                    f"A conversation may have at most {MAX_IMAGES} images", param=f"{path}.image_url"
                )
            return f"[image {len(self.images)}]"
        if kind in ("input_audio", "file"):
            raise InvalidRequest(f"Straico supports text and images, but no `{kind}` parts", param=path)
        raise InvalidRequest("A content part must be an object with a type and its text", param=path)

    def _calls(self, message: Mapping[str, object], path: str) -> Iterator[families.PastCall]:
        entries = message.get("tool_calls") or []
        older = message.get("function_call")
        if isinstance(older, dict):
            entries = [{"id": older.get("name"), "function": older}]
        if not isinstance(entries, list):
            raise InvalidRequest("`tool_calls` must be a list", param=f"{path}.tool_calls")
        for index, entry in enumerate(entries):
            where = f"{path}.tool_calls.{index}"
            function = entry.get("function") if isinstance(entry, dict) else None
            if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                raise InvalidRequest("A tool call must have a `function` with a `name`", param=where)
            arguments = function.get("arguments", "{}")
            if not isinstance(arguments, str):
                raise InvalidRequest("The arguments of a tool call must be a string", param=where)
            yield self._remember(str(entry.get("id") or function["name"]), function["name"], arguments)

    def _remember(self, call_id: str, name: str, arguments: str) -> families.PastCall:
        label = families.label_for(call_id, name, self._count, family=self._family)
        self._count += 1
        if label in self._labels:
            label = f"{label}-{self._count}"
        self._labels.add(label)
        call = families.PastCall(label, name, arguments)
        self._pending.setdefault(call_id, deque()).append(call)
        return call

    def _result(self, message: Mapping[str, object], text: str) -> str:
        given = str(message.get("tool_call_id") or message.get("name") or "")
        call = self._call_of(given) or families.PastCall(given, str(message.get("name") or ""), "")
        return families.render_result(call.label, call.name, text, family=self._family)

    def _call_of(self, call_id: str) -> families.PastCall | None:
        """The call that a result answers: the oldest pending one with its id, or of all if it has no id."""
        pending = self._pending.get(call_id)
        if not call_id:
            pending = next(iter(self._pending.values()), None)
        if pending:
            self._answered[call_id] = pending.popleft()
            if not pending:
                # The search for the oldest pending call requires that no queue is empty.
                del self._pending[call_id or next(iter(self._pending))]
        return self._answered.get(call_id)


def _role(role: object, path: str) -> str:
    if not isinstance(role, str):
        raise InvalidRequest("`role` must be a string", param=f"{path}.role")
    if role in _SYSTEM_ROLES:
        return "system"
    if role in _RESULT_ROLES:
        return "user"
    if role in ("user", "assistant"):
        return role
    raise InvalidRequest("`role` must be system, developer, user, assistant or tool", param=f"{path}.role")


def add_system_text(turns: list[dict[str, str]], text: str) -> list[dict[str, str]]:
    """Append `text` to the first system turn, or add one."""
    for turn in turns:
        if turn["role"] == "system":
            turn["content"] = f"{turn['content']}\n\n{text}" if turn["content"] else text
            return turns
    return [{"role": "system", "content": text}, *turns]


def merge_system_turns(turns: list[dict[str, str]]) -> list[dict[str, str]]:
    """Move the text of system turns to the beginning of the first user turn."""
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    rest = [turn for turn in turns if turn["role"] != "system"]
    if not system:
        return rest
    if rest and rest[0]["role"] == "user":
        first = {"role": "user", "content": f"{system}\n\n{rest[0]['content']}"}
        return [first, *rest[1:]]
    return [{"role": "user", "content": system}, *rest]
