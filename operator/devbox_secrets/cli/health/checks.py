"""The checks that `check` runs."""

import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version as package_version

from devbox_secrets.api.accounts import account_of, is_home
from devbox_secrets.api.models import AccountSecret, Reason
from devbox_secrets.api.names import (
    ACCOUNT_LABEL,
    ACCOUNT_SECRET,
    GROUP,
    INJECT_ANNOTATION,
    LEASE,
    PLURAL,
    PUBLIC_KEYS_CONFIGMAP,
    VERSION,
)
from devbox_secrets.api.ownership import is_ours
from devbox_secrets.cli.health.probe import ADMISSION, NAME, Finding, Level, Probe, first_few, selectors
from devbox_secrets.cli.resources.account_secrets import is_synced, ready
from devbox_secrets.cli.resources.devboxes import devbox_of
from devbox_secrets.crypto.envelope import PublicKey
from devbox_secrets.errors import APIError, Forbidden, InvalidKey
from devbox_secrets.kube.client import Body

_OLDEST_MINOR = 30
#: The chart's default selectors, for callers who can't read the bindings.
_SELECTORS = (f"{GROUP}/devbox,{GROUP}/devbox notin (false)", "agents.x-k8s.io/sandbox-name-hash")
#: The leader renews the Lease every second; the rest allows for clock skew.
_STALE_SECONDS = 60


async def api_server(probe: Probe) -> list[Finding]:
    """The API server is new enough and serves AccountSecrets."""
    body = await probe.get("/version") or {}
    version = f"Kubernetes {body.get('gitVersion', 'of an unknown version')}"
    found = [Finding(Level.OK, "API server", version)]
    if int(re.sub(r"\D", "", body.get("minor", "")) or _OLDEST_MINOR) < _OLDEST_MINOR:
        found = [Finding(Level.ERROR, "API server", f"{version} is too old; upgrade to 1.{_OLDEST_MINOR} or newer")]
    if await probe.get(f"/apis/{GROUP}/{VERSION}"):
        return [*found, Finding(Level.OK, "AccountSecrets", f"served as {GROUP}/{VERSION}")]
    return [*found, Finding(Level.ERROR, "AccountSecrets", "the CRD isn't installed; install the chart")]


async def injection(probe: Probe) -> list[Finding]:
    """A policy or webhook that injects the account Secret exists and selects pods."""
    bound = await selectors(probe)
    if bound:
        return [Finding(Level.OK, "injection", f"selects pods that match {' or '.join(bound)}")]
    text = "no injection policy or webhook selects pods, so devboxes get no secrets; reinstall the chart"
    return [Finding(Level.ERROR, "injection", text)]


async def policies(probe: Probe) -> list[Finding]:
    """The policies that validate annotations, labels and namespaces exist and are bound."""
    found = []
    bound = {
        body["spec"]["policyName"]
        async for body in probe.each(f"{ADMISSION}/validatingadmissionpolicybindings")
        if "Deny" in body["spec"].get("validationActions", ())
    }
    for name, rejected in (
        ("annotations", "invalid annotations"),
        ("accounts", "unauthorized account labels"),
        ("homes", "AccountSecrets outside their account's home namespace"),
    ):
        policy = f"{NAME}-{name}"
        exists = await probe.get(f"{ADMISSION}/validatingadmissionpolicies/{policy}")
        if exists and policy in bound:
            found.append(Finding(Level.OK, name, f"{rejected} are rejected"))
        else:
            problem = "isn't bound" if exists else "doesn't exist"
            text = f"{rejected} aren't rejected: the policy {policy} {problem}; reinstall the chart"
            found.append(Finding(Level.ERROR, name, text))
    return found


async def operator(probe: Probe) -> list[Finding]:
    """The operator's Deployment is ready and has the same version as this client."""
    body = await probe.get(probe.own("/apis/apps/v1", "deployments"))
    if body is None:
        where = probe.operator_namespace
        text = f"no Deployment {NAME} in {where}; install the chart, or pass --operator-namespace"
        return [Finding(Level.ERROR, "operator", text)]
    found = _replicas(probe, "operator", body, "scaled to 0 replicas: changes don't reach devboxes")
    theirs, ours = body["metadata"].get("labels", {}).get("app.kubernetes.io/version"), package_version(NAME)
    if theirs == ours:
        return [found, Finding(Level.OK, "versions", f"client and operator are {ours}")]
    text = f"the operator is {theirs}, but this client is {ours}; upgrade the older one"
    return [found, Finding(Level.WARNING, "versions", text)]


