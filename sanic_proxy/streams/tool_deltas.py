"""Tool calls in a stream's deltas: what client libraries need of them and some providers leave out.

OpenAI's first delta of a call has `index`, `id`, `type` and `function.name`; later ones have `index` and a
piece of `function.arguments`. openai-python's stream helper raises on a delta without `index` or `function`,
and hands on calls without `id` or `type` that cannot be answered. Nothing else of a delta is changed.
"""

from __future__ import annotations

from typing import TypeGuard

from sanic_proxy import errors
from sanic_proxy.json_types import Json
from sanic_proxy.openai import chunks

MAX_CALLS = 4096


class ToolDeltas:
    """The calls of one stream that have begun, by choice and index."""

    __slots__ = ("_by_id", "_last", "_made", "_named", "_plain")

    def __init__(self) -> None:
        # Whether each call that has begun has its name.
        self._named: dict[tuple[int, int], bool] = {}
        # Those that began with all they need.
        self._plain: set[tuple[int, int]] = set()
        self._by_id: dict[tuple[int, str], int] = {}
        self._last: dict[int, int] = {}
        # Calls whose id was made here: the provider's own, should it follow, would be appended to it.
        self._made: set[tuple[int, int]] = set()

    @property
    def has_calls(self) -> bool:
        """Whether any call has begun."""
        return bool(self._named)

    def are_complete(self, choice: int, calls: list[Json]) -> bool:
        """Whether a delta's calls need no change. They are remembered as far as that is so.

        Raises LookupError, TypeError or AttributeError where types are wrong: this is in the way of every
        piece of an argument.
        """
        for call in calls:
            if (choice, call["index"]) not in self._plain and not self._begins_plainly(choice, call):
                return False
            if not call.get("function"):
                return False
        return True

    def complete(self, choice: int, calls: object) -> bool:
        """Fill in what a delta's calls lack. False if they lacked nothing."""
        changed = [
            self._complete_one(choice, call)
            for call in (calls if isinstance(calls, list) else ())
            if isinstance(call, dict)
        ]
        return any(changed)

    def _begins_plainly(self, choice: int, call: Json) -> bool:
        key = choice, call["index"]
        if key in self._named or not (_is_index(key[1]) and _is_text(call.get("id"))):
            return False
        if not (_is_text(call.get("type")) and isinstance(call["function"].get("name"), str)):
            return False
        self._begin(key, call)
        return True

    def _complete_one(self, choice: int, call: Json) -> bool:
        before = dict(call)
        index = call.get("index")
        if not _is_index(index):
            index = self._index_of(choice, call)
            # In front, as OpenAI has it.
            fields = {key: value for key, value in call.items() if key != "index"}
            call.clear()
            call.update({"index": index, **fields})
        key = choice, index
        is_first = key not in self._named
        if is_first and not _is_text(call.get("id")):
            call["id"] = chunks.new_call_id()
            self._made.add(key)
        elif key in self._made:
            call.pop("id", None)
        if is_first and not _is_text(call.get("type")):
            call["type"] = "function"
        if not _has_body(call):
            call["function"] = {"arguments": ""}
        if is_first:
            if not _has_name(call):
                call["function"] = {"name": "", **_without_null(call["function"])}
            self._begin(key, call, is_plain=key not in self._made)
        elif not self._named[key]:
            self._named[key] = _has_text_name(call)
        self._last[choice] = index
        return call != before

    def _begin(self, key: tuple[int, int], call: Json, *, is_plain: bool = True) -> None:
        if len(self._named) >= MAX_CALLS:
            raise errors.UpstreamBadFrame(f"The provider's stream has more than {MAX_CALLS} tool calls")
        self._named[key] = _has_text_name(call) or "function" not in call
        self._by_id[key[0], call["id"]] = key[1]
        self._last[key[0]] = key[1]
        if is_plain:
            self._plain.add(key)

    def _index_of(self, choice: int, call: Json) -> int:
        """The index of a call without one: its id's; else a new call begins with an id or a name."""
        call_id = call.get("id")
        last = self._last.get(choice)
        if _is_text(call_id):
            known = self._by_id.get((choice, call_id))
            if known is not None:
                return known
        elif last is not None and not (_has_text_name(call) and self._named[choice, last]):
            return last
        return max((index for of, index in self._named if of == choice), default=-1) + 1


def _is_index(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value != ""


def _has_body(call: Json) -> bool:
    """A call of another type has a body of its own."""
    kind = call.get("type")
    return isinstance(call.get("function"), dict) or (_is_text(kind) and kind != "function")


def _has_name(call: Json) -> bool:
    function = call.get("function")
    return not isinstance(function, dict) or isinstance(function.get("name"), str)


def _has_text_name(call: Json) -> bool:
    function = call.get("function")
    return isinstance(function, dict) and _is_text(function.get("name"))


def _without_null(function: Json) -> Json:
    return {key: value for key, value in function.items() if not (key == "name" and value is None)}
