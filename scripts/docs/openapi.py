"""Print the OpenAPI document, which sanic-ext assembles from the descriptions in the folder beside this file.

`document.yaml` has what operations share, and each other file one tag:

    tag, about      its name, and a description
    access          who may call: `client` (default) or another key of `access` in document.yaml; an operation
                    may have its own
    error           the schema of its errors (default: Error)
    operations      by `METHOD /path`
    schemas         by name; a `$ref` is the name of a schema

An operation has a `summary` and some of:

    description
    routes          the routes that serve it, where the application has them under another path
    is_call         it calls a provider: it has the parameters of document.yaml and the errors `call`
    path, query     parameters by name: their description, or a schema that may have `required` and `example`;
                    `header` likewise
    provider        the example's value of `x-provider`
    body, form      the schema of a request in JSON or of a form, or its name; `example` is one
    answer          what a success means, with `status` (200) and `content`: a schema or its name, or several
                    by media type
    output          the file that the example writes the answer to
    errors          statuses, or the name of a set of document.yaml
    more            further answers by status: `description`, `content`

Fails if a route is neither described nor listed in `undescribed.yaml`, and if a description has no route.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase as fnmatch
from pathlib import Path
from typing import Any

import yaml
from sanic import Sanic
from sanic_ext.extensions.openapi.builders import SpecificationBuilder

from sanic_proxy import __version__
from sanic_proxy.governance.litellm_keys import FIELDS
from sanic_proxy.routes import BLUEPRINTS

FOLDER = Path(__file__).with_suffix("")
ROOT = Path(__file__).parents[2]
JSON = "application/json"
FORM = "multipart/form-data"
# Other base URLs of the routes below /v1.
BASES = ("/openai/v1", "/openai", "")
# Keys of a table that name the client's key, which has fields of its own in requests.
KEYS_OF_FILES = {"key_env", "key_sha256"}
KNOWN = {
    *("summary", "description", "routes", "is_call", "access", "path", "query", "header", "provider"),
    *("body", "form", "example", "answer", "status", "content", "output", "errors", "more"),
}
PARAMETER = re.compile(r"<(\w+)(?::[^>]*)?>")
LITTLE_WORDS = {"a", "an", "the"}

Json = dict[str, Any]


def read(name: str) -> Json:
    loaded: Json = yaml.safe_load((FOLDER / f"{name}.yaml").read_text("utf-8"))
    return loaded


SHARED = read("document")


def document() -> Json:
    """The whole document. Raises SystemExit if it does not fit the routes of the application."""
    files = [read(name) for name in SHARED["files"]]
    described = {call: operation for file in files for call, operation in file["operations"].items()}
    check_routes(described)
    paths: Json = {}
    for file in files:
        for call, operation in file["operations"].items():
            method, path = call.split(" ")
            paths.setdefault(path, {})[method.lower()] = operation_object(file, call, operation)
    errors = {file.get("error", "Error") for file in files}
    builder = SpecificationBuilder()
    builder.raw(
        {
            "info": {"title": SHARED["title"], "version": __version__, "description": SHARED["about"]},
            "tags": [{"name": file["tag"], "description": file["about"]} for file in files],
            "paths": paths,
            "components": {
                "schemas": schemas(files),
                "parameters": SHARED["parameters"],
                "responses": dict(error_answers(sorted(errors))),
                "securitySchemes": SHARED["security"],
            },
        }
    )
    built: Json = builder.build(Sanic("openapi", configure_logging=False)).serialize()
    return built


# Operations


def operation_object(file: Json, call: str, operation: Json) -> Json:
    """An operation as OpenAPI has it."""
    if unknown := operation.keys() - KNOWN:
        raise SystemExit(f"{call}: unknown keys {sorted(unknown)}")
    is_call = operation.get("is_call", False)
    access = operation.get("access", file.get("access", "client"))
    made: Json = {
        "operationId": operation_id(operation["summary"]),
        "summary": operation["summary"],
        "tags": [file["tag"]],
        "parameters": [
            *parameters("path", path_parameters(call, operation)),
            *parameters("query", operation.get("query", {})),
            *parameters("header", operation.get("header", {})),
            *(
                [{"$ref": f"#/components/parameters/{name}"} for name in SHARED["parameters"]]
                if is_call
                else []
            ),
        ],
        "responses": dict(answers(file, operation, "call" if is_call else [])),
        "security": [{name: []} for name in SHARED["access"][access]],
    }
    if "description" in operation:
        made["description"] = operation["description"]
    for kind, media in (("body", JSON), ("form", FORM)):
        if kind in operation:
            content = {"schema": schema(operation[kind]), "example": operation["example"]}
            made["requestBody"] = {"required": True, "content": {media: content}}
    for name in ("provider", "output"):
        if name in operation:
            made[f"x-example-{name}"] = operation[name]
    return made


def operation_id(summary: str) -> str:
    """A name for generated clients: createChatCompletion."""
    words = [word for word in re.findall(r"\w+", summary.replace("'s", "")) if word not in LITTLE_WORDS]
    first, *rest = words
    return first.lower() + "".join(word[0].upper() + word[1:] for word in rest)


def path_parameters(call: str, operation: Json) -> Json:
    names = re.findall(r"{(\w+)}", call)
    given = operation.get("path", {})
    if set(names) != given.keys():
        raise SystemExit(f"{call}: the parameters of the path are {names}, described are {list(given)}")
    return {name: {"required": True, **parameter(given[name])} for name in names}


def parameter(described: str | Json) -> Json:
    return {"type": "string", "description": described} if isinstance(described, str) else described


def parameters(place: str, described: Json) -> Iterator[Json]:
    """Parameters as OpenAPI has them: what is said of the value is in a schema of its own."""
    for name, entry in described.items():
        value = dict(parameter(entry))
        outside = {key: value.pop(key) for key in ("description", "required", "example") if key in value}
        yield {"name": name, "in": place, **outside, "schema": value}


def answers(file: Json, operation: Json, default: str | list[int]) -> Iterator[tuple[str, Json]]:
    yield str(operation.get("status", 200)), answer(operation["answer"], operation.get("content"))
    for status, more in operation.get("more", {}).items():
        yield str(status), answer(more["description"], more["content"])
    errors = operation.get("errors", default)
    for status in SHARED["sets"][errors] if isinstance(errors, str) else errors:
        yield str(status), {"$ref": f"#/components/responses/{file.get('error', 'Error')}{status}"}


def answer(description: str, content: str | Json | None) -> Json:
    if content is None:
        return {"description": description}
    by_media = (
        content if isinstance(content, dict) and all("/" in key for key in content) else {JSON: content}
    )
    return {
        "description": description,
        "content": {media: {"schema": schema(each)} for media, each in by_media.items()},
    }


def error_answers(names: list[str]) -> Iterator[tuple[str, Json]]:
    """The errors once for each shape that they have."""
    for name in names:
        for status, description in SHARED["errors"].items():
            yield f"{name}{status}", answer(description, name)


# Schemas


def schemas(files: list[Json]) -> Json:
    """All schemas by name. What other files of the repository say of fields is taken from there."""
    named = {name: value for file in (SHARED, *files) for name, value in file.get("schemas", {}).items()}
    made = {name: schema(value) for name, value in named.items()}
    works = {name: text for name, (outcome, text) in FIELDS.items() if outcome == "works"}
    fields = made["LitellmKey"]["properties"]
    if fields.keys() != works.keys():
        raise SystemExit(f"LitellmKey differs from FIELDS: {sorted(fields.keys() ^ works.keys())}")
    for name, text in works.items():
        fields[name]["description"] = text
    for name in ("KeyRules", "Key"):
        made[name]["properties"].update(client_rules())
    return made


def schema(value: str | Json) -> Json:
    """A schema with its references as OpenAPI writes them."""
    if isinstance(value, str):
        return {"$ref": f"#/components/schemas/{value}"}
    return {key: inner(key, each) for key, each in value.items()}


def inner(key: str, value: Any) -> Any:
    if key == "$ref":
        return f"#/components/schemas/{value}"
    if key in {"enum", "example", "default", "required"}:
        return value
    if isinstance(value, Mapping):
        return {name: inner(name if key != "properties" else "", each) for name, each in value.items()}
    return [inner("", each) for each in value] if isinstance(value, list) else value


def client_rules() -> Json:
    """The keys of a `[clients.NAME]` table as a request in JSON has them."""
    path = ROOT / "sanic_proxy/config/proxy.schema.json"
    tables = json.loads(path.read_text("utf-8"))["properties"]["clients"]
    properties = tables["additionalProperties"]["properties"]
    return {name: plain(value) for name, value in properties.items() if name not in KEYS_OF_FILES}


def plain(value: Any) -> Any:
    """A newer JSON Schema as OpenAPI 3.0 writes it: one type, and bounds that are flags beside the value."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    made = {name: plain(each) for name, each in value.items()}
    if isinstance(made.get("type"), list):
        made["type"] = made["type"][0]
    if "exclusiveMinimum" in made:
        made["minimum"], made["exclusiveMinimum"] = made["exclusiveMinimum"], True
    return made


