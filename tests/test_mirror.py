"""Each module has its test file; the exceptions are named with the tests that show them."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
# Packages with one interface: their modules are shown by its tests, in the same folder of the tests.
PACKAGES = (
    "config/litellm/",
    "metrics/",
    "translation/chat/",
    "translation/gemini/",
    "translation/messages/",
    "translation/responses/",
)
# Modules that are shown by the tests of those who use them.
SHOWN_BY = {
    "__main__.py": "test_cli.py",
    "commands/store.py": "commands/test_keys.py",
    "config/budgets.py": "config/test_clients.py",
    "config/rules.py": "governance/test_rules.py",
    "config/tables.py": "config/test_providers.py",
    "config/targets.py": "config/test_providers.py",
    "config/urls.py": "config/test_providers.py",
    "governance/accounts.py": "commands/test_spend.py",
    "governance/batch_charge.py": "routes/test_batch_charging.py",
    "governance/key_admin.py": "commands/test_keys.py",
    "governance/litellm_keys.py": "routes/test_key_management.py",
    "governance/litellm_models.py": "routes/test_model_info.py",
    "json_types.py": "openai/test_codec.py",  # two names of types
    "dialects/gemini.py": "routes/test_gemini.py",
    "dialects/messages.py": "routes/test_messages.py",
    "dialects/registry.py": "dialects/test_chat.py",
    "openai/gemini_models.py": "routes/test_gemini.py",
    "routes/background.py": "routes/test_background_responses.py",
    "routes/blueprint.py": "test_app.py",
    "routes/counting.py": "routes/test_messages.py",
    "routes/response_following.py": "routes/test_background_responses.py",
    "routes/deployments.py": "routes/test_azure.py",
    "routes/spend.py": "commands/test_spend.py",
    "routes/usage.py": "commands/test_spend.py",
    "routes/response_keeping.py": "routes/test_stored_responses.py",
    "routing/opening.py": "routing/test_attempts.py",
    "server/application.py": "test_app.py",
    "server/request_reader.py": "server/test_connection.py",
    "server/response_writer.py": "server/test_connection.py",
    "server/startup.py": "test_cli.py",
    "state_store/background.py": "routes/test_background_responses.py",
    "state_store/base.py": "state_store/test_sqlite.py",
    "state_store/shared_map.py": "state_store/test_shared.py",
    "streams/captured.py": "providers/replay/test_provider.py",
    "streams/gemini_usage.py": "streams/test_gemini_filter.py",
    "streams/messages_usage.py": "streams/test_messages_filter.py",
    "translation/conversation.py": "translation/test_collect.py",
    "translation/format.py": "dialects/test_base.py",
    "translation/media_types.py": "translation/gemini/test_request_reader.py",
    "translation/tool_names.py": "translation/chat/test_request_writer.py",
    "translation/translate.py": "translation/chat/test_translate.py",
}


def modules() -> set[str]:
    package = ROOT / "sanic_proxy"
    return {str(path.relative_to(package)) for path in package.rglob("*.py") if path.name != "__init__.py"}


def test_each_module_has_its_test_file() -> None:
    tested = {
        module
        for module in modules()
        if (ROOT / "tests" / module).with_name(f"test_{Path(module).name}").exists()
        or module.startswith(PACKAGES)
    }
    assert modules() - tested == set(SHOWN_BY)


def test_the_tests_that_show_the_others_exist() -> None:
    tests = ROOT / "tests"
    assert [path for path in SHOWN_BY.values() if not (tests / path).exists()] == []
    assert [package for package in PACKAGES if not list((tests / package).glob("test_*.py"))] == []
