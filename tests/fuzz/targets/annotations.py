"""Pods and their annotations: the policy and the webhook return the same pod, or the same error message."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

from fuzz.choices import Choices
from harness.controlplane import ControlPlane
from integration.support.chart import ACCOUNT, DEVBOX, SANDBOX, Json, container, install, namespace, pod
from integration.support.odd import administrator
from integration.support.pod_cases import (
    BY_HAND,
    CACHE,
    CACHE_VOLUME,
    ENV,
    FILES_BY_HAND,
    INJECT,
    MOUNT,
    OWN,
    OWN_ENV,
    PATH,
    SECRET,
    VOLUME_BY_HAND,
)
from integration.support.webhook import without_policy

_GOOD_NAMES = ("A", "GITHUB_TOKEN", "OTHER", "_b2", "A" * 253)
_NAMES = (*_GOOD_NAMES, "A" * 254, "1A", "a-b", "ä", "")
_SPACES = ("", "", "", " ", "\n", "\t\f")
_OTHER_SPACES = ("\v", "\u00a0", "\u2003", "\0")
_PATHS = (
    PATH,
    "/cache",
    "/cache/",
    "/cac",
    "/",
    "",
    "//a",
    "/a/../b",
    "/.a",
    "/a b",
    "/a:b",
    "/\x7f",
    "/ä",
    "/a" * 2048,
)
_VOLUMES = [CACHE_VOLUME, VOLUME_BY_HAND]
_NOT_OURS = {"name": SECRET, "emptyDir": {}}
_LABELS = (DEVBOX, SANDBOX, DEVBOX | SANDBOX)
_MEMBER = "fuzz-member"


@contextmanager
def start() -> Iterator[Callable[[bytes], None]]:
    """Start two control planes: one with the policy, one with the webhook."""
    with ControlPlane.start() as policy, without_policy() as fallback, checking(policy, fallback.controlplane) as check:
        yield check


@contextmanager
def checking(policy: ControlPlane, webhook: ControlPlane) -> Iterator[Callable[[bytes], None]]:
    """Return the function that checks one input on both control planes."""
    install(policy)
    for plane in (policy, webhook):
        plane.kubectl("apply", "--filename=-", input=json.dumps(namespace(_MEMBER, {ACCOUNT: "home"})))
        plane.kubectl("wait", "--for=create", f"--namespace={_MEMBER}", "serviceaccount/default", "--timeout=60s")
    with administrator(policy) as one, administrator(webhook) as other:
        yield lambda data: _check([one, other], data)


def _check(clients: list[httpx.Client], data: bytes) -> None:
    """Check one pod; it isn't stored."""
    choices = Choices(data)
    made, where = _pod(choices), choices.of(("default", _MEMBER))
    by_policy, by_webhook = (_created(client, made, where) for client in clients)
    assert by_policy == by_webhook, f"{json.dumps(made)}\nby the policy: {by_policy}\nby the webhook: {by_webhook}"


def _created(client: httpx.Client, made: Json, where: str) -> object:
    answer = client.post(f"/api/v1/namespaces/{where}/pods?dryRun=All&fieldValidation=Strict", json=made)
    assert answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR, answer.text
    found = answer.json()
    if answer.is_success:
        return [found["spec"], found["metadata"].get("annotations")]
    # If two bindings match, either of their names may come first.
    return found["message"].rpartition(" denied request: ")[2]


def _pod(choices: Choices) -> Json:
    annotations = {
        name: value(choices)
        for name, value in ((INJECT, _inject), (ENV, _env), (MOUNT, _mount), ("devbox-secrets.dev/envs", _env))
        if choices.chance(8 if name.endswith("envs") else 2)
    }
    spec = {
        "containers": [_container(choices, f"c{number}") for number in range(choices.below(3) + 1)],
        "initContainers": [_container(choices, f"i{number}") for number in range(choices.below(2))],
        "volumes": choices.of([_VOLUMES, _VOLUMES, _VOLUMES, [CACHE_VOLUME], [CACHE_VOLUME, _NOT_OURS]]),
    }
    return pod(spec, choices.of(_LABELS), annotations)


def _container(choices: Choices, name: str) -> Json:
    lists = {
        "env": ([], OWN_ENV, OWN_ENV * 2, [{"name": "A", "value": "own"}], OWN_ENV * 60),
        "envFrom": ([], OWN, BY_HAND, OWN * 60),
        "volumeMounts": ([], [CACHE], [FILES_BY_HAND], [CACHE, FILES_BY_HAND]),
    }
    return container(name, **{field: choices.of(options) for field, options in lists.items() if choices.chance(2)})


def _inject(choices: Choices) -> str:
    return choices.of(("true", "true", "true", "true", "true", "false", "False", choices.text()))


def _env(choices: Choices) -> str:
    if choices.chance(8):
        return choices.text()
    odd = choices.chance(2)
    entries = ",".join(_entry(choices, odd=odd) for _ in range(choices.below(4) + 1))
    return entries + choices.of((",", f",{entries}" * 60, " " * 60_000, "")) if odd else entries


def _entry(choices: Choices, *, odd: bool) -> str:
    names, spaces = (_NAMES, _SPACES + _OTHER_SPACES) if odd else (_GOOD_NAMES, _SPACES)
    parts = [choices.of(spaces) + choices.of(names) + choices.of(spaces) for _ in range(choices.below(2) + 1)]
    return "=".join(parts)


def _mount(choices: Choices) -> str:
    return choices.of((PATH, "/cac", "/.a")) if choices.chance(2) else choices.of((*_PATHS, "/" + choices.text()))
