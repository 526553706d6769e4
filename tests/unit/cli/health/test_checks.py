"""What `check` reports about AccountSecrets and the sealing keys."""

from devbox_secrets.api.names import ALL_ACCOUNT_SECRETS_PATH
from devbox_secrets.cli.health.checks import account_secrets, sealing_key
from devbox_secrets.cli.health.probe import Finding, Level, Probe
from devbox_secrets.errors import NotFound
from unit.cli.fake_client import FakeClient, Json


def overdue(name: str) -> Json:
    """Return an AccountSecret that is Ready and due for rotation."""
    time = "2026-01-01T00:00:00Z"
    condition = {"status": "True", "reason": "R", "message": "m", "lastTransitionTime": time}
    conditions = [{**condition, "type": "Ready", "reason": "Synced"}, {**condition, "type": "RotationDue"}]
    metadata = {"name": name, "namespace": "team", "uid": name, "creationTimestamp": time, "generation": 1}
    return {
        "metadata": {**metadata, "resourceVersion": "1"},
        "spec": {"name": "TOKEN", "sealed": "dbs1.x"},
        "status": {"observedGeneration": 1, "conditions": conditions},
    }


async def test_accountsecrets_that_are_due_for_rotation_are_named() -> None:
    listed: Json = {"items": [overdue("a"), overdue("b")], "metadata": {"resourceVersion": "1"}}
    client = FakeClient({f"GET {ALL_ACCOUNT_SECRETS_PATH}": listed})
    found = await account_secrets(Probe(client, "devbox-secrets", None))
    text = "2 older than rotateAfter: team/a, team/b; change the values: devbox-secrets update NAME"
    assert found == [Finding(Level.OK, "synced", "2 AccountSecrets"), Finding(Level.WARNING, "rotation", text)]


CONFIGMAP = "GET /api/v1/namespaces/ours/configmaps/devbox-secrets-public-keys"
IN_USE: Json = {"items": [overdue("a")], "metadata": {"resourceVersion": "1"}}


async def test_in_a_wrong_namespace_the_keys_are_not_reported_as_lost() -> None:
    client = FakeClient({CONFIGMAP: NotFound("404"), f"GET {ALL_ACCOUNT_SECRETS_PATH}": IN_USE})
    text = "no ConfigMap devbox-secrets-public-keys in ours; install the chart, or pass --operator-namespace"
    assert await sealing_key(Probe(client, "ours", None)) == [Finding(Level.ERROR, "sealing key", text)]


async def test_keys_that_are_in_use_but_not_published_are_lost() -> None:
    client = FakeClient({CONFIGMAP: {"metadata": {}}, f"GET {ALL_ACCOUNT_SECRETS_PATH}": IN_USE})
    (found,) = await sealing_key(Probe(client, "ours", None))
    assert found.text.startswith("the keys are lost, so values can't be decrypted or sealed; restore them")
