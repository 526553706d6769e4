"""Actions of users, chosen by a seed and performed with kubectl, the CLI and the gateway.

Each action is retried until it succeeds, so the choices of a seed don't depend on failures.
"""

import base64
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from random import Random
from typing import TypeVar

import httpx
from pydantic import SecretBytes

from devbox_secrets.api.manifest import manifest
from devbox_secrets.api.models import AccountSecretSpec
from devbox_secrets.api.names import ACCOUNT_LABEL, FIELD_MANAGER, MANAGED_BY_LABEL, account_secrets_path
from devbox_secrets.crypto.envelope import PublicKey
from devbox_secrets.kube.client import APPLY, MERGE
from harness.components import write_private
from harness.controlplane import ControlPlane, KubectlError, RequestError
from integration.controller.soak.history import History
from integration.controller.soak.model import COPIED, EDITED, AccountSecret, Model, Namespace, Value, is_ours
from integration.support.account import SECRET
from integration.support.chart import Json, namespace, until
from integration.support.processes import command
from integration.support.sealing_keys import SECRET as KEYS
from integration.support.sealing_keys import published

HOMES = ("soak-a", "soak-b")
NAMESPACES = (*HOMES, "soak-c", "soak-d", "soak-e")
#: The variables of AccountSecrets, by their names. Two that can have the same variable can conflict.
VARIABLES = {"r": ("V", "W"), "s": ("V", "W"), "x": ("X",), "y": ("Y",)}
#: The command line and the gateway find these by their variables.
_PLAIN = ("x", "y")
WEIGHTS = {
    "put": 10,
    "missealed": 2,
    "race": 1,
    "stale": 1,
    "delete": 4,
    "label": 4,
    "remove": 1,
    "create": 3,
    "recreate": 2,
    "edit": 2,
    "erase": 2,
    "copy": 1,
    "rotate": 1,
    "prune": 1,
    "lose keys": 1,
}
_RETRY_SECONDS = 180.0
_FAILURES = (httpx.HTTPError, KubectlError, RequestError, LookupError, ValueError)
_INCARNATION = "incarnation"

T = TypeVar("T")


class NotDone(Exception):
    """A command or a response reported a failure."""


@dataclass(frozen=True)
class Action:
    """An action of a user."""

    verb: str
    namespace: str = ""
    name: str = ""
    variable: str = ""
    number: int = 0
    """The number of the value, or of the namespace's creation."""
    label: str | None = None
    by: str = "kubectl"

    def __str__(self) -> str:
        return " ".join(str(word) for word in vars(self).values() if word)


class Chooser:
    """Chooses actions."""

    def __init__(self, seed: int) -> None:
        self._random = Random(f"{seed}: actions")  # noqa: S311 - a repeatable choice
        self._count = 0

    def start(self) -> list[Action]:
        """Return the actions that create two accounts, each with a value and a second namespace."""
        labels = zip(NAMESPACES, (None, None, *HOMES), strict=False)
        creations = [Action("create", name, number=self._next(), label=label) for name, label in labels]
        return creations + [Action("put", name, "x", "X", self._next()) for name in HOMES]

    def choose(self, model: Model) -> Action:
        """Choose a possible action."""
        while True:
            (verb,) = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()))
            if action := self._choose(verb, model):
                return action

    def _choose(self, verb: str, model: Model) -> Action | None:
        random = self._random
        name = random.choice(HOMES if random.random() < 0.4 else NAMESPACES)
        secret = random.choice(list(VARIABLES))
        found, exists = model.account_secrets.get((name, secret)), name in model.namespaces
        variable = found.variable if found else random.choice(VARIABLES[secret])
        by = random.choice(("kubectl", "command", "gateway")) if secret in _PLAIN else "kubectl"
        label = random.choice(HOMES) if random.random() < (0.1 if name in HOMES else 0.7) else None
        action: Action | None = None
        match verb:
            case "put" | "missealed" | "race" if found or model.is_home(name):  # elsewhere, new ones are rejected
                action = Action(verb, name, secret, variable, self._next(), by=by if verb == "put" else "kubectl")
            case "stale" | "delete" if found:
                action = Action(verb, name, secret, variable, by=by)
            case "create" | "recreate" if exists == (verb == "recreate"):
                action = Action(verb, name, number=self._next(), label=label)
            case "label" if exists:
                action = Action(verb, name, label=label)
            case "edit" if exists and name not in model.foreign:
                action = Action(verb, name, variable=variable)
            case "remove" | "erase" | "copy" if exists:
                action = Action(verb, name)
            case "rotate" | "prune" | "lose keys":
                action = Action(verb, by="command")
        return action

    def _next(self) -> int:
        self._count += 1
        return self._count


