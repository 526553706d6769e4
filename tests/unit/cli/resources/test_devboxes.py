"""Which pods are devboxes, and which value of a secret each has."""

from typing import Any

import pytest

from devbox_secrets.api.models import AccountSecret
from devbox_secrets.cli.resources.devboxes import ALL, NOT_STARTED, Delivery, Has, delivery_of, devbox_of

SECRET = "devbox-account-secrets"  # noqa: S105 - a Secret's name
EARLY, CREATED, BETWEEN, CHANGED, LATE = (f"2026-01-01T00:00:0{second}Z" for second in range(1, 6))
Json = dict[str, Any]

WHOLE: Json = {"envFrom": [{"configMapRef": {"name": "x"}}, {"secretRef": {"name": SECRET}}]}
OTHER: Json = {"envFrom": [{"secretRef": {"name": "db"}}], "env": [{"name": "A", "value": "x"}]}
FILES: Json = {"volumes": [{"name": "v", "secret": {"secretName": SECRET}}]}


def one(key: str, name: str | None = None) -> Json:
    return {"env": [{"name": name or key, "valueFrom": {"secretKeyRef": {"name": SECRET, "key": key}}}]}


def running(since: str) -> Json:
    return {"running": {"startedAt": since}}


def pod(*containers: tuple[Json, Json | None], init: tuple[tuple[Json, Json | None], ...] = (), **spec: object) -> Json:
    """Return a pod with containers and their states."""

    def statuses(kind: str, all_: tuple[tuple[Json, Json | None], ...]) -> list[Json]:
        return [{"name": f"{kind}{n}", "state": state} for n, (_, state) in enumerate(all_) if state is not None]

    return {
        "metadata": {"namespace": "team", "name": "box"},
        "spec": {
            "containers": [{"name": f"c{number}", **each} for number, (each, _) in enumerate(containers)],
            "initContainers": [{"name": f"i{number}", **each} for number, (each, _) in enumerate(init)],
            **spec,
        },
        "status": {"containerStatuses": statuses("c", containers), "initContainerStatuses": statuses("i", init)},
    }


def secret(reason: str | None = "Synced", changed: str | None = CHANGED, name: object = "TOKEN") -> Delivery | None:
    """Return what devboxes get from an AccountSecret whose condition Ready has this reason."""
    ready = {"type": "Ready", "status": "True" if reason == "Synced" else "False", "reason": reason, "message": ""}
    conditions = [{**ready, "lastTransitionTime": CHANGED}] if reason else []
    metadata = {"uid": "1", "namespace": "team", "name": "token", "generation": 1, "resourceVersion": "1"}
    return delivery_of(
        AccountSecret.parse(
            {
                "metadata": {**metadata, "creationTimestamp": CREATED},
                "spec": {"name": name, "sealed": "…"},
                "status": {"observedGeneration": 1, "changedAt": changed, "conditions": conditions},
            }
        )
    )


@pytest.mark.parametrize(
    ("body", "env"),
    [
        (pod((WHOLE, running(LATE))), {ALL: LATE}),
        (pod((WHOLE, running(LATE)), (WHOLE, running(EARLY))), {ALL: EARLY}),
        (pod((WHOLE, running(EARLY)), (WHOLE, {"waiting": {}})), {ALL: EARLY}),
        (pod((WHOLE, {"waiting": {"reason": "CreateContainerConfigError"}})), {ALL: NOT_STARTED}),
        (pod((WHOLE, None)), {ALL: NOT_STARTED}),
        (pod((one("TOKEN"), running(LATE)), (one("DB"), running(EARLY))), {"TOKEN": LATE, "DB": EARLY}),
        (pod((OTHER, running(LATE)), init=((WHOLE, running(EARLY)),)), {ALL: EARLY}),
        (pod((WHOLE, running(LATE)), init=((WHOLE, {"terminated": {}}),)), {ALL: LATE}),
    ],
    ids=[
        "one container", "the oldest of two counts", "a waiting one starts later", "none has started", "no state yet",
        "each variable by itself", "a sidecar", "an init container that has ended",
    ],
)  # fmt: skip
def test_a_devbox_s_environment_is_as_old_as_its_oldest_container(body: Json, env: dict[str, str]) -> None:
    devbox = devbox_of(body)
    assert devbox is not None
    assert devbox.env == env


