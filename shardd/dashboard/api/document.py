"""The OpenAPI document (3.1), made of the operations that are served."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from shardd import __version__
from shardd.dashboard.api.models import Problem
from shardd.dashboard.api.operations import JSON, ROOT, Operation
from shardd.dashboard.api.problems import ALWAYS, KINDS, MALFORMED, MEDIA_TYPE, WITH_BODY, Kind

_REFERENCE: Final = "#/components/schemas/{name}"
TEXT: Final = "text/plain"
NO_HTTP: Final = {
    "type": "string",
    "description": "What was sent is not valid HTTP, so that not even its address is known.",
}
_PATH_PARTS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "job": ("The id of a job.", {"type": "integer", "format": "int64", "minimum": 0}),
    "device": ("The id of a device.", {"type": "string"}),
    "campaign": ("The id of a campaign.", {"type": "string"}),
    "shard": ("The number of a shard.", {"type": "integer", "minimum": 0, "maximum": 999_999_999}),
    "webhook": ("The name of a webhook.", {"type": "string"}),
    "problem": ("The name of a kind of problem.", {"type": "string", "enum": sorted(KINDS)}),
}


def document_of(operations: Iterable[Operation]) -> dict[str, Any]:
    """The document."""
    operations = list(operations)
    types = list(dict.fromkeys(kind for one in operations for kind in _types_of(one)))
    schemas, components = msgspec.json.schema_components([*types, Problem], ref_template=_REFERENCE)
    schema_of = dict(zip(types, schemas, strict=False))
    asked = {one.query.__name__ for one in operations}
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, schema_of, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "shardd",
            "version": __version__,
            "description": "What the dashboard shows and does, for programs. Begin with `shardd guide api`. Every "
            "other address below this one is answered with a problem as well: 404, or 401 to whoever has no token.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": ROOT}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": {name: _cleaned(schema) for name, schema in components.items() if name not in asked},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "`shardd token add` prints one, once."}
            },
        },
    }


def _types_of(one: Operation) -> Iterator[Any]:
    yield from _answers_of(one)
    yield one.query
    if one.body is not None:
        yield one.body


def _answers_of(one: Operation) -> tuple[Any, ...]:
    return one.answer if isinstance(one.answer, tuple) else (one.answer,)


def _operation(one: Operation, schema_of: dict[Any, Any], components: dict[str, Any]) -> dict[str, Any]:
    answers = [schema_of[kind] for kind in _answers_of(one)]
    answer = answers[0] if len(answers) == 1 else {"anyOf": answers}
    content = {one.media: {"schema": answer}}
    responses: dict[str, Any] = {str(one.status): {"description": one.summary + ".", "content": content}}
    responses |= {str(status): {"description": when, "content": content} for status, when in one.also.items()}
    by_status: dict[int, list[Kind]] = {}
    for kind in dict.fromkeys((*ALWAYS, *one.problems, *(WITH_BODY if one.body is not None else ()))):
        by_status.setdefault(kind.status, []).append(kind)
    for status, kinds in sorted(by_status.items()):
        responses[str(status)] = {
            "description": "; ".join(f"{kind.title} (`{kind.type}`)" for kind in kinds),
            "content": {MEDIA_TYPE: {"schema": {"$ref": _REFERENCE.format(name=Problem.__name__)}}},
        }
    responses[str(MALFORMED.status)]["content"][TEXT] = {"schema": NO_HTTP}
    may = " or ".join(sorted(f"`{may.value}`" for may in one.may))
    made: dict[str, Any] = {
        "operationId": one.name,
        "summary": one.summary,
        "description": f"{one.about}\n\nFor tokens that may {may}.".strip(),
        "responses": responses,
    }
    if parameters := [*_path_parameters(one), *_query_parameters(one, components)]:
        made["parameters"] = parameters
    if one.body is not None:
        made["requestBody"] = {"required": one.body_required, "content": {JSON: {"schema": schema_of[one.body]}}}
    return made


def _path_parameters(one: Operation) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"\{(\w+)\}", one.path):
        about, schema = _PATH_PARTS[name]
        yield {"name": name, "in": "path", "required": True, "description": about, "schema": schema}


def _query_parameters(one: Operation, components: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, schema in components[one.query.__name__]["properties"].items():
        # Absent is how an address says null.
        kinds = [kind for kind in schema.get("anyOf", [schema]) if kind != {"type": "null"}]
        plain = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
        rest = {"default": schema["default"]} if schema.get("default") is not None else {}
        yield {"name": name, "in": "query", "required": False, "schema": {**plain, **rest}}


def _cleaned(schema: Any) -> Any:
    """Docstrings as one line."""
    if isinstance(schema, dict):
        cleaned = {name: _cleaned(one) for name, one in schema.items()}
        if isinstance(schema.get("description"), str):
            cleaned["description"] = " ".join(inspect.cleandoc(schema["description"]).split())
        return cleaned
    return [_cleaned(one) for one in schema] if isinstance(schema, list) else schema
