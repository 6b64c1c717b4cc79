"""Hooks of schemathesis for `./dev api`.

The published OpenAPI document is wide: what the gateway accepts is valid by it. For some values no schema says exactly what
is accepted (which texts are phone numbers, which bytes a header may hold). schemathesis, however, expects that a valid
request is accepted and an invalid one refused. So narrowed.json beside this file replaces those schemas, for the test only.
tests/docs.rs and the tests of src/gateway/invite.rs hold narrowed.json against the program, whatever schemathesis draws.
"""

import json
import pathlib

import schemathesis

NARROWED = json.loads((pathlib.Path(__file__).parent / "narrowed.json").read_text(encoding="utf-8"))


@schemathesis.hook
def before_load_schema(context, raw_schema):
    narrowed = set()
    body = raw_schema["components"]["schemas"]["Invite"]["properties"]
    for name in body.keys() & NARROWED.keys():
        body[name] = NARROWED[name]
        narrowed.add(name)
    for path in raw_schema["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", []):
                if parameter["name"] in NARROWED:
                    parameter["schema"] = NARROWED[parameter["name"]]
                    narrowed.add(parameter["name"])
    if narrowed != NARROWED.keys():
        raise ValueError(f"the document has no {sorted(NARROWED.keys() - narrowed)}")