def test_a_pod_without_a_reference_to_the_account_secret_is_not_a_devbox() -> None:
    assert devbox_of(pod((OTHER, running(LATE)), volumes=[{"name": "v", "secret": {"secretName": "db"}}])) is None


@pytest.mark.parametrize(
    ("volume", "files"),
    [
        ({"secret": {"secretName": SECRET}}, {ALL}),
        ({"secret": {"secretName": SECRET, "items": [{"key": "TOKEN", "path": "t"}]}}, {"TOKEN"}),
        ({"projected": {"sources": [{"configMap": {"name": "x"}}, {"secret": {"name": SECRET}}]}}, {ALL}),
    ],
)
def test_a_volume_of_the_account_secret_contains_files(volume: Json, files: set[str]) -> None:
    devbox = devbox_of(pod((OTHER, running(LATE)), volumes=[{"name": "v", **volume}]))
    assert devbox is not None
    assert devbox.env == {}
    assert devbox.files == files


@pytest.mark.parametrize(
    ("body", "has"),
    [
        (pod((WHOLE, running(LATE))), Has.CURRENT),
        (pod((WHOLE, running(CHANGED))), Has.OLDER),
        (pod((WHOLE, running(BETWEEN))), Has.OLDER),
        (pod((WHOLE, running(EARLY))), Has.NONE),
        (pod((WHOLE, None)), Has.STARTING),
        (pod((one("TOKEN"), running(BETWEEN)), (WHOLE, running(LATE))), Has.OLDER),
        (pod((one("TOKEN", "MINE"), running(LATE))), Has.CURRENT),
        (pod((one("DB", "TOKEN"), running(LATE))), None),
        (pod((OTHER, running(EARLY)), **FILES), Has.CURRENT),
        (pod((WHOLE, running(EARLY)), **FILES), Has.NONE),
    ],
    ids=[
        "started later", "started in the second of the change", "started before", "started before it was created",
        "hasn't started", "one of two containers started before", "under another name", "another under its name",
        "files are updated", "files don't change the environment",
    ],
)  # fmt: skip
def test_which_value_a_devbox_has(body: Json, has: Has | None) -> None:
    devbox = devbox_of(body)
    assert devbox is not None
    assert devbox.has(secret()) == has


ODD_PODS = {
    "running without a start time": ({"running": {"startedAt": None}}, [], Has.STARTING),
    "with an empty projected volume": (running(LATE), [{"name": "v", "projected": {"sources": None}}], Has.CURRENT),
}


@pytest.mark.parametrize("what", ODD_PODS)
def test_an_incomplete_pod_is_read_as_far_as_possible(what: str) -> None:
    state, volumes, has = ODD_PODS[what]
    body = pod((WHOLE, state))
    body["spec"]["volumes"] = volumes
    devbox = devbox_of(body)
    assert devbox is not None
    assert devbox.has(secret()) == has


def test_devboxes_get_nothing_from_an_accountsecret_without_a_readable_name() -> None:
    assert secret(name=["TOKEN"]) is None


@pytest.mark.parametrize(
    ("reason", "changed", "has"),
    [
        ("Synced", CHANGED, Has.CURRENT),
        (None, CHANGED, Has.CURRENT),
        ("UnknownKey", CHANGED, Has.CURRENT),
        ("UnknownKey", None, None),
        (None, None, None),
        ("NameConflict", CHANGED, None),
        ("ReservedName", CHANGED, None),
        ("WrongNamespace", CHANGED, None),
    ],
)
def test_which_value_a_devbox_has_depends_on_the_accountsecret_s_status(
    reason: str | None, changed: str | None, has: Has | None
) -> None:
    devbox = devbox_of(pod((WHOLE, running(LATE))))
    assert devbox is not None
    assert devbox.has(secret(reason, changed)) == has