# Routes


def check_routes(described: Json) -> None:
    """Raises SystemExit unless the descriptions and the routes of the application are the same."""
    everything = routes()
    served = {call for call in everything if not is_other_base(call, everything)}
    served = {call for call in served if not any(fnmatch(call, pattern) for pattern in read("undescribed"))}
    wanted = {form(call) for name, entry in described.items() for call in entry.get("routes", [name])}
    if missing := {call for call in served if form(call) not in wanted}:
        raise SystemExit(f"not described in scripts/docs/openapi/: {', '.join(sorted(missing))}")
    if gone := wanted - set(map(form, served)):
        raise SystemExit(f"described, but not a route: {', '.join(sorted(gone))}")


def form(call: str) -> str:
    """A call whatever its parameters are called."""
    return re.sub(r"{\w+}", "{}", call)


def routes() -> set[str]:
    """The application's routes, `METHOD /path/{parameter}` each. HEAD is served wherever GET is."""
    app: Sanic[Any, Any] = Sanic("routes", configure_logging=False)
    for blueprint in BLUEPRINTS:
        app.blueprint(blueprint)
    return {
        f"{method} /{PARAMETER.sub(named, route.path)}"
        for route in app.router.routes
        for method in route.methods - {"HEAD"}
    }


def named(parameter: re.Match[str]) -> str:
    return f"{{{parameter[1]}}}"


def is_other_base(call: str, served: set[str]) -> bool:
    """Whether the same route is served below /v1, which is the one that is described."""
    method, path = call.split(" ")
    return any(path.startswith(f"{base}/") and f"{method} /v1{path[len(base) :]}" in served for base in BASES)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(document(), separators=(",", ":"), ensure_ascii=False) + "\n")
