"""Each module has its test file; the exceptions are named, and may only become fewer."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
# Shown by the tests of those who use them.
WITHOUT = {
    "__main__.py",  # test_cli.py runs it
    "state_store/base.py",  # what it declares is abstract
}


def modules() -> set[str]:
    package = ROOT / "sanic_proxy"
    return {str(path.relative_to(package)) for path in package.rglob("*.py") if path.name != "__init__.py"}


def test_each_module_has_its_test_file() -> None:
    tested = {
        module
        for module in modules()
        if (ROOT / "tests" / module).with_name(f"test_{Path(module).name}").exists()
    }
    assert modules() - tested == WITHOUT
