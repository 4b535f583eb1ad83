"""Tool calls in the text of models: the vectors, damaged calls, and generated ones."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.providers.straico.families import PastCall, label_for, render_calls
from sanic_proxy.providers.straico.tool_parser.parser import ParsedText, parse, split_thinking
from sanic_proxy.providers.straico.tools import Family, Tool, compact
from tests.support.machine import slowness
from tests.support.odd import JSON

VECTORS = json.loads((Path(__file__).parents[3] / "vectors" / "straico_tool_calls.json").read_text("utf-8"))
FAMILIES: tuple[Family, ...] = ("json", "qwen", "z-ai", "moonshotai")


def tool(name: str, **parameters: Any) -> Tool:
    properties = {key: {"type": kind} if isinstance(kind, str) else kind for key, kind in parameters.items()}
    return Tool(name, "", {"type": "object", "properties": properties})


TOOLS = [
    tool("get_weather", city="string", note="string"),
    tool("get_time", tz="string"),
    tool("get_forecast", city="string", days="integer", hourly="boolean"),
    tool("read_file", path="string"),
    tool("write_file", path="string", text="string"),
    tool("edit", path="string", new="string"),
    tool("grep", pattern="string"),
    tool("search", q="string"),
    tool("run_shell", cmd="string", timeout="integer"),
    tool("ls", p="string"),
    tool("view", path="string"),
    tool("lookup_zip", zip="string"),
    tool("tag_files", paths={"type": "array", "items": {"type": "string"}}),
]


def parse_values(text: str, *, is_truncated: bool = False) -> list[tuple[str, Any]]:
    parsed = parse(text, tools=TOOLS, is_truncated=is_truncated)
    return [(call.name, json.loads(call.arguments)) for call in parsed.calls]


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["id"] for vector in VECTORS])
def test_vector(vector: dict[str, Any]) -> None:
    is_truncated = vector["upstream_finish_reason"] == "length"
    expected = vector["expect"]
    parsed = parse(vector["text"], tools=TOOLS if vector["tools"] else [], is_truncated=is_truncated)
    assert [[call.name, json.loads(call.arguments)] for call in parsed.calls] == expected["calls"]
    assert parsed.content == expected["content"]


# The markup of other families

NS = "antml" + ":"
WEATHER = [("get_weather", {"city": "Bonn"})]


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name":"get_weather","arguments":{"city":"Bonn"}}</tool_call>',
        '<tool_call>{"name":"get_weather","parameters":{"city":"Bonn"}}</tool_call>',
        '<tool_call>{"tool":"get_weather","args":{"city":"Bonn"}}',
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Bonn</arg_value></tool_call>",
        '<tool_call id="c1">get_weather\n<arg_key>city</arg_key>\n<arg_value>Bonn</arg_value>\n</tool_call>',
        '<tool_call>get_weather\n{"city":"Bonn"}\n</tool_call>',
        f'<{NS}function_calls>\n<{NS}invoke name="get_weather">\n'
        f'<{NS}parameter name="city">Bonn</{NS}parameter>\n'
        f"</{NS}invoke>\n</{NS}function_calls>",
        '<minimax:tool_call><invoke name="get_weather"><parameter name="city">Bonn</parameter></invoke>'
        "</minimax:tool_call>",
        "<function=get_weather><parameter=city>Bonn</parameter></function>",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"
        '```json\n{"city":"Bonn"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city":"Bonn"}<｜tool▁call▁end｜>'
        "<｜tool▁calls▁end｜>",
        '[TOOL_CALLS][{"name":"get_weather","arguments":{"city":"Bonn"}}]',
        '[TOOL_CALLS]get_weather[ARGS]{"city":"Bonn"}',
        '<|python_tag|>{"name":"get_weather","parameters":{"city":"Bonn"}}',
        '{"tool_calls":[{"type":"function","function":{"name":"get_weather","arguments":"{\\"city\\":\\"Bonn\\"}"}}]}',
        '<tool_calls>[{"name":"default_api.get_weather","input":{"city":"Bonn"}}]</tool_calls>',
        '<tool_calls>\n<tool_call>{"name":"get_weather","arguments":{"city":"Bonn"}}</tool_call>\n</tool_calls>',
        '```json\n{"name":"get_weather","arguments":{"city":"Bonn"}}\n```',
        '<think>I could write <tool_call>{"name":"ls"}</tool_call></think>'
        '<tool_call>{"name":"get_weather","arguments":{"city":"Bonn"}}</tool_call>',
    ],
)
def test_the_markup_of_every_family_is_parsed(text: str) -> None:
    parsed = parse(text, tools=TOOLS, is_truncated=False)
    assert [(call.name, json.loads(call.arguments)) for call in parsed.calls] == WEATHER
    assert parsed.content is None


@pytest.mark.parametrize(
    "damaged",
    [
        '<tool_calls>[{"name":"get_weather","arguments":{"city":"Bonn"},}]</tool_calls>',
        '<tool_calls>[{"name":"get_weather","arguments":{"city":"Bonn",}},]</tool_calls>',
        '<tool_calls>[{\\"name\\":\\"get_weather\\",\\"arguments\\":{\\"city\\":\\"Bonn\\"}}]</tool_calls>',
        '<tool_calls>\\[\\{"name":"get_weather","arguments":\\{"city":"Bonn"\\}\\}\\]</tool_calls>',
        '<tool_calls>[{"function",\n"name":"get_weather","arguments":{"city":"Bonn"}}]</tool_calls>'.replace(
            '{"function",', '{\n"function",'
        ),
        '<tool_calls>[{"name":"get_weather","arguments": {\\"city\\":\\"Bonn\\"}"}]</tool_calls>',
        '<tool_calls>[{"name":"get_weather","arguments":{"city":"Bonn"}}',
        '<tool_calls>[{"name":"get_weather","arguments":{"city":"Bonn"}}</tool_calls>',
        '<tool_call>\n```json\n{"name":"get_weather","arguments":{"city":"Bonn"}}\n```\n</tool_call>',
    ],
)
def test_common_damage_is_repaired(damaged: str) -> None:
    assert parse_values(damaged) == WEATHER


@pytest.mark.parametrize(
    "text",
    [
        'Use `<tool_call>{"name":"ls"}</tool_call>` to list.',
        'An example:\n```python\nprint("<tool_call>{\\"name\\":\\"ls\\"}</tool_call>")\n```\nDone.',
        '<tool_call>{"name":"rm_rf","arguments":{}}</tool_call>',
        '```json\n{"name":"Ada","age":36}\n```',
        '{"city":"Bonn"}',
        '[{"name":"get_time"},{"name":"unknown"}]',
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Bo",
        '<tool_calls>[{"name":"get_weather","arguments":{"city":NaN}}]</tool_calls>',
    ],
)
def test_text_that_is_not_a_call_stays_text(text: str) -> None:
    parsed = parse(text, tools=TOOLS, is_truncated=False)
    assert parsed.calls == ()
    assert parsed.content == text


def test_an_unreadable_call_stays_text_beside_readable_ones() -> None:
    text = '<tool_calls>[{"name":"get_time","arguments":{}},{"name":"nope","arguments":{"a":1}}]</tool_calls>'
    parsed = parse(text, tools=TOOLS, is_truncated=False)
    assert [call.name for call in parsed.calls] == ["get_time"]
    assert parsed.content is not None
    assert "nope" in parsed.content


WHOLE: dict[Family, str] = {
    family: render_calls([PastCall("", "get_time", "{}")], family=family) for family in FAMILIES
}
LONG = PastCall("", "write_file", '{"path":"a","text":"some text"}')


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("are_together", [True, False], ids=["one block", "two blocks"])
def test_complete_calls_of_a_truncated_text_are_kept_and_the_torn_one_is_dropped(
    family: Family, are_together: bool
) -> None:
    """Wherever the limit cuts the second call, the first is read and nothing of the second is prose."""
    first = PastCall("", "get_time", '{"tz":"UTC"}')
    whole = render_calls([first], family=family)
    text = render_calls([first, LONG], family=family)
    if not are_together:
        text = f"{whole}\n{render_calls([LONG], family=family)}"
    begin = text.index("UTC") + len(whole) - whole.index("UTC")
    for end in range(begin, text.index("some text") + 4):
        parsed = parse(f"Look: {text[:end]}", tools=TOOLS, is_truncated=True)
        assert [(call.name, call.arguments) for call in parsed.calls] == [("get_time", '{"tz":"UTC"}')], end
        assert parsed.content == "Look:", text[:end]


# The first call, and the second one up to where it may be cut.
SECOND_OBJECT = '{"name":"write_file","arguments":{"path":"a","text":"some text'
FIRST_OBJECT = '{"name":"get_time","arguments":{"tz":"UTC"}}'
ELEMENTS = '\n<parameter name="path">a</parameter>\n<parameter name="text">some text'
TWO_CALLS = {
    "qwen coder": (
        "<function=get_time><parameter=tz>UTC</parameter></function>",
        "<function=write_file>\n<parameter=path>a</parameter>\n<parameter=text>some text",
    ),
    "in a block": (
        "<tool_call><function=get_time><parameter=tz>UTC</parameter></function></tool_call>",
        "\n<tool_call>\n<function=write_file>\n<parameter=path>a</parameter>\n<parameter=text>some text",
    ),
    "invoke": (
        '<invoke name="get_time"><parameter name="tz">UTC</parameter></invoke>',
        f'\n<invoke name="write_file">{ELEMENTS}',
    ),
    "claude": (
        f'<{NS}function_calls><{NS}invoke name="get_time"><{NS}parameter name="tz">UTC'
        f"</{NS}parameter></{NS}invoke>",
        f'\n<{NS}invoke name="write_file">{ELEMENTS.replace("parameter", NS + "parameter")}',
    ),
    "minimax": (
        '<minimax:tool_call><invoke name="get_time"><parameter name="tz">UTC</parameter></invoke>',
        f'<invoke name="write_file">{ELEMENTS}',
    ),
    "deepseek": (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_time\n"
        '```json\n{"tz":"UTC"}\n```<｜tool▁call▁end｜>',
        '<｜tool▁call▁begin｜>function<｜tool▁sep｜>write_file\n```json\n{"path":"a","text":"some text',
    ),
    "mistral": ('[TOOL_CALLS]get_time[ARGS]{"tz":"UTC"}', '[TOOL_CALLS]write_file[ARGS]{"text":"some text'),
    "mistral array": (f"[TOOL_CALLS][{FIRST_OBJECT}", f",{SECOND_OBJECT}"),
    "llama": (f"<|python_tag|>{FIRST_OBJECT}", f"; {SECOND_OBJECT}"),
    "objects": (f"<tool_calls>{FIRST_OBJECT}", f"\n{SECOND_OBJECT}"),
    "blocks in a wrapper": (
        f"<tool_calls>\n<tool_call>{FIRST_OBJECT}</tool_call>",
        f"\n<tool_call>{SECOND_OBJECT}",
    ),
    "bare": (f"[{FIRST_OBJECT}", f",{SECOND_OBJECT}"),
    "bare object": (f'{{"tool_calls":[{FIRST_OBJECT}', f",{SECOND_OBJECT}"),
    "fence": (f"```json\n[{FIRST_OBJECT}", f",{SECOND_OBJECT}"),
    "blocks in a fence": (
        f"```xml\n<tool_call>{FIRST_OBJECT}</tool_call>",
        f"\n<tool_call>{SECOND_OBJECT}",
    ),
}


@pytest.mark.parametrize(("first", "second"), TWO_CALLS.values(), ids=TWO_CALLS)
def test_a_torn_call_is_dropped_in_any_markup(first: str, second: str) -> None:
    for end in range(len(second) + 1):
        parsed = parse(first + second[:end], tools=TOOLS, is_truncated=True, accepts_unknown=True)
        assert [(call.name, call.arguments) for call in parsed.calls] == [("get_time", '{"tz":"UTC"}')], end
        assert parsed.content is None, second[:end]
        assert parsed.is_torn or end < len(second)


@pytest.mark.parametrize(
    ("text", "is_torn"),
    [
        (WHOLE["qwen"], False),
        (WHOLE["qwen"] + "\n<tool_call>", True),
        (WHOLE["qwen"] + "\n<tool_c", True),
        (WHOLE["qwen"][:-3], False),
        (WHOLE["qwen"] + '\n<tool_call>\n{"name":"wri', True),
        (WHOLE["z-ai"] + "\n<tool_call>write_f", True),
        (WHOLE["json"] + '\n<tool_calls>\n[{"name":"write_file","arguments":{"te', True),
        ('[{"name":"get_time","arguments":{}},{"name":"write_f', True),
        (WHOLE["moonshotai"].replace("<|tool_calls_section_end|>", "<|tool_call_begin|>functions.wr"), True),
    ],
)
def test_a_text_is_torn_if_another_call_was_begun(text: str, is_torn: bool) -> None:
    parsed = parse(text, tools=TOOLS, is_truncated=True)
    assert [call.name for call in parsed.calls] == ["get_time"]
    assert (parsed.content, parsed.is_torn) == (None, is_torn)


def test_prose_after_a_call_is_kept_in_a_truncated_text() -> None:
    parsed = parse(WHOLE["qwen"] + "\nThen 1 < 2 and [so", tools=TOOLS, is_truncated=True)
    assert (parsed.content, parsed.is_torn) == ("Then 1 < 2 and [so", False)


def test_the_only_call_of_a_truncated_text_stays_text() -> None:
    for family in FAMILIES:
        text = render_calls([LONG], family=family).partition("some")[0]
        assert parse(text, tools=TOOLS, is_truncated=True) == ParsedText(text, (), None)


UNKNOWN = ("remove", {"path": "a"})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_call_of_an_unknown_tool_is_parsed_if_accepted(family: Family) -> None:
    past = [PastCall("", "ls", "{}"), PastCall("", UNKNOWN[0], json.dumps(UNKNOWN[1]))]
    text = f"Look: {render_calls(past, family=family)}"
    parsed = parse(text, tools=TOOLS, is_truncated=False, accepts_unknown=True)
    assert [(call.name, json.loads(call.arguments)) for call in parsed.calls] == [("ls", {}), UNKNOWN]
    assert parsed.content == "Look:"
    parsed = parse(text, tools=TOOLS, is_truncated=False)
    assert [call.name for call in parsed.calls] == ["ls"]


@pytest.mark.parametrize(
    "text",
    [
        '{"name":"remove","arguments":{}}',
        '```json\n{"name":"remove","arguments":{}}\n```',
        '```xml\n<tool_call>{"name":"remove","arguments":{}}</tool_call>\n```',
        '`<tool_call>{"name":"remove","arguments":{}}</tool_call>`',
        "<tool_call>remove</tool_call>",
        "<tool_call>a call goes here</tool_call>",
        '<tool_call>{"name":"not a name","arguments":{}}</tool_call>',
        '<tool_call>{"name":"Ada","age":36}</tool_call>',
    ],
)
def test_possible_examples_are_not_calls_of_unknown_tools(text: str) -> None:
    parsed = parse(text, tools=TOOLS, is_truncated=False, accepts_unknown=True)
    assert (parsed.calls, parsed.content) == ((), text)


def test_whitespace_in_values_is_kept() -> None:
    text = "<function=edit><parameter=path>\na.py\n</parameter>"
    text += "<parameter=new>\n    def f():\n\n        pass\n\n</parameter>"
    assert parse_values(text + "</function>") == [
        ("edit", {"path": "a.py", "new": "    def f():\n\n        pass\n"})
    ]


def test_numbers_past_64_bits_survive() -> None:
    parsed = parse(
        '<tool_call>{"name":"ls","arguments":{"p":123456789012345678901234567890}}',
        tools=TOOLS,
        is_truncated=False,
    )
    assert parsed.calls[0].arguments == '{"p":123456789012345678901234567890}'


@pytest.mark.parametrize(
    ("text", "rest", "thinking"),
    [
        ("<think>a\nb</think>\n\nc", "c", "a\nb"),
        ("<think>never ends", "", "never ends"),
        ("<think></think>c", "c", None),
        ("<think>a</think>\n<thinking>b</thinking>c", "c", "a\n\nb"),
        ("no <think>a</think>", "no <think>a</think>", None),
    ],
)
def test_leading_thinking_is_split_off(text: str, rest: str, thinking: str | None) -> None:
    assert split_thinking(text) == (rest, thinking)


@pytest.mark.parametrize("tools", [[], TOOLS], ids=["without tools", "with tools"])
@pytest.mark.parametrize(
    ("text", "content", "thinking"),
    [
        ("<think>a</think>b", "b", "a"),
        ("a <think>b</think> c", "a  c", "b"),
        ("A\n\n<think>b</think>\n\nC", "A\n\nC", "b"),
        ("<think>a</think>B\n<thinking>c</thinking>\nD", "B\nD", "a\n\nc"),
        ("A\n<think>never ends", "A\n", "never ends"),
        ("It never <think> ends", "It never <think> ends", None),
        ("I thought so.\n</think>\n\nYes.", "Yes.", "I thought so."),
        ("I thought so.</think>Yes.", "Yes.", "I thought so."),
        ("I thought so.\n</think>Yes.", "Yes.", "I thought so."),
        ("The tag </think> ends it.", "The tag </think> ends it.", None),
        ("Write `<think>` and `</think>`.", "Write `<think>` and `</think>`.", None),
        ("```xml\n<think>a</think>\n```\nb", "```xml\n<think>a</think>\n```\nb", None),
        ("<think>see ```\ncode\n```</think>b", "b", "see ```\ncode\n```"),
        ("<thinker>a</thinker>", "<thinker>a</thinker>", None),
        ("a\n<think>b</thinker>c", "a\n<think>b</thinker>c", None),
        ("", "", None),
    ],
)
def test_thinking_anywhere_becomes_reasoning(
    text: str, content: str, thinking: str | None, tools: list[Tool]
) -> None:
    assert parse(text, tools=tools, is_truncated=False) == (ParsedText(content, (), thinking))


def test_a_thinking_tag_inside_an_argument_is_kept() -> None:
    text = '<tool_call>{"name":"ls","arguments":{"p":"<think>a</think>"}}</tool_call><think>b</think>'
    parsed = parse(text, tools=TOOLS, is_truncated=False)
    assert json.loads(parsed.calls[0].arguments) == {"p": "<think>a</think>"}
    assert (parsed.content, parsed.reasoning) == (None, "b")


def test_without_tools_markup_is_text() -> None:
    text = '<tool_call>{"name":"ls"}</tool_call> <think>a</think>'
    assert parse(text, tools=[], is_truncated=False) == ParsedText(
        text.replace("<think>a</think>", ""), (), "a"
    )


def test_a_glm_key_may_hold_a_bracket() -> None:
    text = "<tool_call>search\n<arg_key>a<b</arg_key>\n<arg_value>1</arg_value>\n</tool_call>"
    assert parse_values(text) == [("search", {"a<b": 1})]


WORDS = st.text(alphabet=st.characters(exclude_characters="<`~", exclude_categories=["Cs"]), max_size=20)


@given(st.lists(st.tuples(WORDS, WORDS), max_size=5), WORDS, st.sampled_from(["think", "thinking"]))
def test_thinking_and_text_are_separated(pairs: list[tuple[str, str]], last: str, tag: str) -> None:
    text = "".join(f"x{before}.\n<{tag}>{thought}</{tag}>\n" for before, thought in pairs) + f"x{last}"
    parsed = parse(text, tools=[], is_truncated=False)
    assert parsed.content == "".join(f"x{before}.\n" for before, _ in pairs) + f"x{last}"
    wanted = [thought.strip() for _, thought in pairs if thought.strip()]
    assert parsed.reasoning == ("\n\n".join(wanted) or None)


# Generated

MARKUP = st.sampled_from(
    [
        "</tool_call>",
        "<tool_call>",
        "</tool_calls>",
        "```",
        "<|tool_call_end|>",
        "</arg_value>",
        "<arg_key>",
        "\\n",
        '"',
        "{",
        "]",
    ]
)
TEXTS = st.lists(st.text(max_size=20) | MARKUP, max_size=4).map("".join)
ANY = Tool("any", "", {"type": "object", "properties": {"text": {"type": "string"}, "other": {}}})


@given(st.sampled_from(FAMILIES), st.lists(st.tuples(TEXTS, JSON), min_size=1, max_size=3))
def test_rendered_calls_are_parsed_back(family: Family, given_arguments: list[tuple[str, Any]]) -> None:
    wanted = [{"text": text, "list": [value]} for text, value in given_arguments]
    past = [
        PastCall(label_for(f"call_{index}", "any", index, family=family), "any", compact(arguments))
        for index, arguments in enumerate(wanted)
    ]
    parsed = parse("Sure.\n\n" + render_calls(past, family=family), tools=[ANY], is_truncated=False)
    assert [json.loads(call.arguments) for call in parsed.calls] == wanted
    assert parsed.content == "Sure."


@given(TEXTS | st.text(), st.booleans())
def test_no_text_raises(text: str, is_truncated: bool) -> None:
    parse(text, tools=TOOLS, is_truncated=is_truncated, accepts_unknown=True)


@given(st.text(alphabet=st.characters(exclude_characters="<[{`|\\")))
def test_text_without_markup_stays_as_it_is(text: str) -> None:
    parsed = parse(text, tools=TOOLS, is_truncated=False)
    assert (parsed.content, parsed.calls) == (text, ())


@pytest.mark.parametrize(
    "unit",
    [
        "<tool_call>",
        "<tool_calls>[",
        '<tool_call>{"name":',
        "[",
        '{"a":',
        '<invoke name="get_time"><parameter name="tz">',
        "<tool_call>get_time<arg_key>tz</arg_key><arg_value>",
        "```json\n[",
        "`",
        "<think>",
        "<think></think>",
        "a<think></think>",
        "</think>",
        "<think>\n</thinker",
        "<function=get_time><parameter=tz>",
        "[TOOL_CALLS]",
        "<tool_call>get_time<arg_key>tz</arg_key><arg_value></arg_value>x",
    ],
)
def test_half_a_megabyte_of_markup_is_parsed_in_linear_time(unit: str) -> None:
    started = time.process_time()
    parse("x " + unit * (500_000 // len(unit)), tools=TOOLS, is_truncated=False)
    parse(unit * (500_000 // len(unit)), tools=[], is_truncated=False)
    assert time.process_time() - started < 1.5 * slowness()
