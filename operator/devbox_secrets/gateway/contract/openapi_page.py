"""The OpenAPI document as an HTML page, without scripts and without other hosts. Pure.

The page is generated from the document, so the two can't differ. It covers only what our document uses: no forms, no
callbacks, one media type for each body.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from types import MappingProxyType
from typing import Any

Json = Mapping[str, Any]

_STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; }
code, h3 { font-family: ui-monospace, monospace; font-size: .92em; }
h3 { font-size: 1rem; margin: 0; overflow-wrap: anywhere; }
section { border: 1px solid var(--line); border-radius: 6px; margin: 1rem 0; padding: .8rem 1rem; }
section > p { margin: .3rem 0 .8rem; }
table { border-collapse: collapse; width: 100%; margin: .3rem 0 .8rem; }
caption { text-align: left; font-weight: 600; }
td { border-top: 1px solid var(--line); padding: .3rem .6rem .3rem 0; vertical-align: top; overflow-wrap: anywhere; }
td:first-child { width: 13rem; }
td:nth-child(2) { width: 15rem; }
b.method { background: var(--soft); border-radius: 4px; padding: .1rem .4rem; }
""".strip()
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
#: A browser neither runs nor fetches anything that gets into the page by mistake.
HEADERS = MappingProxyType(
    {
        "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
)


def render(document: Json) -> str:
    """Return the page for a document."""
    info, schemas = document["info"], document["components"]["schemas"]
    operations = [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    title = escape(info["title"])
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{title}</h1>",
            f"<p>Version {escape(info['version'])}. <a href='openapi.json'>The OpenAPI document</a></p>",
            f"<p>{escape(info['description'])}</p>",
            *_security(document["components"]["securitySchemes"]),
            "<h2>Operations</h2>",
            *(line for each in operations for line in _operation(*each)),
            "<h2>Schemas</h2>",
            *(line for name, schema in schemas.items() for line in _schema(name, schema)),
            "</body></html>\n",
        ]
    )


def _security(schemes: Json) -> Iterator[str]:
    for scheme in schemes.values():
        yield f"<p><code>Authorization: {escape(scheme['scheme'].title())} …</code> {escape(scheme['description'])}</p>"


def _operation(method: str, path: str, operation: Json) -> Iterator[str]:
    yield f"<section id='{escape(operation['operationId'])}'>"
    yield f"<h3><b class='method'>{method.upper()}</b> {escape(path)}</h3>"
    token = "" if "security" in operation else " No token needed."
    yield f"<p>{escape(operation['summary'])}.{token}</p>"
    yield from _table("Parameters", (_parameter(each) for each in operation.get("parameters", ())))
    if body := operation.get("requestBody"):
        optional = "" if body["required"] else "optional "
        yield from _table("Body", [(optional + _content(body), "", escape(body["description"]))])
    yield from _table("Responses", (_response(*each) for each in operation["responses"].items()))
    yield "</section>"


def _parameter(it: Json) -> tuple[str, str, str]:
    where = f"{it['in']}, required" if it.get("required") and it["in"] != "path" else it["in"]
    return f"<code>{escape(it['name'])}</code> ({where})", _type(it["schema"]), escape(it.get("description", ""))


def _response(status: str, it: Json) -> tuple[str, str, str]:
    headers = [f"{name}: {header['description']}" for name, header in it.get("headers", {}).items()]
    return f"<code>{status}</code> {_content(it)}", escape(" ".join(headers)), escape(it["description"])


def _content(it: Json) -> str:
    ((media, content),) = it["content"].items()
    schema = content["schema"]
    return _type(schema) if "$ref" in schema else escape(media)


def _schema(name: str, schema: Json) -> Iterator[str]:
    yield f"<section id='{escape(name)}'><h3>{escape(name)}</h3><p>{escape(schema.get('description', ''))}</p>"
    required = schema.get("required", ())
    fields = schema.get("properties", {}).items()
    yield from _table(
        "Fields",
        (
            (
                f"<code>{escape(field)}</code>{'' if field in required else ' (optional)'}",
                _type(it),
                escape(it.get("description", "")),
            )
            for field, it in fields
        ),
    )
    yield "</section>"


def _type(schema: Json) -> str:
    """Describe in a few words what a schema allows."""
    if target := schema.get("$ref"):
        name = escape(target.rpartition("/")[2])
        return f"<a href='#{name}'>{name}</a>"
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    limits = {
        "format": "{}",
        "writeOnly": "never in a response",
        "default": "default {}",
        "minimum": "at least {}",
        "maximum": "at most {}",
        "maxLength": "at most {} characters",
        "pattern": "<code>{}</code>",
    }
    said = [text.format(escape(str(schema[key]))) for key, text in limits.items() if key in schema]
    said += [" or ".join(f"<code>{escape(word)}</code>" for word in schema.get("enum", ()))]
    return ", ".join(filter(None, [escape(schema["type"]), *said]))


def _table(caption: str, rows: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    lines = ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows]
    if lines:
        yield f"<table><caption>{caption}</caption>"
        yield from lines
        yield "</table>"
