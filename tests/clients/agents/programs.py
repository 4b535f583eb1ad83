"""The agent programs: their settings, their command lines and the tools that they offer to the model."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override

from tests.clients.agents.shapes.base import Call, Turn


@dataclass(frozen=True, slots=True)
class Place:
    """The directories, address, key and model of one run.

    `folder` is the program's installation, `url` the proxy's address without `/v1`. `mcp_server` is the
    command of an MCP server that the program is to start; empty for none.
    """

    folder: Path
    home: Path
    work: Path
    url: str
    key: str
    model: str
    mcp_server: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Launch:
    """A command and the variables that it needs."""

    command: Sequence[str]
    variables: Mapping[str, str]


class Program(ABC):
    """An agent program."""

    @abstractmethod
    def launch(self, place: Place, prompt: str) -> Launch:
        """Write the program's settings; its command. All its tools are allowed without confirmation."""

    @abstractmethod
    def shell(self, command: str) -> Call:
        """A call that runs a shell command."""

    @abstractmethod
    def edit(self, path: Path, old: str, new: str) -> Sequence[Turn]:
        """Turns that replace the text `old` in a file by `new`."""

    @abstractmethod
    def add(self, a: int, b: int) -> Sequence[Turn]:
        """Turns that call the tool `add` of the MCP server, after a search for it if the program has one."""


class ClaudeCode(Program):
    """https://docs.claude.com/en/docs/claude-code/llm-gateway"""

    @override
    def launch(self, place: Place, prompt: str) -> Launch:
        (binary,) = place.folder.glob("node_modules/@anthropic-ai/claude-code-*/claude")
        command = [str(binary), "-p", prompt, "--dangerously-skip-permissions", "--strict-mcp-config"]
        if place.mcp_server:
            program, *arguments = place.mcp_server
            servers = {"calculator": {"command": program, "args": arguments}}
            command.append(f"--mcp-config={json.dumps({'mcpServers': servers})}")
        variables = {
            "ANTHROPIC_BASE_URL": place.url,
            "ANTHROPIC_AUTH_TOKEN": place.key,
            "ANTHROPIC_MODEL": place.model,
            "ANTHROPIC_DEFAULT_HAIKU_MODEL": place.model,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_TELEMETRY": "1",
            "DISABLE_ERROR_REPORTING": "1",
            "DISABLE_AUTOUPDATER": "1",
            "IS_SANDBOX": "1",  # permits --dangerously-skip-permissions to root
        }
        return Launch(command, variables)

    @override
    def shell(self, command: str) -> Call:
        return Call("Bash", {"command": command, "description": "Run a command"})

    @override
    def edit(self, path: Path, old: str, new: str) -> Sequence[Turn]:
        change = {"file_path": str(path), "old_string": old, "new_string": new}
        # Only files that were read can be edited.
        read = Call("Read", {"file_path": str(path)})
        return [Turn(calls=(read,)), Turn(calls=(Call("Edit", change),))]

    @override
    def add(self, a: int, b: int) -> Sequence[Turn]:
        search = Call("ToolSearch", {"query": "select:mcp__calculator__add", "max_results": 1})
        return [Turn(calls=(search,)), Turn(calls=(Call("add", {"a": a, "b": b}),))]


class Codex(Program):
    """https://developers.openai.com/codex/config-advanced (custom model providers)"""

    @override
    def launch(self, place: Place, prompt: str) -> Launch:
        settings = place.home / ".codex"
        settings.mkdir()
        lines = [
            f"model = {json.dumps(place.model)}",
            'model_provider = "proxy"',
            "check_for_update_on_startup = false",
            "[analytics]",
            "enabled = false",
            "[model_providers.proxy]",
            'name = "sanic-proxy"',
            f'base_url = "{place.url}/v1"',
            'env_key = "PROXY_KEY"',
            'wire_api = "responses"',
        ]
        if place.mcp_server:
            program, *arguments = place.mcp_server
            lines += [
                "[mcp_servers.calculator]",
                f"command = {json.dumps(program)}",
                f"args = {json.dumps(arguments)}",
            ]
        (settings / "config.toml").write_text("\n".join(lines) + "\n", "utf-8")
        script = place.folder / "node_modules/@openai/codex/bin/codex.js"
        options = ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
        return Launch(["node", str(script), "exec", *options, prompt], {"PROXY_KEY": place.key})

    @override
    def shell(self, command: str) -> Call:
        return Call("exec_command", {"cmd": command})

    @override
    def edit(self, path: Path, old: str, new: str) -> Sequence[Turn]:
        lines = [
            "*** Begin Patch",
            f"*** Update File: {path.name}",
            "@@",
            f"-{old}",
            f"+{new}",
            "*** End Patch",
        ]
        return [Turn(calls=(Call("apply_patch", "\n".join(lines)),))]

    @override
    def add(self, a: int, b: int) -> Sequence[Turn]:
        search = Call("tool_search", {"query": "calculator add", "limit": 1})
        return [Turn(calls=(search,)), Turn(calls=(Call("add", {"a": a, "b": b}),))]


