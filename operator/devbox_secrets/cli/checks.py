"""What `check` looks at: one function for each line or two of it. Imports look, devboxes, plan, news."""

import re
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from typing import TYPE_CHECKING

from devbox_secrets.api import ACCOUNT_LABEL, GROUP, LEASE, PLURAL, PUBLIC_KEYS_CONFIGMAP, VERSION
from devbox_secrets.cli.accountsecrets import AccountSecret
from devbox_secrets.cli.devboxes import devbox_of
from devbox_secrets.cli.look import ADMISSION, NAME, Finding, Level, Look, selectors, some
from devbox_secrets.errors import ClusterError
from devbox_secrets.news import of_namespace
from devbox_secrets.plan import account_of

if TYPE_CHECKING:
    from devbox_secrets.connection import Body

_OLDEST_MINOR = 30
#: The chart's own, for who may not read which there are.
_SELECTORS = (f"{GROUP}/devbox=true", "agents.x-k8s.io/sandbox-name-hash")
#: A holder renews every second; the rest is for clocks that differ.
_STALE_SECONDS = 60


async def server(look: Look) -> list[Finding]:
    """The API server is new enough, and knows AccountSecrets."""
    body = await look.get("/version") or {}
    version = f"Kubernetes {body.get('gitVersion', 'of no known version')}"
    found = [Finding(Level.OK, "API server", version)]
    if int(re.sub(r"\D", "", body.get("minor", "")) or _OLDEST_MINOR) < _OLDEST_MINOR:
        found = [Finding(Level.ERROR, "API server", f"{version} is too old: upgrade to 1.{_OLDEST_MINOR} or newer")]
    if await look.get(f"/apis/{GROUP}/{VERSION}"):
        return [*found, Finding(Level.OK, "AccountSecrets", f"served as {GROUP}/{VERSION}")]
    return [*found, Finding(Level.ERROR, "AccountSecrets", "the cluster doesn't know the kind: install the chart")]


async def injection(look: Look) -> list[Finding]:
    """What puts the account Secret into devboxes is there, and bound to some pods."""
    bound = await selectors(look)
    if bound:
        return [Finding(Level.OK, "injection", f"bound to pods with {' or '.join(bound)}")]
    text = f"nothing gives devboxes their secrets: install the chart again, for its policy {NAME} and the bindings"
    return [Finding(Level.ERROR, "injection", text)]


async def refusals(look: Look) -> list[Finding]:
    """What refuses wrong annotations and labels is there, and bound."""
    found = []
    bound = {
        body["spec"]["policyName"]
        async for body in look.each(f"{ADMISSION}/validatingadmissionpolicybindings")
        if "Deny" in body["spec"].get("validationActions", ())
    }
    for name, refuses in (
        ("annotations", "wrong annotations"),
        ("accounts", "labels that join someone else's account"),
        ("homes", "AccountSecrets outside of their account's home"),
    ):
        policy = f"{NAME}-{name}"
        there = await look.get(f"{ADMISSION}/validatingadmissionpolicies/{policy}")
        if there and policy in bound:
            found.append(Finding(Level.OK, name, f"{refuses} are refused"))
        else:
            lacks = "isn't bound" if there else "isn't there"
            text = f"{refuses} aren't refused, since the policy {policy} {lacks}: install the chart again"
            found.append(Finding(Level.ERROR, name, text))
    return found


async def operator(look: Look) -> list[Finding]:
    """The operator's Deployment is ready, and of the command's version."""
    body = await look.get(look.own("/apis/apps/v1", "deployments"))
    if body is None:
        where = look.operator_namespace
        text = f"no Deployment {NAME} in {where}: install the chart, or name its --operator-namespace"
        return [Finding(Level.ERROR, "operator", text)]
    found = _replicas(look, "operator", body, "paused with 0 replicas: devboxes keep the values that there are")
    theirs, ours = body["metadata"].get("labels", {}).get("app.kubernetes.io/version"), package_version(NAME)
    if theirs == ours:
        return [found, Finding(Level.OK, "versions", f"command and installation are {ours}")]
    text = f"the installation is {theirs}, this command {ours}: upgrade the older one"
    return [found, Finding(Level.WARNING, "versions", text)]


async def others(look: Look) -> list[Finding]:
    """The Deployments of the webhook and of the gateway are ready, where they are installed."""
    found = []
    for what, paused in (("webhook", "no devbox can be created"), ("gateway", "its clients get no answer")):
        body = await look.get(look.own("/apis/apps/v1", "deployments", f"{NAME}-{what}"))
        if body is not None:
            found.append(_replicas(look, what, body, f"has 0 replicas: {paused}"))
    return found


def _replicas(look: Look, what: str, deployment: "Body", paused: str) -> Finding:
    wanted, ready = deployment["spec"].get("replicas", 1), deployment.get("status", {}).get("readyReplicas", 0)
    if wanted == 0:
        return Finding(Level.WARNING, what, paused)
    text = f"{ready} of {wanted} replicas are ready"
    if ready >= wanted:
        return Finding(Level.OK, what, text)
    level = Level.WARNING if ready else Level.ERROR
    return Finding(level, what, f"{text}: kubectl get pods -n {look.operator_namespace}")


