"""What `check` reports about AccountSecrets."""

from devbox_secrets.api.names import ALL_ACCOUNT_SECRETS_PATH
from devbox_secrets.cli.health.checks import account_secrets
from devbox_secrets.cli.health.probe import Finding, Level, Probe
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
