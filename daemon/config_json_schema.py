"""The config as JSON Schema, for editors that check TOML as it is typed."""

from __future__ import annotations

from typing import Any

from daemon.config import Config
from daemon.config_schema import Array, Dictionary, Key, NamedSections, Section, keys_of
from daemon.config_values import Scalar

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Of the file as TOML has it.  Rules about several keys at once are for `jobsd config check` alone."""
    return {"$schema": DIALECT, "title": "jobsd", **_section(Config)}


def _section(settings: type[Any]) -> dict[str, Any]:
    keys = keys_of(settings)
    sections = (Section, NamedSections)
    required = [key.name for key in keys.values() if key.required and not isinstance(key.shape, sections)]
    quoted = {f"^{k.name}[.]": _scalar(k, k.shape.item) for k in keys.values() if isinstance(k.shape, Dictionary)}
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: {"description": key.doc, **_value(key)} for name, key in keys.items()},
        **({"patternProperties": quoted} if quoted else {}),
        **({"required": required} if required else {}),
    }


def _variant(settings: type[Any], selector: str, word: str) -> dict[str, Any]:
    schema = _section(settings)
    schema["properties"][selector] = {"description": schema["properties"][selector]["description"], "const": word}
    return schema


def _value(key: Key) -> dict[str, Any]:
    match key.shape:
        case Section(settings):
            return _section(settings)
        case NamedSections(settings, variants) as sections if variants:
            each = [_variant(inner, sections.selector, word) for word, inner in variants.items()]
            return {"type": "object", "additionalProperties": {"oneOf": each}}
        case NamedSections(settings):
            return {"type": "object", "additionalProperties": _section(settings)}
        case Array(item):
            return {"type": "array", "items": _scalar(key, item)} | _default(key)
        case Dictionary(item):
            return {"type": "object", "additionalProperties": _scalar(key, item)}
        case scalar:
            return _scalar(key, scalar) | _default(key)


def _scalar(key: Key, scalar: Scalar) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    if scalar.json_type:
        schema["type"] = list(scalar.json_type) if isinstance(scalar.json_type, tuple) else scalar.json_type
    if key.choices:
        schema["enum"] = list(key.choices)
    if scalar.json_type in ("integer", "number"):
        bounds = {"minimum": key.minimum, "maximum": key.maximum}
        schema |= {name: bound for name, bound in bounds.items() if bound is not None}
    return schema


def _default(key: Key) -> dict[str, Any]:
    if key.required or key.default is None or key.default != key.production:
        return {}
    match key.shape:
        case Array(item):
            return {"default": [item.plain(element) for element in key.default]}
        case Scalar() as scalar:
            return {"default": scalar.plain(key.default)}
    return {}
