"""The webhook's installation, certificates, scope and shutdown."""

import base64
import json
import os
import re
import signal
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from harness.pki import Authority
from integration.support.account import Account
from integration.support.chart import (
    ACCOUNT,
    CHART,
    DEVBOX,
    NAMESPACE,
    SANDBOX,
    Json,
    container,
    dry_run,
    get,
    pod,
    rejection_message,
    release,
    render,
    until,
)
from integration.support.pod_cases import INJECT
from integration.support.processes import operator
from integration.support.webhook import (
    HOST,
    NAME,
    Fallback,
    ca_bundle,
    creating,
    emulating,
    issued,
    mount,
    publish,
    webhook,
    without_policy,
)

POLICY = "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"
CANARY = "canary-3f1c9a"
OTHER = pod({"containers": [container("a")]}, {"app": "other"})


# --- The rendered chart


@pytest.mark.parametrize(
    ("arguments", "method"),
    [
        ([], "policy"),
        (["--kube-version=1.36.0"], "policy"),
        (["--kube-version=1.35.9"], "webhook"),
        (["--kube-version=1.36.0", "--api-versions=v1/Pod"], "webhook"),
        (["--kube-version=1.36.0", "--api-versions=v1/Pod", f"--api-versions={POLICY}"], "policy"),
        (["--set=injection.method=webhook"], "webhook"),
        (["--set=injection.method=policy"], "policy"),
    ],
    ids=lambda it: " ".join(it) if isinstance(it, list) else it,
)
def test_the_policy_is_chosen_if_the_api_server_supports_it(arguments: list[str], method: str) -> None:
    kinds = {each["kind"] for each in rendered(*arguments)}
    assert kinds & {"MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding", "MutatingWebhookConfiguration"} == (
        {"MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"}
        if method == "policy"
        else {"MutatingWebhookConfiguration"}
    )
    assert "ValidatingAdmissionPolicy" in kinds


def test_the_charts_certificate_is_for_the_service_and_signed_by_the_trusted_ca() -> None:
    objects = rendered("--set=injection.method=webhook")
    (secret,) = (each["data"] for each in objects if each["kind"] == "Secret" and each["type"] == "kubernetes.io/tls")
    pems = {name: base64.b64decode(content) for name, content in secret.items()}
    authority = x509.load_pem_x509_certificate(pems["ca.crt"])
    served = x509.load_pem_x509_certificate(pems["tls.crt"])
    served.verify_directly_issued_by(authority)
    names = served.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [HOST]
    assert (served.not_valid_after_utc - served.not_valid_before_utc).days >= 3650
    assert trusted_bundles(objects) == {secret["ca.crt"]}


def test_cert_manager_issues_the_certificate_and_injects_the_ca() -> None:
    issuer = {"name": "ca", "kind": "ClusterIssuer", "group": "cert-manager.io"}
    choice = ("--set=webhook.certificate=cert-manager", f"--set-json=webhook.issuerRef={json.dumps(issuer)}")
    objects = rendered("--set=injection.method=webhook", *choice)
    (certificate,) = (each for each in objects if each["kind"] == "Certificate")
    assert certificate["spec"]["issuerRef"] == issuer
    assert certificate["spec"]["dnsNames"] == [HOST]
    (configuration,) = (each for each in objects if each["kind"] == "MutatingWebhookConfiguration")
    injected_from = configuration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"]
    assert injected_from == f"{NAMESPACE}/{certificate['metadata']['name']}"
    assert trusted_bundles(objects) == {None}
    assert mounted_secret(objects) == certificate["spec"]["secretName"]


