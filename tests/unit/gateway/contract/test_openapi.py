"""The OpenAPI document and its page: operations, values, errors and limits."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretBytes

from devbox_secrets.api.validation import check_value, check_variable
from devbox_secrets.errors import DevboxSecretsError, ValueTooLarge
from devbox_secrets.gateway.contract import operations as contract
from devbox_secrets.gateway.contract.errors import CODES
from devbox_secrets.gateway.contract.ids import ID_MAX_LENGTH, ID_PATTERN
from devbox_secrets.gateway.contract.openapi import document
from devbox_secrets.gateway.contract.openapi_page import render
from devbox_secrets.gateway.contract.requests import Creation
from devbox_secrets.gateway.contract.responses import ErrorView

DOCS = Path(__file__).parents[4] / "docs"
DOCUMENT: dict[str, Any] = json.loads((DOCS / "openapi.json").read_text())
SCHEMAS = DOCUMENT["components"]["schemas"]
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
GUARDED = [call for call in OPERATIONS if "/v1/" in call]


def test_the_document_is_generated_from_the_operations() -> None:
    assert document(contract.OPERATIONS) == DOCUMENT


def test_the_document_has_every_operation_of_the_contract_with_its_own_id() -> None:
    text = (DOCS / "reference" / "gateway.md").read_text()
    assert {call for call in OPERATIONS if f"`{call}" not in text} == set()
    assert len({operation["operationId"] for operation in OPERATIONS.values()}) == len(OPERATIONS) == 10


@pytest.mark.parametrize("call", GUARDED)
def test_each_operation_needs_a_token_and_may_name_an_account(call: str) -> None:
    assert OPERATIONS[call]["security"] == [{"bearer": []}]
    assert "X-Devbox-Secrets-Account" in {each["name"] for each in OPERATIONS[call]["parameters"]}
    assert {"200", "400", "401", "403", "503"} <= set(OPERATIONS[call]["responses"])


def test_the_document_has_only_the_schemas_of_the_contract() -> None:
    assert set(SCHEMAS) == {"Creation", "Update", "Nothing", "SecretView", "SecretListView", "ErrorView"}


def test_a_value_is_in_requests_and_never_in_responses() -> None:
    for name in ("Creation", "Update"):
        value = SCHEMAS[name]["properties"]["value"]
        assert (value["writeOnly"], value["format"], value["maxLength"]) == (True, "password", 131_069)
        assert SCHEMAS[name]["additionalProperties"] is False
    for name in ("SecretView", "SecretListView", "ErrorView"):
        assert "value" not in SCHEMAS[name]["properties"]


def test_the_largest_value_that_the_document_allows_is_the_largest_that_is_accepted() -> None:
    most = SCHEMAS["Creation"]["properties"]["value"]["maxLength"]
    body = Creation.model_validate({"name": "A", "value": "v" * most})
    check_value(body.name, _bytes(body.value.get_secret_value()))
    with pytest.raises(ValueTooLarge):
        check_value(body.name, _bytes("v" * (most + 1)))


@pytest.mark.parametrize("name", ["A", "_", "A" * 253, "", "1A", "A-B", "A" * 254, "É", "A\n"])
def test_the_names_that_the_document_allows_are_those_that_are_accepted(name: str) -> None:
    it = SCHEMAS["Creation"]["properties"]["name"]
    allowed = re.fullmatch(it["pattern"], name) is not None and len(name) <= it["maxLength"]
    try:
        check_variable(name)
    except DevboxSecretsError:
        assert not allowed
    else:
        assert allowed


def test_ids_in_responses_and_in_requests_have_the_same_pattern() -> None:
    (parameter,) = (each for each in OPERATIONS["GET /v1/secrets/id/{id}"]["parameters"] if each["in"] == "path")
    assert parameter["schema"] == {"type": "string", "pattern": ID_PATTERN, "maxLength": ID_MAX_LENGTH}
    assert SCHEMAS["SecretView"]["properties"]["id"]["pattern"] == ID_PATTERN


def test_the_document_and_the_reference_page_have_the_same_errors() -> None:
    _, _, text = (DOCS / "reference" / "gateway.md").read_text().partition("\n## Errors\n")
    documented = dict(re.findall(r"^\| (\d{3}) \| `(\w+)` \|", text, re.MULTILINE))
    statuses = {status for call in GUARDED for status in OPERATIONS[call]["responses"]} - {"200"}
    assert statuses == set(documented) - {"405"}  # which depends on the path, not on the operation
    assert {str(int(status)): code for status, code in CODES.items() if status < 500 or status == 503} == documented
    assert SCHEMAS["ErrorView"]["properties"]["code"]["enum"] == [*CODES.values()]
    assert set(SCHEMAS["ErrorView"]["required"]) == set(ErrorView.model_fields)


def test_the_page_escapes_the_text_of_the_document() -> None:
    changed = copy.deepcopy(DOCUMENT)
    changed["info"]["title"] = changed["paths"]["/v1/secrets"]["get"]["summary"] = "<script>alert(1)</script>"
    page = render(changed)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 3


SMALL: dict[str, Any] = {
    "info": {"title": "A & B", "description": "Two < three", "version": "1&2"},
    "paths": {
        "/v1/a&b/{id}": {
            "get": {
                "operationId": "get&A",
                "summary": "Get < a",
                "security": [{"bearer": []}],
                "parameters": [
                    {
                        "name": "id",
                        "in": "path",
                        "required": True,
                        "schema": {"type": "string"},
                        "description": "Its <id>",
                    },
                    {"name": "a&b", "in": "query", "required": True, "schema": {"type": "integer", "default": 2}},
                    {"name": "c", "in": "header", "schema": {"type": "string", "enum": ["<", ">"]}, "description": "C"},
                ],
                "responses": {
                    "200": {
                        "description": "Done & well",
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/A"}}},
                    },
                    "429": {
                        "description": "Too many",
                        "headers": {"X-A": {"description": "One <"}, "X-B": {"description": "Two"}},
                        "content": {"text/a&b": {"schema": {"type": "string"}}},
                    },
                },
            },
            "post": {
                "operationId": "postA",
                "summary": "Post",
                "requestBody": {
                    "required": False,
                    "description": "At < most",
                    "content": {"text/plain": {"schema": {"type": "string"}}},
                },
                "responses": {},
            },
        },
        "/b": {
            "post": {
                "operationId": "postB",
                "summary": "B",
                "requestBody": {
                    "required": True,
                    "description": "b",
                    "content": {"text/b": {"schema": {"type": "string"}}},
                },
                "responses": {},
            }
        },
    },
    "components": {
        "schemas": {
            "A": {
                "description": "An <a>",
                "required": ["list"],
                "properties": {
                    "list": {"type": "array", "items": {"$ref": "#/components/schemas/B&C"}, "description": "L <"},
                    "text": {
                        "type": "string",
                        "format": "a&b",
                        "writeOnly": True,
                        "minimum": 1,
                        "maximum": 2,
                        "maxLength": 3,
                        "pattern": "^<$",
                    },
                },
            },
            "B&C": {"properties": {"a": {"type": "string"}}},
            "D": {},
        },
        "securitySchemes": {"bearer": {"scheme": "bearer", "description": "A <token>"}},
    },
}
PAGE = """\
<h1>A &amp; B</h1>
<p>Version 1&amp;2. <a href='openapi.json'>The OpenAPI document</a></p>
<p>Two &lt; three</p>
<p><code>Authorization: Bearer …</code> A &lt;token&gt;</p>
<h2>Operations</h2>
<section id='get&amp;A'>
<h3><b class='method'>GET</b> /v1/a&amp;b/{id}</h3>
<p>Get &lt; a.</p>
<table><caption>Parameters</caption>
<tr><td><code>id</code> (path)</td><td>string</td><td>Its &lt;id&gt;</td></tr>
<tr><td><code>a&amp;b</code> (query, required)</td><td>integer, default 2</td><td></td></tr>
<tr><td><code>c</code> (header)</td><td>string, <code>&lt;</code> or <code>&gt;</code></td><td>C</td></tr>
</table>
<table><caption>Responses</caption>
<tr><td><code>200</code> <a href='#A'>A</a></td><td></td><td>Done &amp; well</td></tr>
<tr><td><code>429</code> text/a&amp;b</td><td>X-A: One &lt; X-B: Two</td><td>Too many</td></tr>
</table>
</section>
<section id='postA'>
<h3><b class='method'>POST</b> /v1/a&amp;b/{id}</h3>
<p>Post. No token needed.</p>
<table><caption>Body</caption>
<tr><td>optional text/plain</td><td></td><td>At &lt; most</td></tr>
</table>
</section>
<section id='postB'>
<h3><b class='method'>POST</b> /b</h3>
<p>B. No token needed.</p>
<table><caption>Body</caption>
<tr><td>text/b</td><td></td><td>b</td></tr>
</table>
</section>
<h2>Schemas</h2>
<section id='A'><h3>A</h3><p>An &lt;a&gt;</p>
<table><caption>Fields</caption>
<tr><td><code>list</code></td><td>list of <a href='#B&amp;C'>B&amp;C</a></td><td>L &lt;</td></tr>
<tr><td><code>text</code> (optional)</td><td>string, a&amp;b, never in a response, at least 1, at most 2,\
 at most 3 characters, <code>^&lt;$</code></td><td></td></tr>
</table>
</section>
<section id='B&amp;C'><h3>B&amp;C</h3><p></p>
<table><caption>Fields</caption>
<tr><td><code>a</code> (optional)</td><td>string</td><td></td></tr>
</table>
</section>
<section id='D'><h3>D</h3><p></p>
</section>
</body></html>
"""


def test_the_page_has_a_section_for_each_operation_and_each_schema() -> None:
    head, separator, body = render(SMALL).partition("</style></head><body>\n")
    assert body == PAGE
    assert head.startswith(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<title>A &amp; B</title><style>:root {"
    )
    assert separator


def _bytes(text: str) -> SecretBytes:
    return SecretBytes(text.encode())