async def lease(look: Look) -> list[Finding]:
    """One replica holds the right to write."""
    body = await look.get(look.own("/apis/coordination.k8s.io/v1", "leases", LEASE)) or {}
    spec = body.get("spec") or {}
    holder, renewed = spec.get("holderIdentity"), spec.get("renewTime")
    if not holder or not renewed:
        text = f"nobody holds the Lease {LEASE}, so nothing is written: kubectl get pods -n {look.operator_namespace}"
        return [Finding(Level.ERROR, "lease", text)]
    seconds = (datetime.now(UTC) - datetime.fromisoformat(renewed)).total_seconds()
    if seconds > _STALE_SECONDS:
        logs = f"kubectl logs {holder} -n {look.operator_namespace}"
        text = f"{holder} renewed the Lease {seconds:,.0f} s ago, so nothing is written: {logs}"
        return [Finding(Level.ERROR, "lease", text)]
    return [Finding(Level.OK, "lease", f"held by {holder}")]


async def public_keys(look: Look) -> list[Finding]:
    """There is a key to seal with."""
    body = await look.get(look.own("/api/v1", "configmaps", PUBLIC_KEYS_CONFIGMAP)) or {}
    keys = body.get("data") or {}
    if "newest" in keys:
        newest = keys["newest"].split(".")[1]
        return [Finding(Level.OK, "sealing key", f"{newest} is the newest of {len(keys) - 1}")]
    text = f"none is published, so nothing can be sealed: kubectl logs deployment/{NAME} -n {look.operator_namespace}"
    return [Finding(Level.ERROR, "sealing key", text)]


async def encryption(look: Look) -> list[Finding]:
    """The API server encrypts at rest, as far as its pod tells."""
    path = "/api/v1/namespaces/kube-system/pods"
    pods = [pod async for pod in look.each(path, labelSelector="component=kube-apiserver")]
    words = [
        word
        for pod in pods
        for each in pod["spec"]["containers"]
        for word in (*each.get("command", ()), *each.get("args", ()))
    ]
    if any(word.startswith("--encryption-provider-config") for word in words):
        return [
            Finding(Level.OK, "encryption", "kube-apiserver has --encryption-provider-config; it should name secrets")
        ]
    told = (
        "kube-apiserver has no --encryption-provider-config" if pods else "can't be told: kube-apiserver is no pod here"
    )
    return [Finding(Level.WARNING, "encryption", f"{told}; see to it that Secrets are encrypted at rest")]


async def accountsecrets(look: Look) -> list[Finding]:
    """AccountSecrets are synced; where not, for which reasons."""
    reasons: Counter[str] = Counter()
    named: list[str] = []
    due = 0
    async for body in look.each(look.within(f"/apis/{GROUP}/{VERSION}", PLURAL)):
        secret = AccountSecret(body)
        reasons[secret.ready.reason if secret.ready else "Pending"] += 1
        due += secret.status.overdue
        if not secret.synced:
            named.append(f"{secret.account}/{secret.name}")
    good = reasons.pop("Synced", 0)
    found = [Finding(Level.OK, "synced", f"{good:,} AccountSecrets")]
    if named:
        why = ", ".join(f"{number} {reason}" for reason, number in reasons.most_common())
        text = f"{why}: {some(named)}; why: devbox-secrets status NAME -n ACCOUNT"
        found.append(Finding(Level.ERROR if set(reasons) - {"Pending"} else Level.WARNING, "not synced", text))
    if due:
        text = f"{due:,} AccountSecrets are older than their rotateAfter: devbox-secrets update NAME"
        found.append(Finding(Level.WARNING, "rotation", text))
    return found


async def accounts(look: Look) -> list[Finding]:
    """Each account that a namespace is labelled into has a home of its own."""
    labels = {
        body["metadata"]["name"]: body["metadata"].get("labels", {}) async for body in look.each("/api/v1/namespaces")
    }
    homes = {name: account_of(name, of) for name, of in labels.items()}
    wrong = [f"{name} → {home}" for name, home in homes.items() if of_namespace(name, home, homes.get(home))]
    if wrong:
        text = f"labelled into an account that is no home: {some(wrong)}; see kubectl get namespaces -L {ACCOUNT_LABEL}"
        return [Finding(Level.WARNING, "namespaces", text)]
    labelled = sum(bool(of.get(ACCOUNT_LABEL)) for of in labels.values())
    return [Finding(Level.OK, "namespaces", f"{labelled:,} of {len(labels):,} name an account, each one that is there")]


async def devboxes(look: Look) -> list[Finding]:
    """Every devbox has its account's secrets, unless it was told not to."""
    try:
        bound = await selectors(look)
    except ClusterError:
        bound = list(_SELECTORS)
    running: set[str] = set()
    opted_out: set[str] = set()
    without: set[str] = set()
    for selector in bound:
        query = {"labelSelector": selector, "fieldSelector": "status.phase!=Succeeded,status.phase!=Failed"}
        async for pod in look.each(look.within("/api/v1", "pods"), **query):
            name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            running.add(name)
            if devbox_of(pod) is None:
                asked = pod["metadata"].get("annotations", {})
                refused = asked.get(f"{GROUP}/inject") == "false"
                (opted_out if refused else without).add(name)
    text = f"{len(running):,} run" + (f", of which {len(opted_out):,} opted out" if opted_out else "")
    found = [Finding(Level.OK, "devboxes", text)]
    if without:
        those = some(sorted(without))
        text = f"{len(without):,} have no secrets: they were made before the injection was; start them anew: {those}"
        found.append(Finding(Level.WARNING, "devboxes", text))
    return found


CHECKS: dict[str, Callable[[Look], Awaitable[list[Finding]]]] = {
    "API server": server,
    "injection": injection,
    "annotations, accounts": refusals,
    "operator": operator,
    "webhook, gateway": others,
    "lease": lease,
    "sealing key": public_keys,
    "encryption": encryption,
    "synced": accountsecrets,
    "namespaces": accounts,
    "devboxes": devboxes,
}