async def webhook_and_gateway(probe: Probe) -> list[Finding]:
    """The Deployments of the webhook and the gateway are ready, if they are installed."""
    found = []
    for what, paused in (("webhook", "devboxes can't be created"), ("gateway", "it doesn't serve requests")):
        body = await probe.get(probe.own("/apis/apps/v1", "deployments", f"{NAME}-{what}"))
        if body is not None:
            found.append(_replicas(probe, what, body, f"scaled to 0 replicas: {paused}"))
    return found


def _replicas(probe: Probe, what: str, deployment: Body, paused: str) -> Finding:
    wanted, available = deployment["spec"].get("replicas", 1), deployment.get("status", {}).get("readyReplicas", 0)
    if wanted == 0:
        return Finding(Level.WARNING, what, paused)
    text = f"{available} of {wanted} replicas are ready"
    if available >= wanted:
        return Finding(Level.OK, what, text)
    level = Level.WARNING if available else Level.ERROR
    return Finding(level, what, f"{text}; check: kubectl get pods -n {probe.operator_namespace}")


async def lease(probe: Probe) -> list[Finding]:
    """A replica of the operator holds the Lease."""
    body = await probe.get(probe.own("/apis/coordination.k8s.io/v1", "leases", LEASE)) or {}
    spec = body.get("spec") or {}
    holder, renewed = spec.get("holderIdentity"), spec.get("renewTime")
    if not holder or not renewed:
        pods = f"kubectl get pods -n {probe.operator_namespace}"
        text = f"no replica holds the Lease {LEASE}, so changes don't reach devboxes; check: {pods}"
        return [Finding(Level.ERROR, "lease", text)]
    try:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(renewed)).total_seconds()
    except ValueError:  # such as year 0, which the API server accepts
        seconds = math.inf
    if seconds > _STALE_SECONDS:
        logs = f"kubectl logs {holder} -n {probe.operator_namespace}"
        text = f"{holder} last renewed the Lease {seconds:,.0f}s ago, so changes don't reach devboxes; check: {logs}"
        return [Finding(Level.ERROR, "lease", text)]
    return [Finding(Level.OK, "lease", f"held by {holder}")]


async def sealing_key(probe: Probe) -> list[Finding]:
    """A sealing key exists."""
    body = await probe.get(probe.own("/api/v1", "configmaps", PUBLIC_KEYS_CONFIGMAP))
    if body is None:  # which says nothing about the keys
        where = probe.operator_namespace
        text = f"no ConfigMap {PUBLIC_KEYS_CONFIGMAP} in {where}; install the chart, or pass --operator-namespace"
        return [Finding(Level.ERROR, "sealing key", text)]
    keys = body.get("data") or {}
    if "newest" in keys:
        with suppress(InvalidKey):
            newest = PublicKey.parse(keys["newest"]).id
            return [Finding(Level.OK, "sealing key", f"{newest} is the newest of {len(keys) - 1}")]
    # The operator creates the first key and unpublishes lost ones. It creates none if values need a lost key.
    if await _has_account_secrets(probe):
        text = (
            "the keys are lost, so values can't be decrypted or sealed; restore them with devbox-secrets keys restore"
            " FILE, or without a backup, run devbox-secrets keys rotate and seal all values again"
        )
    else:
        logs = f"kubectl logs deployment/{NAME} -n {probe.operator_namespace}"
        text = f"no key is published, so values can't be sealed; check: {logs}"
    return [Finding(Level.ERROR, "sealing key", text)]


async def _has_account_secrets(probe: Probe) -> bool:
    with suppress(Forbidden):
        async for _ in probe.each(probe.within(f"/apis/{GROUP}/{VERSION}", PLURAL)):
            return True
    return False


async def encryption(probe: Probe) -> list[Finding]:
    """The API server encrypts Secrets at rest, as far as its pod shows."""
    path = "/api/v1/namespaces/kube-system/pods"
    pods = [pod async for pod in probe.each(path, labelSelector="component=kube-apiserver")]
    words = [
        word
        for pod in pods
        for each in pod["spec"]["containers"]
        for word in (*each.get("command", ()), *each.get("args", ()))
    ]
    if any(word.startswith("--encryption-provider-config") for word in words):
        return [
            Finding(
                Level.OK,
                "encryption",
                "kube-apiserver has --encryption-provider-config; check that it includes secrets",
            )
        ]
    reason = (
        "kube-apiserver has no --encryption-provider-config"
        if pods
        else "unknown, because kube-apiserver doesn't run as a pod"
    )
    return [Finding(Level.WARNING, "encryption", f"{reason}; ensure that Secrets are encrypted at rest")]


