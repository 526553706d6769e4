"""Each command connects to the cluster once, or not at all if it needs no cluster."""

import base64
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretBytes
from typer.testing import CliRunner

from devbox_secrets.cli import app
from devbox_secrets.crypto.backup import Backup, passphrase_from
from devbox_secrets.crypto.envelope import KeyPair
from devbox_secrets.errors import NotFound
from devbox_secrets.kube.client import Client
from devbox_secrets.kube.config import ClientConfig
from unit.cli.fake_client import FakeClient, Json

OLD, KEY, OTHER = (
    KeyPair(SecretBytes(bytes([number]) * 32), datetime(2026, number, 1, tzinfo=UTC)) for number in (1, 2, 3)
)
STORED = {key.public.id: base64.b64encode(key.dump()).decode() for key in (OLD, KEY)}
PASSPHRASE = "correct horse battery staple"  # noqa: S105 - only for tests
SECRETS = "/apis/devbox-secrets.dev/v1beta1/namespaces/team/accountsecrets"
SECRET: Json = {
    "metadata": {
        "uid": "1", "namespace": "team", "name": "token", "generation": 1, "resourceVersion": "7",
        "creationTimestamp": "2026-01-01T00:00:00Z",
    },
    "spec": {"name": "TOKEN", "sealed": KEY.public.seal(SecretBytes(b"1"), account="team", name="TOKEN")},
}  # fmt: skip
OURS = {"app.kubernetes.io/managed-by": "devbox-secrets-cli"}
OPERATOR = "/api/v1/namespaces/devbox-secrets"
TEAM = "/api/v1/namespaces/team"
BINDINGS = "/apis/rbac.authorization.k8s.io/v1/namespaces/team/rolebindings"


def listed(*items: Json) -> Json:
    return {"metadata": {"resourceVersion": "9"}, "items": list(items)}