class Users:
    """Users with all permissions, who use kubectl, the CLI and the gateway."""

    def __init__(self, plane: ControlPlane, gateway: httpx.Client) -> None:
        self._plane = plane
        self._gateway = gateway
        self._passphrase = write_private(plane.folder / "passphrase", b"correct horse battery staple")
        self._backup = plane.folder / "backup"

    def do(self, action: Action, model: Model, history: History) -> None:
        """Perform an action and record it in the model and the history."""
        match action.verb:
            case "put" | "missealed" | "race":
                self._put(action, model)
            case "delete":
                self._retry(action, lambda: self._delete(action))
                del model.account_secrets[action.namespace, action.name]
            case "stale":
                self._retry(action, lambda: self._write_stale(action))
            case "create" | "remove" | "recreate" | "label":
                self._change_namespace(action, model, history)
            case "edit" | "erase" | "copy":
                self._change_secret(action, model)
            case _:
                self._change_keys(action)

    def listed(self, account: str) -> list[str]:
        """Return the variables of an account as the gateway lists them."""
        answer = self._gateway.get("/v1/secrets?limit=100", headers=_of(account)).raise_for_status()
        return sorted(each["name"] for each in answer.json()["secrets"])

    def _retry(self, action: Action, attempt: Callable[[], T]) -> T:
        """Try until the attempt succeeds, and return its result."""
        failures: list[Exception] = []

        def try_once() -> list[T]:
            try:
                return [attempt()]
            except (*_FAILURES, NotDone) as error:
                failures.append(error)
                return []

        try:
            return until(str(action), try_once, _RETRY_SECONDS)[0]
        except AssertionError as error:
            raise AssertionError(f"{error}: {failures[-1:]}") from None

    # --- AccountSecrets

    def _put(self, action: Action, model: Model) -> None:
        key, incarnation = (action.namespace, action.name), model.namespaces[action.namespace].incarnation
        value: Value | None = Value(action.namespace, incarnation, action.name, action.number)
        match action.verb, action.by:
            case "missealed", _:
                self._retry(action, lambda: self._apply(self._sealed(action, "not the value", "elsewhere")))
                value = None
            case "race", _:
                value = self._race(action, incarnation)
            case _, "kubectl":
                self._retry(action, lambda: self._apply(self._sealed(action, str(value))))
            case _, "command":
                options = ("set", action.variable, f"--namespace={action.namespace}")
                self._retry(action, lambda: self._command(*options, value=str(value)))
            case _:
                self._retry(action, lambda: self._put_at_gateway(action, str(value)))
        former = model.account_secrets.get(key)
        first = former.first if former else action.number
        model.account_secrets[key] = AccountSecret(action.variable, value, first)

    def _sealed(self, action: Action, value: str, account: str = "") -> Json:
        key = PublicKey.parse(published(self._plane)["newest"])
        sealed = key.seal(SecretBytes(value.encode()), account=account or action.namespace, name=action.variable)
        return manifest(action.namespace, AccountSecretSpec(name=action.variable, sealed=sealed), action.name)

    def _apply(self, body: Json) -> None:
        options = ("--server-side", "--force-conflicts", "--filename=-")
        self._plane.kubectl("apply", *options, input=json.dumps(body))

    def _race(self, action: Action, incarnation: int) -> Value:
        """Write two values at the same time; return the one that remains."""
        path = account_secrets_path(action.namespace, action.name)

        def write(writer: str) -> tuple[str, Value]:
            value = Value(action.namespace, incarnation, action.name, action.number, writer)
            body = self._retry(action, lambda: self._sealed(action, str(value)))
            query = f"fieldManager=kubectl-{writer}&force=true"
            self._retry(action, lambda: self._plane.request("PATCH", f"{path}?{query}", body, APPLY))
            return body["spec"]["sealed"], value

        with ThreadPoolExecutor() as pool:
            written = dict(pool.map(write, ("one", "two")))
        return written[self._retry(action, lambda: self._plane.request("GET", path))["spec"]["sealed"]]

    def _put_at_gateway(self, action: Action, value: str) -> None:
        headers = _of(action.namespace)
        path, body = f"/v1/secrets/{action.variable}", {"value": value}
        answer = self._gateway.post(path, json=body, headers=headers)
        if answer.status_code == HTTPStatus.NOT_FOUND:
            answer = self._gateway.post("/v1/secrets", json={"name": action.variable, **body}, headers=headers)
        answer.raise_for_status()

    def _delete(self, action: Action) -> None:
        where = f"--namespace={action.namespace}"
        match action.by:
            case "kubectl":
                self._plane.kubectl("delete", "accountsecret", action.name, where, "--ignore-not-found")
            case "command":
                # If an earlier attempt succeeded without a response, there is nothing to delete.
                if self._plane.read(account_secrets_path(action.namespace, action.name)):
                    self._command("delete", action.name, where, "--yes")
            case _:
                answer = self._gateway.post(f"/v1/secrets/{action.variable}/delete", headers=_of(action.namespace))
                if answer.status_code != HTTPStatus.NOT_FOUND:
                    answer.raise_for_status()

    def _write_stale(self, action: Action) -> None:
        """Change an outdated version, which the API server must reject."""
        body = {"metadata": {"resourceVersion": "1"}, "spec": {"description": "stale"}}
        try:
            self._plane.request("PATCH", account_secrets_path(action.namespace, action.name), body, MERGE)
        except RequestError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
        else:
            raise AssertionError(f"{action}: it was accepted")

    # --- Namespaces

    def _change_namespace(self, action: Action, model: Model, history: History) -> None:
        name = action.namespace
        if action.verb in {"remove", "recreate"}:
            version = self._retry(action, lambda: self._remove(action))
            model.remove_namespace(name)
            history.note(model, version)
        if action.verb in {"create", "recreate"}:
            version = self._retry(action, lambda: self._create(action))
            model.namespaces[name] = Namespace(action.number, action.label)
            history.note(model, version)
        if action.verb == "label":
            version = self._retry(action, lambda: self._label(action))
            model.namespaces[name] = Namespace(model.namespaces[name].incarnation, action.label)
            history.note(model, version)

    def _create(self, action: Action) -> int:
        labels = {_INCARNATION: str(action.number)} | ({ACCOUNT_LABEL: action.label} if action.label else {})
        body = json.dumps(namespace(action.namespace, labels))
        done = self._plane.kubectl("create", "--filename=-", input=body, check=False)
        metadata = self._plane.request("GET", f"/api/v1/namespaces/{action.namespace}")["metadata"]
        if metadata["labels"].get(_INCARNATION) != str(action.number):
            raise NotDone(done.stderr)
        return int(metadata["resourceVersion"])

    def _remove(self, action: Action) -> int:
        """Delete a namespace, and wait until it's gone."""
        self._plane.kubectl("delete", "namespace", action.namespace, "--ignore-not-found", "--timeout=60s")
        return int(self._plane.request("GET", "/api/v1/namespaces")["metadata"]["resourceVersion"])

    def _label(self, action: Action) -> int:
        label = f"{ACCOUNT_LABEL}={action.label}" if action.label else f"{ACCOUNT_LABEL}-"
        self._plane.kubectl("label", "namespace", action.namespace, label, "--overwrite")
        return int(self._plane.request("GET", f"/api/v1/namespaces/{action.namespace}")["metadata"]["resourceVersion"])

    # --- Account Secrets

    def _change_secret(self, action: Action, model: Model) -> None:
        match action.verb:
            case "edit":
                self._retry(action, lambda: self._edit(action))
            case "erase":
                self._retry(action, lambda: self._erase(action))
                model.foreign.pop(action.namespace, None)
            case _:
                model.foreign[action.namespace] = self._retry(action, lambda: self._copy(action))

    def _secret(self, action: Action) -> str:
        return f"/api/v1/namespaces/{action.namespace}/secrets/{SECRET}"

    def _edit(self, action: Action) -> None:
        """Change a value in the account Secret, if there is one."""
        found = self._plane.read(self._secret(action))
        if not found:
            return
        if not is_ours(found):  # one that is still empty would be taken for someone else's
            raise NotDone("the operator is just creating it")
        body = {
            "metadata": {"resourceVersion": found["metadata"]["resourceVersion"]},
            "data": {action.variable: _base64(EDITED)},
        }
        self._plane.request("PATCH", f"{self._secret(action)}?fieldManager=kubectl-edit", body, MERGE)

    def _erase(self, action: Action) -> None:
        self._plane.kubectl("delete", "secret", SECRET, f"--namespace={action.namespace}", "--ignore-not-found")

    def _copy(self, action: Action) -> Json:
        """Replace the account Secret with someone else's Secret that has the same labels."""
        if self._plane.read(self._secret(action)):
            self._plane.request("DELETE", self._secret(action))
        labels = {MANAGED_BY_LABEL: FIELD_MANAGER, ACCOUNT_LABEL: action.namespace}
        body = {"metadata": {"name": SECRET, "labels": labels}, "data": {"X": _base64(COPIED)}}
        return self._plane.request("POST", self._secret(action).rpartition("/")[0], body)

    # --- Sealing keys

    def _change_keys(self, action: Action) -> None:
        match action.verb:
            case "rotate":
                self._retry(action, lambda: self._command("keys", "rotate", "--timeout=20s"))
            case "prune":
                self._retry(action, lambda: self._command("keys", "prune", "--yes"))
            case _:
                self._lose_keys(action)

    def _lose_keys(self, action: Action) -> None:
        """Back up the keys, delete them, and restore them."""
        passphrase = f"--passphrase-file={self._passphrase}"

        def back_up() -> None:
            self._backup.unlink(missing_ok=True)
            self._command("keys", "backup", str(self._backup), passphrase)

        self._retry(action, back_up)
        self._retry(action, lambda: self._plane.kubectl("delete", *KEYS, "--ignore-not-found"))
        self._retry(action, lambda: self._command("keys", "restore", str(self._backup), passphrase))

    def _command(self, *arguments: str, value: str = "") -> None:
        done = command(self._plane.kubeconfig, *arguments, value=value.encode())
        if done.returncode:
            raise NotDone(done.stderr)


def _of(account: str) -> dict[str, str]:
    """Return the header that names the account of a request to the gateway."""
    return {"X-Devbox-Secrets-Account": account}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
