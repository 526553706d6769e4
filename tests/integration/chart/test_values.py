"""Each of the chart's values has its effect, is in the schema and is documented."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pytest
import yaml

from integration.support.chart import CHART, NAMESPACE, Json, helm, render

COMPONENTS = {"operator": "devbox-secrets", "webhook": "devbox-secrets-webhook", "gateway": "devbox-secrets-gateway"}
EVERYTHING = {
    "injection": {"method": "webhook"},
    "gateway": {"enabled": True},
    "metrics": {"service": {"enabled": True}},
}
OPENSHIFT = "--api-versions=security.openshift.io/v1"


def values() -> Json:
    loaded: Json = yaml.safe_load((CHART / "values.yaml").read_text())
    return loaded


def merged(first: Json, second: Json) -> Json:
    both = {
        key: merged(first[key], second[key]) for key in first.keys() & second.keys() if isinstance(second[key], dict)
    }
    return first | second | both


@cache
def documents(given: str, *options: str) -> list[Json]:
    """Render the chart with every component and with these values, as JSON."""
    chosen = json.dumps(merged(EVERYTHING, json.loads(given)))
    done = render(f"--set-json={chosen}", *options)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def objects(given: Json, *options: str) -> dict[tuple[str, str], Json]:
    found = documents(json.dumps(given), *options)
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def at(body: object, *path: str | int) -> object:
    """Return what is at a path, or None."""
    for key in path:
        if isinstance(body, dict):
            body = body.get(key)
        elif isinstance(body, list) and isinstance(key, int) and -len(body) <= key < len(body):
            body = body[key]
        else:
            return None
    return body


# --- Values of all components


@dataclass(frozen=True)
class Case:
    """A value of a component, and its effect: the kind of object, the path in it and what is expected there."""

    value: Json
    path: tuple[str | int, ...]
    expected: object
    kind: str = "Deployment"


POD = ("spec", "template", "spec")
CONTAINER = (*POD, "containers", 0)
ENV = {"name": "HTTPS_PROXY", "value": "http://proxy.example"}
VOLUME = {"name": "tmp", "emptyDir": {}}
MOUNT = {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108 - in the container
TOLERATION = {"key": "a", "operator": "Exists"}
AFFINITY: Json = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
SPREAD = {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
RESOURCES = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}
CASES = {
    "replicaCount": Case({"replicaCount": 5}, ("spec", "replicas"), 5),
    "serviceAccount.name": Case({"serviceAccount": {"name": "own"}}, (*POD, "serviceAccountName"), "own"),
    "serviceAccount.annotations": Case(
        {"serviceAccount": {"annotations": {"a": "b"}}}, ("metadata", "annotations", "a"), "b", "ServiceAccount"
    ),
    "serviceAccount.create": Case(
        {"serviceAccount": {"create": False, "name": "own"}}, ("metadata", "name"), None, "ServiceAccount"
    ),
    "networkPolicy.enabled": Case({"networkPolicy": {"enabled": False}}, ("metadata", "name"), None, "NetworkPolicy"),
    "networkPolicy.metricsFrom": Case(
        {"networkPolicy": {"metricsFrom": [{"podSelector": {}}], "from": []}},
        ("spec", "ingress", -1, "from"),
        [{"podSelector": {}}],
        "NetworkPolicy",
    ),
    "podDisruptionBudget.enabled": Case(
        {"podDisruptionBudget": {"enabled": False}}, ("metadata", "name"), None, "PodDisruptionBudget"
    ),
    "podDisruptionBudget.maxUnavailable": Case(
        {"podDisruptionBudget": {"maxUnavailable": "50%"}}, ("spec", "maxUnavailable"), "50%", "PodDisruptionBudget"
    ),
    "podDisruptionBudget.minAvailable": Case(
        {"podDisruptionBudget": {"minAvailable": 1}}, ("spec", "maxUnavailable"), None, "PodDisruptionBudget"
    ),
    "strategy": Case({"strategy": {"type": "Recreate"}}, ("spec", "strategy"), {"type": "Recreate"}),
    "revisionHistoryLimit": Case({"revisionHistoryLimit": 3}, ("spec", "revisionHistoryLimit"), 3),
    "podAnnotations": Case({"podAnnotations": {"a": "b"}}, ("spec", "template", "metadata", "annotations", "a"), "b"),
    "podLabels": Case({"podLabels": {"a": "b"}}, ("spec", "template", "metadata", "labels", "a"), "b"),
    "podSecurityContext": Case({"podSecurityContext": {"runAsUser": 1}}, (*POD, "securityContext", "runAsUser"), 1),
    "securityContext": Case(
        {"securityContext": {"privileged": False}}, (*CONTAINER, "securityContext", "privileged"), False
    ),
    "resources": Case({"resources": RESOURCES}, (*CONTAINER, "resources"), RESOURCES),
    "livenessProbe": Case({"livenessProbe": {"timeoutSeconds": 5}}, (*CONTAINER, "livenessProbe", "timeoutSeconds"), 5),
    "readinessProbe": Case(
        {"readinessProbe": {"periodSeconds": 9}}, (*CONTAINER, "readinessProbe", "periodSeconds"), 9
    ),
    "extraEnv": Case({"extraEnv": [ENV]}, (*CONTAINER, "env", -1), ENV),
    "extraArgs": Case({"extraArgs": ["--help"]}, (*CONTAINER, "args", 1), "--help"),
    "extraVolumes": Case({"extraVolumes": [VOLUME]}, (*POD, "volumes", -1), VOLUME),
    "extraVolumeMounts": Case({"extraVolumeMounts": [MOUNT]}, (*CONTAINER, "volumeMounts", -1), MOUNT),
    "nodeSelector": Case({"nodeSelector": {"a": "b"}}, (*POD, "nodeSelector"), {"a": "b", "kubernetes.io/os": "linux"}),
    "tolerations": Case({"tolerations": [TOLERATION]}, (*POD, "tolerations"), [TOLERATION]),
    "affinity": Case({"affinity": AFFINITY}, (*POD, "affinity"), AFFINITY),
    "topologySpreadConstraints": Case(
        {"topologySpreadConstraints": [SPREAD]}, (*POD, "topologySpreadConstraints", 0, "topologyKey"), "zone"
    ),
    "priorityClassName": Case({"priorityClassName": "high"}, (*POD, "priorityClassName"), "high"),
}


def for_each_component(value: Json) -> Json:
    """Return values that set this for the operator, the webhook and the gateway."""
    if "from" in value.get("networkPolicy", {}):  # only the gateway has this
        value = {"networkPolicy": {"metricsFrom": value["networkPolicy"]["metricsFrom"]}}
    return {**value, "webhook": value, "gateway": value}


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("what", CASES)
def test_each_value_has_its_effect(what: str, component: str) -> None:
    case = CASES[what]
    found = objects(for_each_component(case.value))
    name = case.value.get("serviceAccount", {}).get("name", COMPONENTS[component])
    body = found.get((case.kind, COMPONENTS[component] if case.kind == "Deployment" else name))
    assert at(body, *case.path) == case.expected


def test_every_shared_value_has_a_case() -> None:
    of = values()
    shared = of.keys() & of["webhook"].keys() & of["gateway"].keys()
    assert {what.partition(".")[0] for what in CASES} == shared


def test_an_empty_value_is_omitted_or_reported() -> None:
    """A values file can contain `podLabels:` without a value."""
    empty = dict.fromkeys(sorted({what.partition(".")[0] for what in CASES}))
    required = {"serviceAccount", "networkPolicy", "podDisruptionBudget"}
    optional = {what: its for what, its in empty.items() if what not in required}
    found = objects({**optional, "commonLabels": None, "webhook": optional, "gateway": optional})
    assert len(list(workloads(found))) == len(COMPONENTS)
    done = render(f"--set-json={json.dumps(empty)}")
    assert "missing properties 'serviceAccount', 'networkPolicy', 'podDisruptionBudget'" in done.stderr


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_spread_constraint_without_a_selector_gets_the_components_selector(component: str) -> None:
    template = objects({})["Deployment", COMPONENTS[component]]["spec"]["template"]
    (spread,) = template["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"] == {"matchLabels": {"app.kubernetes.io/name": COMPONENTS[component]}}
    assert spread["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def test_the_operators_rights_are_bound_to_its_pods_service_account() -> None:
    found = objects({"serviceAccount": {"create": False, "name": "own"}})
    for kind in ("ClusterRoleBinding", "RoleBinding"):
        assert found[kind, "devbox-secrets"]["subjects"] == [
            {"kind": "ServiceAccount", "name": "own", "namespace": NAMESPACE}
        ]


# --- Values of the whole chart


def workloads(found: dict[tuple[str, str], Json]) -> Iterator[Json]:
    return (each for (kind, _), each in found.items() if kind == "Deployment")


def specs(*arguments: str, **given: object) -> list[Json]:
    return [each["spec"]["template"]["spec"] for each in workloads(objects(given, *arguments))]


def test_common_labels_and_annotations_are_on_every_object_and_common_labels_on_pods() -> None:
    found = objects({"commonLabels": {"team": "platform"}, "commonAnnotations": {"owner": "ann"}})
    assert [name for name, each in found.items() if each["metadata"]["labels"].get("team") != "platform"] == []
    assert [name for name, each in found.items() if each["metadata"]["annotations"].get("owner") != "ann"] == []
    for each in workloads(found):
        assert each["spec"]["template"]["metadata"]["labels"]["team"] == "platform"
        assert "team" not in each["spec"]["selector"]["matchLabels"]


def test_every_object_has_the_recommended_labels() -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    own = {
        "app.kubernetes.io/name": "devbox-secrets",
        "app.kubernetes.io/instance": NAMESPACE,
        "app.kubernetes.io/part-of": "devbox-secrets",
        "app.kubernetes.io/version": version,
        "app.kubernetes.io/managed-by": "Helm",
        "helm.sh/chart": f"devbox-secrets-{version}",
    }
    for name, each in objects({}).items():
        labels = {key: its for key, its in each["metadata"]["labels"].items() if key in own}
        assert (name, labels) == (name, own)


@pytest.mark.parametrize("component", COMPONENTS)
def test_pods_have_a_component_label_and_a_selector_of_only_that_component(component: str) -> None:
    each = objects({})["Deployment", COMPONENTS[component]]
    labels = each["spec"]["template"]["metadata"]["labels"]
    assert (
        labels["app.kubernetes.io/component"] == component == each["metadata"]["labels"]["app.kubernetes.io/component"]
    )
    assert each["spec"]["selector"]["matchLabels"] == {"app.kubernetes.io/name": COMPONENTS[component]}


DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("given", "image"),
    [
        ({}, "devbox-secrets:0.1.0"),
        ({"image": {"tag": "1.2"}}, "devbox-secrets:1.2"),
        ({"image": {"digest": DIGEST}}, f"devbox-secrets@{DIGEST}"),
        ({"image": {"tag": "1.2", "digest": DIGEST}}, f"devbox-secrets:1.2@{DIGEST}"),
        ({"image": {"registry": "r.example:5000/team"}}, "r.example:5000/team/devbox-secrets:0.1.0"),
        (
            {"image": {"registry": "a.example"}, "global": {"imageRegistry": "b.example"}},
            "b.example/devbox-secrets:0.1.0",
        ),
        ({"image": {"repository": "a.example/x"}}, "a.example/x:0.1.0"),
    ],
)
def test_the_image_reference_consists_of_registry_repository_tag_and_digest(given: Json, image: str) -> None:
    assert [spec["containers"][0]["image"] for spec in specs(**given)] == [image] * 3


def test_pull_secrets_of_the_chart_and_its_parent_are_merged() -> None:
    given = {"imagePullSecrets": ["a", {"name": "b"}], "global": {"imagePullSecrets": [{"name": "c"}, "b"]}}
    expected = [{"name": "c"}, {"name": "b"}, {"name": "a"}]
    assert [spec["imagePullSecrets"] for spec in specs(**given)] == [expected] * 3


def test_global_values_apply_to_components_without_their_own() -> None:
    own: Json = {
        "tolerations": [TOLERATION],
        "affinity": AFFINITY,
        "priorityClassName": "own",
        "nodeSelector": {"a": "own"},
    }
    general: Json = {
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"podAffinity": {}},
        "priorityClassName": "general",
        "nodeSelector": {"a": "general", "b": "general"},
    }
    found = objects({"global": general, "webhook": own})
    linux = {"kubernetes.io/os": "linux"}
    gateway = found["Deployment", COMPONENTS["gateway"]]["spec"]["template"]["spec"]
    webhook = found["Deployment", COMPONENTS["webhook"]]["spec"]["template"]["spec"]
    assert {key: gateway[key] for key in general} == general | {"nodeSelector": linux | general["nodeSelector"]}
    assert {key: webhook[key] for key in own} == own | {"nodeSelector": {"a": "own", "b": "general"} | linux}


@pytest.mark.parametrize(
    ("adapt", "options", "assigned"),
    [
        ("auto", (), True),
        ("auto", (OPENSHIFT,), False),
        ("disabled", (OPENSHIFT,), True),
        ("force", (), False),
    ],
)
def test_pods_set_no_users_or_groups_on_openshift(adapt: str, options: tuple[str, ...], assigned: bool) -> None:
    given = {"global": {"compatibility": {"openshift": {"adaptSecurityContext": adapt}}}}
    given |= for_each_component({"securityContext": {"runAsUser": 65532}})
    for spec in specs(*options, **given):
        contexts = spec["securityContext"], spec["containers"][0]["securityContext"]
        assert all(("runAsUser" in each) is assigned for each in contexts)
        assert contexts[0].keys() & {"runAsGroup", "fsGroup"} == set() or assigned
        assert contexts[0]["runAsNonRoot"]
        assert contexts[1]["readOnlyRootFilesystem"]


@pytest.mark.parametrize(("keep", "annotations"), [(True, {"helm.sh/resource-policy": "keep"}), (False, None)])
def test_keeping_the_crd_is_configurable(keep: bool, annotations: Json | None) -> None:
    crd = objects({"crds": {"keep": keep}})["CustomResourceDefinition", "accountsecrets.devbox-secrets.dev"]
    assert crd["metadata"].get("annotations") == annotations


def test_the_crd_can_be_omitted() -> None:
    assert not any(kind == "CustomResourceDefinition" for kind, _ in objects({"crds": {"enabled": False}}))


# --- NetworkPolicies


def test_the_operator_connects_only_to_the_api_servers_ports_and_accepts_no_connections() -> None:
    given = {"networkPolicy": {"apiServerPorts": [7443]}, "metrics": {"service": {"enabled": False}}}
    spec = objects(given)["NetworkPolicy", "devbox-secrets"]["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert (spec.get("ingress"), spec["egress"]) == (None, [{"ports": [{"protocol": "TCP", "port": 7443}]}])


def test_the_operator_and_the_gateway_can_be_limited_to_the_api_servers_addresses() -> None:
    policy = {"networkPolicy": {"apiServerPorts": [6443], "apiServerCIDRs": ["10.0.0.2/32", "fd00::2/128"]}}
    found = objects({**policy, "gateway": policy})
    to = [{"ipBlock": {"cidr": "10.0.0.2/32"}}, {"ipBlock": {"cidr": "fd00::2/128"}}]
    for name in ("devbox-secrets", "devbox-secrets-gateway"):
        egress = found["NetworkPolicy", name]["spec"]["egress"]
        assert egress == [{"ports": [{"protocol": "TCP", "port": 6443}], "to": to}]


def test_the_webhook_accepts_connections_only_on_its_port_and_opens_none() -> None:
    given = {"webhook": {"port": 10250}, "metrics": {"service": {"enabled": False}}}
    spec = objects(given)["NetworkPolicy", "devbox-secrets-webhook"]["spec"]
    assert (spec["ingress"], spec.get("egress")) == ([{"ports": [{"protocol": "TCP", "port": 10250}]}], None)


def test_metrics_are_reachable_only_for_the_configured_peers() -> None:
    peers = [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]
    found = objects(for_each_component({"networkPolicy": {"metricsFrom": peers}}))
    for name, port in (("devbox-secrets", 8080), ("devbox-secrets-webhook", 8080), ("devbox-secrets-gateway", 9090)):
        rule = found["NetworkPolicy", name]["spec"]["ingress"][-1]
        assert rule == {"ports": [{"protocol": "TCP", "port": port}], "from": peers}


def test_the_webhook_can_use_the_host_network_and_other_ports() -> None:
    spec = objects({"webhook": {"hostNetwork": True, "port": 10250, "healthPort": 10260}})[
        "Deployment", "devbox-secrets-webhook"
    ]["spec"]["template"]["spec"]
    assert spec["hostNetwork"] is True
    (container,) = spec["containers"]
    assert {each["name"]: each["containerPort"] for each in container["ports"]} == {"https": 10250, "metrics": 10260}
    env = {each["name"]: each.get("value") for each in container["env"]}
    assert (env["DEVBOX_SECRETS_TLS_PORT"], env["DEVBOX_SECRETS_PORT"]) == ("10250", "10260")
    assert all("hostNetwork" not in each for each in specs())


# --- Ingress and HTTPRoute


def test_an_ingress_routes_to_the_gateway() -> None:
    given = {
        "enabled": True,
        "className": "nginx",
        "annotations": {"a": "b"},
        "hosts": [{"host": "a.example"}, {"host": "b.example", "paths": [{"path": "/v1", "pathType": "Exact"}]}],
        "tls": [{"hosts": ["a.example"], "secretName": "tls"}],
    }
    made = objects({"gateway": {"ingress": given, "service": {"port": 8000}}})["Ingress", "devbox-secrets-gateway"]
    assert made["metadata"]["annotations"] == {"a": "b"}
    assert (made["spec"]["ingressClassName"], made["spec"]["tls"]) == ("nginx", given["tls"])
    backend = {"service": {"name": "devbox-secrets-gateway", "port": {"number": 8000}}}
    assert [(rule["host"], rule["http"]["paths"]) for rule in made["spec"]["rules"]] == [
        ("a.example", [{"path": "/", "pathType": "Prefix", "backend": backend}]),
        ("b.example", [{"path": "/v1", "pathType": "Exact", "backend": backend}]),
    ]


def test_an_httproute_routes_to_the_gateway() -> None:
    given = {"enabled": True, "annotations": {"a": "b"}, "parentRefs": [{"name": "x"}], "hostnames": ["a.example"]}
    made = objects({"gateway": {"httpRoute": given}})["HTTPRoute", "devbox-secrets-gateway"]
    assert made["metadata"]["annotations"] == {"a": "b"}
    assert (made["spec"]["parentRefs"], made["spec"]["hostnames"]) == (given["parentRefs"], given["hostnames"])
    (rule,) = made["spec"]["rules"]
    assert rule["backendRefs"] == [{"name": "devbox-secrets-gateway", "port": 80}]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}}]


# --- values.yaml, its schema, and the README


def leaves(of: Json, *path: str) -> Iterator[str]:
    """Yield the name of each value that isn't a non-empty object, such as image.tag."""
    for key, value in of.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, *path, key)
        else:
            yield ".".join((*path, key))