RESPONSES: dict[str, Json | Exception] = {
    f"GET {SECRETS}": listed(SECRET),
    f"PATCH {SECRETS}/token": SECRET,
    f"DELETE {SECRETS}/token": {},
    "GET /apis/devbox-secrets.dev/v1beta1/accountsecrets": listed(SECRET),
    f"GET {OPERATOR}/configmaps/devbox-secrets-public-keys": {
        "metadata": {"labels": {"app.kubernetes.io/version": "1.2.3"}},
        "data": {"newest": str(KEY.public)},
    },
    f"GET {OPERATOR}/secrets/devbox-secrets-keys": {"metadata": {"resourceVersion": "1"}, "data": STORED},
    f"GET {OPERATOR}/services/devbox-secrets-gateway": {"spec": {"ports": [{"name": "http", "port": 80}]}},
    f"PATCH {OPERATOR}/secrets/devbox-secrets-keys": {},
    "GET /api/v1/namespaces": listed(),
    f"GET {TEAM}": {"metadata": {}},
    f"GET {TEAM}/pods": listed(),
    f"GET {TEAM}/serviceaccounts": listed(
        {"metadata": {"name": "ci", "creationTimestamp": "2026-01-01T00:00:00Z", "labels": OURS}}
    ),
    f"GET {TEAM}/serviceaccounts/ci": {"metadata": {"uid": "1", "labels": OURS}},
    f"DELETE {TEAM}/serviceaccounts/ci": {},
    f"POST {TEAM}/serviceaccounts": {},
    f"POST {TEAM}/serviceaccounts/ci/token": {
        "status": {"token": "t", "expirationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"expirationSeconds": 86400},
    },
    f"GET {BINDINGS}": listed(),
    f"POST {BINDINGS}": {},
    "GET /apis/rbac.authorization.k8s.io/v1/clusterroles/devbox-secrets-edit": {},
}  # fmt: skip
#: Commands with the methods of their requests and their exit codes.
ONLINE = {
    "list -n team": ({"GET"}, 0),
    "get -n team TOKEN": ({"GET"}, 0),
    "update -n team TOKEN": ({"GET", "PATCH"}, 0),
    "delete -n team TOKEN --yes": ({"GET", "DELETE"}, 0),
    "seal -n team TOKEN": ({"GET"}, 0),
    "seal -n team TOKEN --apply": ({"GET", "PATCH"}, 0),
    "seal -n team TOKEN --apply --public-key key": ({"GET", "PATCH"}, 0),
    "import -n team .env": ({"GET", "PATCH"}, 0),
    "import -n team .env --apply": ({"GET", "PATCH"}, 0),
    "import -n team .env -o yaml": ({"GET"}, 0),
    "status -n team": ({"GET"}, 3),
    "status -n team TOKEN --wait --timeout 0": ({"GET"}, 4),
    "usage -n team": ({"GET"}, 0),
    "-n team list": ({"GET"}, 0),
    "list -A -o wide": ({"GET"}, 0),
    "get -n team TOKEN -o name": ({"GET"}, 0),
    "set -n team TOKEN": ({"GET", "PATCH"}, 0),
    "set -n team TOKEN --public-key key": ({"GET", "PATCH"}, 0),
    "set -n team TOKEN --dry-run": ({"GET", "PATCH"}, 0),
    "import -n team .env --dry-run --public-key key": ({"GET", "PATCH"}, 0),
    "import -n team .env --apply --public-key key": ({"GET", "PATCH"}, 0),
    "version": ({"GET"}, 0),
    "apikey create -n team ci": ({"GET", "POST"}, 0),
    "apikey list -n team": ({"GET"}, 0),
    "apikey revoke -n team ci --yes": ({"GET", "DELETE"}, 0),
    "keys list": ({"GET"}, 0),
    "keys rotate --no-wait": ({"GET", "PATCH"}, 0),
    "keys backup new --passphrase-file passphrase": ({"GET"}, 0),
    "keys restore backup --passphrase-file passphrase": ({"GET", "PATCH"}, 0),
    "keys prune --yes": ({"GET", "PATCH"}, 0),
    "reseal .": ({"GET"}, 0),
    "check": ({"GET"}, 3),
}
OFFLINE = (
    "seal -n team TOKEN --public-key key",
    "import -n team .env --public-key key -o yaml",
    "import -n team .env --public-key key",
    "version --client",
    "completion bash",
    "help keys rotate",
    "-n team help set",
)

Invoke = Callable[[str], tuple[int, list[FakeClient]]]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Return a function that runs a command in a folder with its input files; it returns exit code and connections."""
    monkeypatch.chdir(tmp_path)
    Path("key").write_text(str(KEY.public))
    Path(".env").write_text("TOKEN=2\n")
    Path("passphrase").write_text(PASSPHRASE)
    Path("backup").write_text(Backup.encrypt([OTHER], passphrase_from(PASSPHRASE), OTHER.created).dump())
    connections: list[FakeClient] = []

    @asynccontextmanager
    async def connect(_: ClientConfig) -> AsyncIterator[FakeClient]:
        connections.append(FakeClient(defaultdict(lambda: NotFound("no such object"), RESPONSES)))
        yield connections[-1]

    monkeypatch.setattr(Client, "connect", connect)

    def run(command: str) -> tuple[int, list[FakeClient]]:
        result = CliRunner().invoke(app, command.split(), input=b"2")
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.exit_code, connections

    return run


@pytest.mark.parametrize("command", ONLINE)
def test_a_command_connects_once(invoke: Invoke, command: str) -> None:
    methods, code = ONLINE[command]
    ended, connections = invoke(command)
    (client,) = connections
    assert ended == code
    assert {request.partition(" ")[0] for request, _ in client.requests} == methods


@pytest.mark.parametrize("command", OFFLINE)
def test_a_command_that_needs_no_cluster_does_not_connect(invoke: Invoke, command: str) -> None:
    assert invoke(command) == (0, [])
