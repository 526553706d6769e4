"""Runloop's unchanged Python SDK works with the gateway, and no log or object contains a value."""

import asyncio
import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from runloop_api_client import (
    APIStatusError,
    AsyncRunloop,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    Runloop,
)
from runloop_api_client.types import SecretView

from harness.components import reserved_port
from harness.controlplane import ControlPlane
from integration.support.account import Account
from integration.support.chart import get, install
from integration.support.gateway import Gateway, gateway, new_account, token
from integration.support.processes import operator

DOCUMENT = Path(__file__).parents[3] / "docs" / "operations" / "gateway.md"
CANARIES = [f"canary-{number}-in-the-cage" for number in range(6)]
POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    resources: [{group: "", resources: [secrets]}]
  - level: Request
"""


@dataclass(frozen=True)
class Running:
    """A control plane whose audit log has the bodies of requests, the operator and the gateway."""

    controlplane: ControlPlane
    gateway: Gateway
    account: Account
    key: str

    def runloop(self, key: str | None = None, **options: Any) -> Runloop:  # noqa: ANN401 - passed on to the SDK
        return Runloop(base_url=self.gateway.url, bearer_token=key or self.key, **options)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with ControlPlane.start(audit_policy=POLICY) as it:
        install(it)
        with operator(it), gateway(it) as process:
            account = Account.of(it, new_account(it))
            yield Running(it, process, account, token(it, account.name))


def test_the_sdk_manages_secrets_by_name_and_devboxes_get_the_values(running: Running) -> None:
    with running.runloop() as api:
        made = api.secrets.create(name="TOKEN", value=CANARIES[0])
        running.account.holds({"TOKEN": CANARIES[0].encode()})
        assert api.secrets.retrieve("TOKEN") == made
        updated = api.secrets.update("TOKEN", value=CANARIES[1])
        assert (updated.id, updated.create_time_ms) == (made.id, made.create_time_ms)
        assert updated.update_time_ms > made.update_time_ms
        running.account.holds({"TOKEN": CANARIES[1].encode()})
        running.account.is_ready("token")
        assert api.secrets.retrieve("TOKEN") == updated
        assert api.secrets.delete("TOKEN") == updated
    running.account.holds(None)


def test_the_sdk_manages_secrets_by_id_and_devboxes_get_the_values(running: Running) -> None:
    with running.runloop() as api:
        made = api.secrets.create(name="TOKEN", value=CANARIES[2])
        assert api.secrets.retrieve_by_id(made.id) == made
        updated = api.secrets.update_by_id(made.id, value=CANARIES[3])
        running.account.holds({"TOKEN": CANARIES[3].encode()})
        assert api.secrets.delete_by_id(made.id) == updated
    running.account.holds(None)


async def test_the_asynchronous_sdk_works_with_concurrent_requests(running: Running) -> None:
    async with AsyncRunloop(base_url=running.gateway.url, bearer_token=running.key) as api:
        made = await asyncio.gather(*[api.secrets.create(name=f"S{n}", value=CANARIES[4]) for n in range(10)])
        listed = await api.secrets.list()
        assert (listed.total_count, listed.has_more) == (10, False)
        assert {each.id for each in listed.secrets} == {each.id for each in made}
        assert await asyncio.gather(*[api.secrets.retrieve(each.name) for each in made]) == made
        assert await asyncio.gather(*[api.secrets.delete_by_id(each.id) for each in made]) == made
        assert (await api.secrets.list()).total_count == 0


def test_pages_are_followed_as_in_runloops_command_line(running: Running) -> None:
    with running.runloop() as api:
        made = [api.secrets.create(name=f"S{number}", value="v") for number in range(5)][::-1]
        found: list[SecretView] = []
        more = True
        while more:
            after = {"starting_after": found[-1].id} if found else None
            page = api.secrets.list(limit=2, extra_query=after)
            found, more = found + page.secrets, page.has_more
        assert found == made
        for each in made:
            api.secrets.delete(each.name)


def test_each_error_is_raised_as_the_sdks_own_class_without_a_retry(running: Running) -> None:
    viewer = token(running.controlplane, running.account.name, "viewer")
    with running.runloop() as api, running.runloop(viewer) as reader, running.runloop("made-up") as nobody:
        made = api.secrets.create(name="TOKEN", value="v")
        _raises(BadRequestError, lambda: api.secrets.create(name="TOKEN", value=CANARIES[5]))
        _raises(BadRequestError, lambda: api.secrets.create(name="NO NAME", value=CANARIES[5]))
        _raises(NotFoundError, lambda: api.secrets.retrieve("MISSING"))
        _raises(NotFoundError, lambda: api.secrets.update_by_id(f"{made.id}0", value=CANARIES[5]))
        _raises(PermissionDeniedError, lambda: reader.secrets.delete("TOKEN"))
        _raises(AuthenticationError, nobody.secrets.list)
        api.secrets.delete("TOKEN")


def _raises(kind: type[APIStatusError], call: Any) -> None:  # noqa: ANN401 - any call
    with pytest.raises(kind) as caught:
        call()
    assert set(caught.value.body) == {"message", "code"}  # type: ignore[call-overload]
    assert caught.value.request.headers["x-stainless-retry-count"] == "0"
    assert not any(canary in str(caught.value) for canary in CANARIES)


def test_the_documented_python_program_works(running: Running) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    env = {**os.environ, "RUNLOOP_BASE_URL": running.gateway.url, "RUNLOOP_API_KEY": running.key}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("['GITHUB_TOKEN']\n", "")


def test_the_sdk_retries_while_the_api_server_is_down(running: Running) -> None:
    with (
        reserved_port() as port,
        gateway(running.controlplane, server=f"https://127.0.0.1:{port}") as it,
        Runloop(base_url=it.url, bearer_token=running.key, max_retries=1) as api,
        pytest.raises(InternalServerError) as caught,
    ):
        api.secrets.list()
    assert caught.value.status_code == 503
    assert caught.value.request.headers["x-stainless-retry-count"] == "1"


def test_the_audit_log_shows_the_caller(running: Running) -> None:
    with running.runloop() as api:
        api.secrets.create(name="WHO", value="v")
        api.secrets.delete("WHO")
    events = [json.loads(line) for line in running.controlplane.audit_log.read_text().splitlines()]
    users = {
        event["user"]["username"]
        for event in events
        if event.get("objectRef", {}).get("name") == "who" and event["verb"] in {"create", "delete"}
    }
    assert users == {f"system:serviceaccount:{running.account.name}:editor"}


def test_values_are_in_no_log_and_only_in_the_account_secret(running: Running) -> None:
    with running.runloop() as api:
        for number, canary in enumerate(CANARIES):
            api.secrets.create(name=f"CANARY_{number}", value=canary)
        for body in ({"name": "A", "value": [CANARIES[0]]}, {CANARIES[1]: 1}, {"name": CANARIES[2], "value": "v"}):
            with pytest.raises(BadRequestError):
                api.post("/v1/secrets", body=body, cast_to=object)
        with pytest.raises(NotFoundError):
            api.get(f"/v1/{CANARIES[3]}", cast_to=object)
    running.account.holds({f"CANARY_{number}": canary.encode() for number, canary in enumerate(CANARIES)})
    it = running.controlplane
    texts = {
        "the gateway's log at DEBUG": running.gateway.log,
        "the audit log": it.audit_log.read_text(),
        "the API server's log": it.log("kube-apiserver").read_text(),
        "AccountSecrets": it.kubectl("get", "accountsecrets", "-A", "-o=json", "--show-managed-fields").stdout,
        "Events": it.kubectl("get", "events", "-A", "-o=json").stdout,
    }
    assert all(texts.values())
    assert '"sealed":"dbs1.' in texts["the audit log"]
    for canary in CANARIES:
        for form in (canary, base64.b64encode(canary.encode()).decode(), canary.encode().hex()):
            assert [where for where, text in texts.items() if form in text] == []
    assert running.key not in running.gateway.log
    assert len(get(it, "accountsecrets", "-n", running.account.name)["items"]) == len(CANARIES)


def test_the_access_log_of_an_ingress_contains_no_value(running: Running) -> None:
    lines: list[str] = []

    class Ingress(BaseHTTPRequestHandler):
        """A proxy with an access log in the combined format."""

        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            url, headers = f"{running.gateway.url}{self.path}", dict(self.headers.items())
            answer = httpx.request(self.command, url, headers=headers, content=body, trust_env=False)
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers["Content-Type"])
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST  # noqa: N815 - http.server's name

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            agent, referer = (self.headers.get(name, "-") for name in ("User-Agent", "Referer"))
            lines.append(f'{self.client_address[0]} - "{self.requestline}" {int(code)} {size} "{referer}" "{agent}"')

    with ThreadingHTTPServer(("127.0.0.1", 0), Ingress) as ingress:
        Thread(target=ingress.serve_forever).start()
        with Runloop(base_url=f"http://127.0.0.1:{ingress.server_port}", bearer_token=running.key) as api:
            made = api.secrets.create(name="THROUGH", value=CANARIES[0])
            api.secrets.update("THROUGH", value=CANARIES[1])
            api.secrets.update_by_id(made.id, value=CANARIES[2])
            with pytest.raises(BadRequestError):
                api.secrets.create(name="THROUGH", value=CANARIES[3])
            api.secrets.list(extra_query={"starting_after": made.id})
            api.secrets.delete("THROUGH")
        ingress.shutdown()
    assert [line.split('"')[1].split()[0] for line in lines] == ["POST"] * 4 + ["GET", "POST"]
    assert [line for line in lines for canary in CANARIES if canary in line] == []