def described(schema: Json, definitions: Json, *path: str) -> Iterator[str]:
    """Yield the name of each value in the schema; an object of any content counts as one value."""
    for key, its in schema.get("properties", {}).items():
        actual = definitions[its["$ref"].rpartition("/")[2]] if "$ref" in its else its
        if actual.get("properties"):
            yield from described(actual, definitions, *path, key)
        else:
            yield ".".join((*path, key))


#: Objects whose fields the schema describes although values.yaml has others, or none.
OPEN_OBJECTS = (
    "affinity",
    "labels",
    "livenessProbe",
    "podDisruptionBudget",
    "readinessProbe",
    "resources",
    "strategy",
    "nodeSelector",
)
OPEN_CONTEXTS = ("securityContext", "podSecurityContext")


def collapse(names: Iterator[str]) -> set[str]:
    """Return the names, with the fields below such objects removed."""
    kept = set()
    for name in names:
        parts = name.split(".")
        ends = [number for number, part in enumerate(parts, 1) if part in OPEN_OBJECTS + OPEN_CONTEXTS]
        kept.add(".".join(parts[: ends[0]] if ends else parts))
    return kept


def test_the_schema_describes_every_value_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert collapse(described(schema, schema["definitions"])) == collapse(leaves(values()))


def test_the_schema_rejects_unknown_values() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    free = {"global", "global.compatibility", "global.compatibility.openshift"}  # the templates check these

    def unclosed(of: Json, *path: str) -> Iterator[str]:
        if of.get("properties") and of.get("additionalProperties") is not False:
            yield ".".join(path)
        for key, its in of.get("properties", {}).items():
            yield from unclosed(its, *path, key) if isinstance(its, dict) else ()

    assert set(unclosed(schema)) == free
    assert [name for name, its in schema["definitions"].items() for _ in unclosed(its)] == []


