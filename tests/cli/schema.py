"""Compares what commands print with what `asyncq schema` says of it.

Each line on standard input is an array: the name of a schema, and a text that a command has printed. Prints what is wrong, and each
member that no output had.
"""

import copy
import json
import subprocess
import sys

from jsonschema import Draft202012Validator, FormatChecker

bundle = json.loads(subprocess.check_output(["asyncq", "schema"]))
Draft202012Validator.check_schema(bundle)
seen = set()


def strict(schema):
    """The same schema, with no member that it does not name."""
    if isinstance(schema, dict):
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
        for value in schema.values():
            strict(value)
    elif isinstance(schema, list):
        for value in schema:
            strict(value)
    return schema


def look(schema, value):
    """Notes which members a value has."""
    while "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        schema = bundle["$defs"][name]
        if isinstance(value, dict):
            seen.update((name, member) for member in value)
    for inner in schema.get("anyOf", []):
        look(inner, value)
    if isinstance(value, dict):
        for member, inner in schema.get("properties", {}).items():
            if member in value:
                look(inner, value[member])
    if isinstance(value, list):
        for item in value:
            look(schema.get("items", {}), item)


for line in sys.stdin:
    name, text = json.loads(line)
    own = json.loads(subprocess.check_output(["asyncq", "schema", name]))
    Draft202012Validator.check_schema(own)
    value = json.loads(text)
    for schema in (own, strict(copy.deepcopy(own))):
        for error in Draft202012Validator(schema, format_checker=FormatChecker()).iter_errors(value):
            print(f"{name}: {error.json_path}: {error.message}")
    look({"$ref": f"#/$defs/{name}"}, value)

for name, schema in bundle["$defs"].items():
    if name.startswith("manifest"):
        continue  # no output: manifest.py looks at it
    for member in schema.get("properties", {}):
        if (name, member) not in seen:
            print(f"no output has `{member}` of `{name}`")
