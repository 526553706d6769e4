"""The documented health check for Argo CD, run by a Lua interpreter on statuses that the operator wrote."""

import json
from pathlib import Path

import pytest
import yaml
from lupa.lua51 import LuaRuntime

from devbox_secrets.api.names import account_secrets_path
from harness.controlplane import ControlPlane
from integration.support.account import Account
from integration.support.chart import Json, install, until
from integration.support.gateway import publish_key
from integration.support.processes import operator

GITOPS = Path(__file__).parents[3] / "docs" / "how-to" / "gitops.md"
KEY = "resource.customizations.health.devbox-secrets.dev_AccountSecret"
LONG_AGO = "2020-01-01T00:00:00Z"
WAITING = {"status": "Progressing", "message": "waiting for the operator of devbox-secrets"}


def health(body: Json) -> dict[str, str]:
    """Run the documented snippet as Argo CD does: the object is the global `obj`, and it returns the health."""
    _, _, rest = GITOPS.read_text().partition("## Health in Argo CD")
    snippet = yaml.safe_load(rest.split("```yaml")[1].split("```")[0])["data"][KEY]
    lua = LuaRuntime(unpack_returned_tuples=True)
    lua.globals().obj = lua.table_from(body, recursive=True)
    return dict(lua.execute(snippet))


@pytest.mark.parametrize("status", [None, {}, {"observedGeneration": -1}, {"observedGeneration": 1, "conditions": []}])
def test_an_unprocessed_accountsecret_is_progressing(status: Json | None) -> None:
    body = {"metadata": {"generation": 1}} | ({} if status is None else {"status": status})
    assert health(body) == WAITING


def test_health_is_the_operators_condition_for_the_current_generation(
    controlplane: ControlPlane, namespace: str
) -> None:
    def current() -> dict[str, str]:
        body = controlplane.read(account_secrets_path(namespace, "token"))
        assert body
        return health(body)

    def ready(reason: str) -> dict[str, str]:
        condition = account.is_ready("token", reason)
        return {"status": "Healthy" if condition["status"] == "True" else "Degraded", "message": condition["message"]}

    install(controlplane)
    publish_key(controlplane)
    account = Account.of(controlplane, namespace)
    good, bad = account.manifest("TOKEN", b"v"), account.manifest("TOKEN", b"v", sealed_for="another")
    good["spec"]["rotateAfter"] = "1m"

    account.apply(good)
    assert current() == WAITING
    with operator(controlplane):
        assert ready("Synced")["status"] == "Healthy"
        assert current() == ready("Synced")
        status = json.dumps({"status": {"changedAt": LONG_AGO}})
        patch = ("--subresource=status", "--type=merge", f"--patch={status}")
        controlplane.kubectl("patch", "accountsecret", "token", f"--namespace={namespace}", *patch)
        until("it is due", lambda: "Overdue" in json.dumps(controlplane.read(account_secrets_path(namespace, "token"))))
        assert current() == ready("Synced")
    account.apply(bad)
    assert current() == WAITING
    with operator(controlplane):
        assert ready("CannotOpen")["status"] == "Degraded"
        assert current() == ready("CannotOpen")