def test_the_readme_documents_every_value() -> None:
    readme = (CHART / "README.md").read_text()
    rows = {line.split("`")[1]: line for line in readme.splitlines() if line.startswith("| `")}
    undocumented = {
        name for name in leaves(values()) if not any(name == row or name.startswith(f"{row}.") for row in rows)
    }
    assert undocumented == set()
    assert [name for name, row in rows.items() if row.rstrip(" |").endswith("`")] == []


def test_the_annotations_for_artifact_hub_match_the_crd() -> None:
    annotations = yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"]
    crd = yaml.safe_load((CHART / "files" / "crd.yaml").read_text())
    kind, name = crd["spec"]["names"]["kind"], crd["metadata"]["name"]
    versions = [each["name"] for each in crd["spec"]["versions"]]
    listed = yaml.safe_load(annotations["artifacthub.io/crds"])
    assert [(each["kind"], each["name"], each["version"]) for each in listed] == [(kind, name, it) for it in versions]
    (example,) = yaml.safe_load(annotations["artifacthub.io/crdsExamples"])
    assert (example["kind"], example["apiVersion"]) == (kind, f"{crd['spec']['group']}/{versions[-1]}")


def test_the_packaged_chart_has_its_readme(tmp_path: object) -> None:
    done = helm("package", str(CHART), f"--destination={tmp_path}")
    assert done.returncode == 0, done.stderr
    shown = helm("show", "readme", f"{tmp_path}/devbox-secrets-0.1.0.tgz").stdout
    assert shown.startswith("# devbox-secrets\n")
