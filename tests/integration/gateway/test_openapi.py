"""The gateway matches its OpenAPI document: schemathesis generates requests from it and checks the responses."""

import json
import re
import subprocess
import sysconfig
from pathlib import Path

import httpx
import pytest

from harness.controlplane import ControlPlane
from integration.support.chart import Json
from integration.support.gateway import Gateway, new_account, token

SCHEMATHESIS = Path(sysconfig.get_path("scripts")) / "schemathesis"
DOCUMENT = Path(__file__).parents[3] / "docs" / "openapi.json"
SECONDS = 240  # on an idle machine it takes 8


@pytest.mark.usefixtures("running")  # some requests wait for the operator
def test_the_gateway_conforms_to_its_openapi_document(
    controlplane: ControlPlane, rest: Gateway, tmp_path: Path
) -> None:
    account = new_account(controlplane)
    # The document allows any account; schemathesis must use one that the token's user has access to.
    headers = {"Authorization": f"Bearer {token(controlplane, account)}", "X-Devbox-Secrets-Account": account}
    document, report = tmp_path / "openapi.json", tmp_path / "report.json"
    document.write_text(json.dumps(without_max_length(json.loads(DOCUMENT.read_text()))))
    done = subprocess.run(
        [
            *(SCHEMATHESIS, f"--config-file={Path(__file__).with_name('schemathesis.toml')}"),
            *("run", document, f"--url={rest.url}", "--report=json", f"--report-json-path={report}"),
            *(f"--header={name}: {value}" for name, value in headers.items()),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert found["operations"]["tested"] == len(operations(json.loads(DOCUMENT.read_text())))
    assert {name for name, it in found["phases"].items() if it["status"] == "success"} == {
        *("coverage", "fuzzing", "stateful")
    }
    links = re.search(r"API Links: +(\d+) covered / (\d+) selected", done.stdout)
    assert links
    assert links[1] == links[2] == "6", done.stdout
    assert "Traceback" not in rest.log


def without_max_length(document: Json) -> Json:
    """Remove the maximum length of values: such strings would take nearly all the time; test_rejections tests them."""
    for body in ("Creation", "Update"):
        del document["components"]["schemas"][body]["properties"]["value"]["maxLength"]
    return document


def operations(document: dict[str, dict[str, dict[str, object]]]) -> list[tuple[str, str]]:
    return [(method, path) for path, methods in document["paths"].items() for method in methods]


def test_the_served_document_is_the_one_in_docs(rest: Gateway) -> None:
    assert httpx.get(f"{rest.url}/openapi.json", trust_env=False).json() == json.loads(DOCUMENT.read_text())


def test_the_page_lists_every_operation_and_loads_nothing_from_other_hosts(rest: Gateway) -> None:
    answer = httpx.get(f"{rest.url}/docs", trust_env=False)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    for method, path in operations(json.loads(DOCUMENT.read_text())):
        assert f"<b class='method'>{method.upper()}</b> {path}</h3>" in answer.text
    assert re.findall(r"(?:src|href)=['\"](?!#)([^'\"]*)|https?:|<script", answer.text) == ["openapi.json"]


@pytest.mark.parametrize("part", ["default-src 'none'", "base-uri 'none'", "form-action 'none'"])
def test_the_pages_content_security_policy_forbids_scripts_and_requests(part: str, rest: Gateway) -> None:
    policy = httpx.get(f"{rest.url}/docs", trust_env=False).headers["content-security-policy"]
    assert part in policy
    assert "unsafe" not in policy
