"""Says what `asyncq schema manifest` says of TOML files: a line for each, which is empty if the schema takes it.

Standard input is a JSON array of their texts.
"""

import json
import subprocess
import sys
import tomllib

from jsonschema import Draft202012Validator

schema = json.loads(subprocess.check_output(["asyncq", "schema", "manifest"]))
Draft202012Validator.check_schema(schema)
for text in json.load(sys.stdin):
    # A date is a text for JSON.
    value = json.loads(json.dumps(tomllib.loads(text), default=str))
    print("; ".join(f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(value)))