async def account_secrets(probe: Probe) -> list[Finding]:
    """AccountSecrets are synced; if not, for which reasons."""
    reasons: Counter[str] = Counter()
    named: list[str] = []
    due: list[str] = []
    async for body in probe.each(probe.within(f"/apis/{GROUP}/{VERSION}", PLURAL)):
        secret = AccountSecret.parse(body)
        condition = ready(secret)
        reasons[condition.reason if condition else Reason.PENDING] += 1
        name = f"{secret.namespace}/{secret.name}"
        if secret.status.overdue:
            due.append(name)
        if not is_synced(secret):
            named.append(name)
    good = reasons.pop("Synced", 0)
    found = [Finding(Level.OK, "synced", f"{good:,} AccountSecrets")]
    if named:
        why = ", ".join(f"{number} {reason}" for reason, number in reasons.most_common())
        text = f"{why}: {first_few(named)}; for details: devbox-secrets status NAME -n ACCOUNT"
        is_tenants = bool(set(reasons) - {Reason.PENDING})
        found.append(Finding(Level.WARNING, "not synced", text, is_tenants=is_tenants))
    if due:
        text = f"{len(due):,} older than rotateAfter: {first_few(due)}; change the values: devbox-secrets update NAME"
        found.append(Finding(Level.WARNING, "rotation", text))
    return found


async def namespaces(probe: Probe) -> list[Finding]:
    """Each account that a namespace's label names has a home."""
    labels = {
        body["metadata"]["name"]: body["metadata"].get("labels", {}) async for body in probe.each("/api/v1/namespaces")
    }
    homes = {name: account_of(name, of) for name, of in labels.items()}
    wrong = [f"{name} → {home}" for name, home in homes.items() if not is_home(home, homes.get(home))]
    if wrong:
        text = f"the label names an account without a home: {first_few(wrong)}"
        see = f"kubectl get namespaces -L {ACCOUNT_LABEL}"
        return [Finding(Level.WARNING, "namespaces", f"{text}; check: {see}")]
    labelled = sum(bool(of.get(ACCOUNT_LABEL)) for of in labels.values())
    return [Finding(Level.OK, "namespaces", f"{labelled:,} of {len(labels):,} have an account label")]


async def written_secrets(probe: Probe) -> list[Finding]:
    """The operator wrote every account Secret; none is a copy. Their values aren't read."""
    path, query = probe.within("/api/v1", "secrets"), {"fieldSelector": f"metadata.name={ACCOUNT_SECRET}"}
    metadata = [each async for each in probe.each_metadata(path, **query)]
    foreign = [each["namespace"] for each in metadata if not is_ours(each)]
    if foreign:
        text = (
            f"not written by the operator, which doesn't change them, in {first_few(foreign)}; devboxes there get their"
            f" contents. To delete one: kubectl delete secret {ACCOUNT_SECRET} -n NAMESPACE"
        )
        return [Finding(Level.WARNING, "account Secrets", text)]
    return [Finding(Level.OK, "account Secrets", f"{len(metadata):,}, all written by the operator")]


async def devboxes(probe: Probe) -> list[Finding]:
    """Every devbox has its account's secrets, unless it opted out."""
    try:
        bound = await selectors(probe)
    except APIError:
        bound = list(_SELECTORS)
    running: set[str] = set()
    opted_out: set[str] = set()
    without: set[str] = set()
    for selector in bound:
        query = {"labelSelector": selector, "fieldSelector": "status.phase!=Succeeded,status.phase!=Failed"}
        async for pod in probe.each(probe.within("/api/v1", "pods"), **query):
            name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            running.add(name)
            if devbox_of(pod) is None:
                annotations = pod["metadata"].get("annotations", {})
                (opted_out if annotations.get(INJECT_ANNOTATION) == "false" else without).add(name)
    text = f"{len(running):,} running" + (f", {len(opted_out):,} of them opted out" if opted_out else "")
    found = [Finding(Level.OK, "devboxes", text)]
    if without:
        names = first_few(sorted(without))
        text = f"{len(without):,} have no secrets because they are older than the installation; recreate them: {names}"
        found.append(Finding(Level.WARNING, "devboxes", text))
    return found


CHECKS: dict[str, Callable[[Probe], Awaitable[list[Finding]]]] = {
    "API server": api_server,
    "injection": injection,
    "annotations, accounts": policies,
    "operator": operator,
    "webhook, gateway": webhook_and_gateway,
    "lease": lease,
    "sealing key": sealing_key,
    "encryption": encryption,
    "synced": account_secrets,
    "namespaces": namespaces,
    "account Secrets": written_secrets,
    "devboxes": devboxes,
}
