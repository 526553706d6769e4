"""examples/keys-backup.yaml, the nightly backup of the sealing keys, works with the operator's image."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from devbox_secrets.crypto.backup import Backup, passphrase_from
from e2e.accounts import IDLE, until
from harness.image import operator_image
from harness.kind import Cluster
from harness.release import NAMESPACE

EXAMPLE = Path(__file__).parents[2] / "examples/keys-backup.yaml"
PASSPHRASE = "canary correct horse battery staple"  # noqa: S105 - of a test
NAME = "keys-backup"


@pytest.fixture(name="example")
def _example(cluster: Cluster, devbox_image: str) -> Iterator[None]:
    """The applied example, with the image under test and a volume that a second container can read."""
    objects: list[dict[str, Any]] = list(yaml.safe_load_all(EXAMPLE.read_text()))
    pod = objects[-1]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (backup,) = pod["containers"]
    backup["image"] = operator_image(cluster)
    reader = {
        "name": "reader",
        "image": devbox_image,
        "command": IDLE,
    }
    pod["containers"].append(
        {**reader, "securityContext": backup["securityContext"], "volumeMounts": backup["volumeMounts"][:1]}
    )
    pod["volumes"][0] = {"name": "backup", "emptyDir": {}}
    secret = f"--from-literal=passphrase={PASSPHRASE}"
    cluster.kubectl("create", "secret", "generic", f"{NAME}-passphrase", secret, f"-n{NAMESPACE}")
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))
    yield
    cluster.kubectl("delete", "-f", EXAMPLE, "--wait=false")
    cluster.kubectl("delete", "job,secret", NAME, f"{NAME}-passphrase", f"-n{NAMESPACE}", "--ignore-not-found")


@pytest.mark.usefixtures("example")
def test_the_cronjob_backs_up_every_key(cluster: Cluster) -> None:
    cluster.kubectl("create", "job", NAME, f"--from=cronjob/{NAME}", f"-n{NAMESPACE}")
    selected = ("pods", f"-ljob-name={NAME}", f"-n{NAMESPACE}")

    def terminated() -> dict[str, Any]:
        for pod in cluster.get(*selected)["items"]:
            states = {it["name"]: it["state"] for it in pod["status"].get("containerStatuses", ())}
            if "terminated" in states.get("backup", {}):
                return {"pod": pod["metadata"]["name"], **states["backup"]["terminated"]}
        return {}

    until("the backup has terminated", terminated, seconds=60)
    pod = terminated()["pod"]
    log = cluster.kubectl("logs", pod, "-cbackup", f"-n{NAMESPACE}")
    assert terminated()["exitCode"] == 0, log
    text = cluster.kubectl("exec", pod, "-creader", f"-n{NAMESPACE}", "--", "cat", f"/backup/{pod}.json")
    keys = Backup.parse(text.encode()).decrypt(passphrase_from(PASSPHRASE))
    assert {key.public.id for key in keys} == set(
        cluster.get("secret", "devbox-secrets-keys", f"-n{NAMESPACE}")["data"]
    )
    assert PASSPHRASE not in log + text + json.dumps(cluster.get(*selected))