def test_an_existing_certificate_is_used(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.crt"
    bundle.write_bytes(Authority.create("own").pem)
    choice = ("--set=webhook.certificate=secret,webhook.secretName=own", f"--set-file=webhook.caBundle={bundle}")
    objects = rendered("--set=injection.method=webhook", *choice)
    assert [each for each in objects if each.get("type") == "kubernetes.io/tls" or each["kind"] == "Certificate"] == []
    assert trusted_bundles(objects) == {base64.b64encode(bundle.read_bytes()).decode()}
    assert mounted_secret(objects) == "own"


def rendered(*arguments: str) -> list[Json]:
    done = render(*arguments)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def trusted_bundles(objects: list[Json]) -> set[str | None]:
    (configuration,) = (each for each in objects if each["kind"] == "MutatingWebhookConfiguration")
    return {each["clientConfig"].get("caBundle") for each in configuration["webhooks"]}


def mounted_secret(objects: list[Json]) -> str:
    (spec,) = (each["spec"] for each in objects if each["metadata"]["name"] == NAME and each["kind"] == "Deployment")
    name: str = spec["template"]["spec"]["volumes"][0]["secret"]["secretName"]
    return name


# --- Installation on a cluster without the policy API


def test_the_chart_installs_the_webhook_if_the_policy_api_is_missing(fallback: Fallback) -> None:
    group = fallback.controlplane.kubectl("get", "--raw", "/apis/admissionregistration.k8s.io/v1").stdout
    assert "mutatingadmission" not in group
    assert len(get(fallback.controlplane, "mutatingwebhookconfigurations")["items"]) == 1


@pytest.mark.parametrize("version", ["1.34", "1.35"])
def test_an_older_api_server_accepts_the_chart_and_calls_the_webhook(version: str) -> None:
    with without_policy(emulating(version)) as it, operator(it.controlplane):
        served = json.loads(it.controlplane.kubectl("get", "--raw", "/version").stdout)
        assert f"{served['emulationMajor']}.{served['emulationMinor']}" == version
        account = Account.of(it.controlplane, "default").member()
        shared = account.member(**{ACCOUNT: account.name})
        name = account.put("TOKEN", b"a value")
        account.is_ready(name)
        for member in (account, shared):
            member.holds({"TOKEN": b"a value"})
        account.delete(name)
        account.holds(None)
        assert it.webhook.reviews() > 0


def test_its_service_account_has_no_rights_beyond_everyones(fallback: Fallback) -> None:
    def rights(name: str) -> str:
        impersonated = f"--as=system:serviceaccount:{NAMESPACE}:{name}"
        return fallback.controlplane.kubectl("auth", "can-i", "--list", impersonated, f"--namespace={NAMESPACE}").stdout

    assert rights(NAME) == rights("default")
    assert "selfsubjectreviews" in rights(NAME)


def test_its_pod_has_no_token_and_passes_the_restricted_pod_security_level(fallback: Fallback) -> None:
    restricted = ("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    fallback.controlplane.kubectl(*restricted)
    template = get(fallback.controlplane, "deployment", NAME, f"--namespace={NAMESPACE}")["spec"]["template"]
    template["metadata"]["name"] = "webhook"
    made = dry_run(fallback.controlplane, {"apiVersion": "v1", "kind": "Pod", **template}, NAMESPACE)
    assert [volume["name"] for volume in made["spec"]["volumes"]] == ["certificate"]


def test_the_operators_selector_does_not_match_its_pods(fallback: Fallback) -> None:
    operator, own = (
        get(fallback.controlplane, "deployment", name, f"--namespace={NAMESPACE}")["spec"]
        for name in ("devbox-secrets", NAME)
    )
    assert not operator["selector"]["matchLabels"].items() <= own["template"]["metadata"]["labels"].items()


# --- Scope


def test_the_webhook_is_called_only_for_devboxes(fallback: Fallback) -> None:
    before = fallback.webhook.reviews()
    dry_run(fallback.controlplane, OTHER, "default")
    dry_run(fallback.controlplane, pod(OTHER["spec"], DEVBOX, {INJECT: "false"}), "default")
    assert fallback.webhook.reviews() == before
    for labels in (DEVBOX, SANDBOX):
        dry_run(fallback.controlplane, pod(OTHER["spec"], labels), "default")
    assert fallback.webhook.reviews() == before + 2


def test_while_it_is_down_only_devboxes_are_rejected(fallback: Fallback) -> None:
    with fallback.webhook.down():
        message = rejection_message(fallback.controlplane, pod(OTHER["spec"], DEVBOX), "default")
        assert re.search(
            r'failed calling webhook "optional-[0-9a-f]{8}.devbox-secrets.dev": .*connection refused', message
        )
        assert dry_run(fallback.controlplane, OTHER, "default")["spec"]["containers"]
        assert dry_run(fallback.controlplane, pod(OTHER["spec"], DEVBOX, {INJECT: "false"}), "default")["spec"]
        # The webhook's own pods never depend on the webhook, however wide a selector is.
        own = pod(OTHER["spec"], DEVBOX | {"app.kubernetes.io/name": NAME})
        assert dry_run(fallback.controlplane, own, "default")["spec"]


# --- The chart's own certificate


def test_an_upgrade_keeps_the_charts_certificate(fallback: Fallback) -> None:
    before = issued(fallback.controlplane)
    release(fallback.controlplane, "upgrade", str(CHART), "--set=logLevel=DEBUG")
    assert issued(fallback.controlplane) == before


def test_a_deleted_certificate_is_replaced_and_no_devbox_is_rejected(fallback: Fallback) -> None:
    before = issued(fallback.controlplane)
    with creating(fallback.controlplane) as more:
        fallback.controlplane.kubectl("delete", "secret", NAME, f"--namespace={NAMESPACE}")
        release(fallback.controlplane, "upgrade", str(CHART))
        after = issued(fallback.controlplane)
        assert after["ca.crt"] != before["ca.crt"]
        assert ca_bundle(fallback.controlplane) == after["ca.crt"] + before["ca.crt"]
        more()  # the replica still has the old certificate
        mount(fallback.webhook.certificate, after)
        until("the new certificate is served", lambda: fallback.webhook.served() == after["tls.crt"])
        release(fallback.controlplane, "upgrade", str(CHART))
        assert ca_bundle(fallback.controlplane) == after["ca.crt"]
        more()


# --- Shutdown and log


def test_no_devbox_is_rejected_while_a_replica_stops(fallback: Fallback, tmp_path: Path) -> None:
    first = fallback.webhook
    with webhook(tmp_path, issued(fallback.controlplane)) as second, creating(fallback.controlplane):
        publish(fallback.controlplane, first, second)
        try:
            before = first.reviews()
            until("the first replica is called", lambda: first.reviews() > before + 50)
            os.kill(first.component.pid, signal.SIGTERM)
            publish(fallback.controlplane, second)
            until("the second replica is called", lambda: second.reviews() > 50)
            until("the first replica has stopped", lambda: not first.component.is_running())
            assert first.component.stop() == 0
        finally:
            first.component.restart()
            publish(fallback.controlplane, first)


def test_its_log_contains_no_values_of_pods(fallback: Fallback) -> None:
    env = [{"name": "PASSWORD", "value": CANARY}]
    box = pod({"containers": [container("a", env=env, command=[CANARY])]}, DEVBOX | {"x": CANARY}, {"y": CANARY})
    before = fallback.webhook.reviews()
    assert CANARY in json.dumps(dry_run(fallback.controlplane, box, "default"))
    assert fallback.webhook.reviews() == before + 1
    assert CANARY not in fallback.webhook.log