class OpenCode(Program):
    """https://opencode.ai/docs/providers (OpenAI-compatible)"""

    @override
    def launch(self, place: Place, prompt: str) -> Launch:
        # Two builds are installed; the last one, `baseline`, runs on any processor.
        binary = max(place.folder.glob("node_modules/opencode-*/bin/opencode"))
        settings: dict[str, Any] = {
            "provider": {
                "proxy": {
                    "npm": "@ai-sdk/openai-compatible",
                    "options": {"baseURL": f"{place.url}/v1", "apiKey": place.key},
                    "models": {place.model: {}},
                }
            },
            "model": f"proxy/{place.model}",
            "small_model": f"proxy/{place.model}",
            "autoupdate": False,
            "share": "disabled",
        }
        if place.mcp_server:
            settings["mcp"] = {"calculator": {"type": "local", "command": [*place.mcp_server]}}
        variables = {
            "OPENCODE_CONFIG_CONTENT": json.dumps(settings),
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
        }
        # Without a title, the program requests one from the model.
        return Launch([str(binary), "run", "--auto", "--title", "A task", prompt], variables)

    @override
    def shell(self, command: str) -> Call:
        return Call("bash", {"command": command, "description": "Run a command"})

    @override
    def edit(self, path: Path, old: str, new: str) -> Sequence[Turn]:
        change = {"filePath": str(path), "oldString": old, "newString": new}
        read = Call("read", {"filePath": str(path)})
        return [Turn(calls=(read,)), Turn(calls=(Call("edit", change),))]

    @override
    def add(self, a: int, b: int) -> Sequence[Turn]:
        return [Turn(calls=(Call("calculator_add", {"a": a, "b": b}),))]


class QwenCode(Program):
    """https://qwenlm.github.io/qwen-code-docs/en/users/configuration/model-providers"""

    @override
    def launch(self, place: Place, prompt: str) -> Launch:
        settings: dict[str, Any] = {
            "general": {"disableAutoUpdate": True, "enableAutoUpdate": False},
            "privacy": {"usageStatisticsEnabled": False},
            "telemetry": {"enabled": False},
            # Otherwise a second conversation extracts memories after the task.
            "memory": {"enableManagedAutoMemory": False},
        }
        if place.mcp_server:
            program, *arguments = place.mcp_server
            settings["mcpServers"] = {"calculator": {"command": program, "args": arguments, "trust": True}}
        folder = place.home / ".qwen"
        folder.mkdir()
        (folder / "settings.json").write_text(json.dumps(settings), "utf-8")
        script = place.folder / "node_modules/@qwen-code/qwen-code/cli-entry.js"
        variables = {
            "OPENAI_BASE_URL": f"{place.url}/v1",
            "OPENAI_API_KEY": place.key,
            "OPENAI_MODEL": place.model,
        }
        return Launch(["node", str(script), "--auth-type=openai", "--yolo", "-p", prompt], variables)

    @override
    def shell(self, command: str) -> Call:
        return Call("run_shell_command", {"command": command, "is_background": False})

    @override
    def edit(self, path: Path, old: str, new: str) -> Sequence[Turn]:
        change = {"file_path": str(path), "old_string": old, "new_string": new}
        read = Call("read_file", {"file_path": str(path)})
        return [Turn(calls=(read,)), Turn(calls=(Call("edit", change),))]

    @override
    def add(self, a: int, b: int) -> Sequence[Turn]:
        name = "mcp__calculator__add"
        search = Call("tool_search", {"query": f"select:{name}"})
        bridged = Call("tool_call", {"name": name, "arguments": {"a": a, "b": b}})
        return [Turn(calls=(search,)), Turn(calls=(bridged,))]


class GeminiCli(Program):
    """https://geminicli.com/docs/reference/configuration"""

    @override
    def launch(self, place: Place, prompt: str) -> Launch:
        settings: dict[str, Any] = {
            "general": {"disableAutoUpdate": True, "enableAutoUpdate": False},
            "privacy": {"usageStatisticsEnabled": False},
            "security": {"auth": {"selectedType": "gemini-api-key"}},
            "telemetry": {"enabled": False},
        }
        if place.mcp_server:
            program, *arguments = place.mcp_server
            settings["mcpServers"] = {"calculator": {"command": program, "args": arguments, "trust": True}}
        folder = place.home / ".gemini"
        folder.mkdir()
        (folder / "settings.json").write_text(json.dumps(settings), "utf-8")
        script = place.folder / "node_modules/@google/gemini-cli/bundle/gemini.js"
        variables = {
            "GOOGLE_GEMINI_BASE_URL": place.url,
            "GEMINI_API_KEY": place.key,
            "GEMINI_MODEL": place.model,
            "GEMINI_CLI_TRUST_WORKSPACE": "true",
        }
        return Launch(["node", str(script), "--yolo", "-p", prompt], variables)

    @override
    def shell(self, command: str) -> Call:
        return Call("run_shell_command", {"command": command, "description": "Run a command"})

    @override
    def edit(self, path: Path, old: str, new: str) -> Sequence[Turn]:
        change = {"file_path": str(path), "instruction": "Change it", "old_string": old, "new_string": new}
        read = Call("read_file", {"file_path": str(path)})
        return [Turn(calls=(read,)), Turn(calls=(Call("replace", change),))]

    @override
    def add(self, a: int, b: int) -> Sequence[Turn]:
        return [Turn(calls=(Call("mcp_calculator_add", {"a": a, "b": b}),))]
