"""Kubeconfigs of every kind, valid and invalid."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
V1, V1BETA1 = "client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"
ALICE, BOB, ADMIN = "system:serviceaccount:default:alice", "system:serviceaccount:default:bob", "admin"
CLUSTER = {"server": "<server>", "certificate-authority-data": "<ca>"}
GO = {"name": "go", "context": {"cluster": "c", "user": "u"}}


@dataclass(frozen=True)
class Case:
    """A kubeconfig and other files, and their use. Placeholders such as `<alice>` in their text are replaced."""

    user: Json | None = None
    cluster: Json = field(default_factory=dict)
    """Merged into the default cluster; None removes a field."""
    changes: Json = field(default_factory=dict)
    """Top-level fields of the kubeconfig to replace."""
    files: Mapping[str, str | bytes | Json] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    context: str | None = None
    as_user: str | None = None
    as_groups: tuple[str, ...] = ()


def plugin(output: Json | str, *before: str) -> str:
    """Return a program that prints a credential."""
    text = output if isinstance(output, str) else json.dumps(output)
    return "\n".join(["#!/bin/sh", *before, "cat <<'END'", text, "END", ""])


def credential(status: Json, version: str = V1) -> Json:
    return {"apiVersion": version, "kind": "ExecCredential", "status": status}


def plugin_file(status: Json, version: str = V1) -> dict[str, str]:
    return {"plugin.sh": plugin(credential(status, version))}


def run(command: str = "./plugin.sh", version: str = V1, **fields: Any) -> Json:  # noqa: ANN401 - part of a kubeconfig
    return {"exec": {"command": command, "apiVersion": version, "interactiveMode": "Never", **fields}}


TOKEN = {"token": "<alice>"}
ADMIN_USER = {"client-certificate-data": "<cert>", "client-key-data": "<key>"}
PAIR = {"clientCertificateData": "<crt json>", "clientKeyData": "<key json>"}
ALICE_PLUGIN = plugin_file(TOKEN)
SECOND = {"clusters": [], "users": [{"name": "u", "user": {"token": "<bob>"}}], "contexts": [], "current-context": ""}
THEN_B, B_THEN = {"KUBECONFIG": "<here>/config:<here>/b"}, {"KUBECONFIG": "<here>/b:<here>/config"}
FAR = {"server": "https://far.invalid", "tls-server-name": "localhost"}
NEAR = {"server": "https://0.0.0.0:<port>", "tls-server-name": "localhost"}

#: By name: the expected user, and the case.
ACTING: dict[str, tuple[str, Case]] = {
    # Credentials.
    "token": (ALICE, Case(TOKEN)),
    "a relative tokenFile with a line break": (ALICE, Case({"tokenFile": "t"}, files={"t": "<alice>\n"})),
    "tokenFile overrides token": (BOB, Case({**TOKEN, "tokenFile": "t"}, files={"t": "<bob>"})),
    "token and a missing tokenFile": (ALICE, Case({**TOKEN, "tokenFile": "t"})),
    "token and an empty tokenFile": (ALICE, Case({**TOKEN, "tokenFile": "t"}, files={"t": "\n"})),
    "client certificate": (ADMIN, Case(ADMIN_USER)),
    "client certificate in files": (
        ADMIN,
        Case({"client-certificate": "a/c", "client-key": "a/k"}, files={"a/c": "<crt pem>", "a/k": "<key pem>"}),
    ),
    "client certificate as data, its key in a file": (
        ADMIN,
        Case({"client-certificate-data": "<cert>", "client-key": "key"}, files={"key": "<key pem>"}),
    ),
    "client certificate and token": (ADMIN, Case(ADMIN_USER | TOKEN)),
    "a key without a certificate, which is ignored": (ALICE, Case({**TOKEN, "client-key-data": "<key>"})),
    "null fields": (ALICE, Case({**TOKEN, "exec": None, "as": None, "as-groups": None}, {"proxy-url": None})),
    # Impersonation.
    "as": ("jane", Case({**ADMIN_USER, "as": "jane"})),
    "as with groups, UID and extra fields": (
        "jane",
        Case(
            {
                **ADMIN_USER, "as": "jane", "as-groups": ["dev", "ops"], "as-uid": "7",
                "as-user-extra": {"example.com/Team%1": ["a", "b"], "plain": ["ä"]},
            },
        ),
    ),
    "--as": ("joe", Case(ADMIN_USER, as_user="joe")),
    "--as and --as-group": ("joe", Case(ADMIN_USER, as_user="joe", as_groups=("dev", "ops"))),
    "--as overrides as, not its groups": ("joe", Case({**ADMIN_USER, "as": "a", "as-groups": ["g"]}, as_user="joe")),
    "--as-group overrides as-groups": (
        "jane", Case({**ADMIN_USER, "as": "jane", "as-groups": ["g"]}, as_groups=("h",))
    ),
    "as, with an exec plugin": (
        "jane",
        Case({**run(), "as": "jane"}, files=plugin_file(PAIR)),
    ),
    # Exec plugins.
    "exec": (ALICE, Case(run(), files=ALICE_PLUGIN)),
    "exec, v1beta1 without interactiveMode": (
        ALICE,
        Case(run(version=V1BETA1, interactiveMode=None), files=plugin_file(TOKEN, V1BETA1)),
    ),
    "exec on PATH": (ALICE, Case(run("plugin.sh"), files=ALICE_PLUGIN, env={"PATH": "<here>:/usr/bin:/bin"})),
    "exec with arguments and variables": (
        ALICE,
        Case(
            run(args=["a b", "c"], env=[{"name": "X", "value": "y z"}]),
            files={"plugin.sh": plugin(credential(TOKEN), '[ "$1|$2|$X" = "a b|c|y z" ] || exit 1')},
        ),
    ),
    "exec that needs information about the cluster": (
        ALICE,
        Case(
            run(provideClusterInfo=True),
            {"extensions": [{"name": "client.authentication.k8s.io/exec", "extension": {"audience": "x"}}]},
            files={
                "plugin.sh": plugin(
                    credential(TOKEN),
                    *(
                        f"echo \"$KUBERNETES_EXEC_INFO\" | tr -d ' ' | grep -qF '{each}' || exit 1"
                        for each in (
                            '"server":"<server>"', '"certificate-authority-data":"<ca>"', '"audience":"x"',
                            '"interactive":false', f'"apiVersion":"{V1}"',
                        )
                    ),
                )
            },
        ),
    ),
    "exec that returns a client certificate": (
        ADMIN,
        Case(run(), files=plugin_file(PAIR)),
    ),
    "exec that returns an expired credential": (
        ALICE,
        Case(run(), files=plugin_file({**TOKEN, "expirationTimestamp": "2020-01-01T00:00:00Z"})),
    ),
    "exec and a token, which is used": (BOB, Case({**run(), "token": "<bob>"}, files=ALICE_PLUGIN)),
    # Clusters.
    "a relative certificate-authority": (
        ALICE,
        Case(TOKEN, {"certificate-authority-data": None, "certificate-authority": "ca"}, files={"ca": "<ca pem>"}),
    ),
    "insecure-skip-tls-verify": (
        ALICE,
        Case(TOKEN, {"certificate-authority-data": None, "insecure-skip-tls-verify": True}),
    ),
    "tls-server-name": (ALICE, Case(TOKEN, {"tls-server-name": "kubernetes.default.svc"})),
    "a server with a slash": (ALICE, Case(TOKEN, {"server": "<server>/"})),
    "disable-compression": (ALICE, Case(TOKEN, {"disable-compression": True})),
    "proxy-url": (ALICE, Case(TOKEN, {**FAR, "proxy-url": "<proxy>"})),
    "proxy-url overrides HTTPS_PROXY": (
        ALICE,
        Case(TOKEN, {**FAR, "proxy-url": "<proxy>"}, env={"HTTPS_PROXY": "http://127.0.0.1:9"}),
    ),
    "HTTPS_PROXY": (ALICE, Case(TOKEN, FAR, env={"HTTPS_PROXY": "<proxy>"})),
    "https_proxy without a scheme": (ALICE, Case(TOKEN, FAR, env={"https_proxy": "<proxy host>"})),
    "HTTPS_PROXY isn't used for this machine": (ALICE, Case(TOKEN, env={"HTTPS_PROXY": "http://127.0.0.1:9"})),
    "NO_PROXY with a CIDR": (
        ALICE,
        Case(TOKEN, NEAR, env={"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "10.0.0.0/8,0.0.0.0/8"}),
    ),
    "NO_PROXY with an address and a port": (
        ALICE,
        Case(TOKEN, NEAR, env={"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "0.0.0.0:<port>"}),
    ),
    # Files and contexts.
    "KUBECONFIG: the first file wins": (ALICE, Case(TOKEN, files={"b": SECOND}, env=THEN_B)),
    "KUBECONFIG in the opposite order": (BOB, Case(TOKEN, files={"b": SECOND}, env=B_THEN)),
    "KUBECONFIG with missing, empty and repeated files": (
        ALICE,
        Case(
            TOKEN,
            files={"e": "", "n": "# nothing\n"},
            env={"KUBECONFIG": ":<here>/x:<here>/e:<here>/n::<here>/config:<here>/config:"},
        ),
    ),
    "KUBECONFIG: paths are relative to the file that contains them": (
        BOB,
        Case(
            TOKEN,
            {"certificate-authority-data": None, "certificate-authority": "ca"},
            {"users": []},
            {"ca": "<ca pem>", "sub/t": "<bob>", "sub/b": {"users": [{"name": "u", "user": {"tokenFile": "t"}}]}},
            {"KUBECONFIG": "<here>/config:<here>/sub/b"},
        ),
    ),
    "~/.kube/config": (
        ALICE,
        Case(
            files={
                ".kube/config": {
                    "clusters": [{"name": "c", "cluster": CLUSTER}],
                    "users": [{"name": "u", "user": TOKEN}],
                    "contexts": [GO],
                    "current-context": "go",
                }
            },
            env={"KUBECONFIG": ""},
        ),
    ),
    "--context": (
        BOB,
        Case(
            TOKEN,
            changes={
                "users": [{"name": "u", "user": TOKEN}, {"name": "v", "user": {"token": "<bob>"}}],
                "contexts": [GO, {"name": "other", "context": {"cluster": "c", "user": "v"}}],
            },
            context="other",
        ),
    ),
    "--context without a current-context": (ALICE, Case(TOKEN, changes={"current-context": ""}, context="go")),
    "a damaged user that isn't used": (
        ALICE,
        Case(changes={"users": [{"name": "u", "user": TOKEN}, {"name": "v", "user": {"client-certificate": "gone"}}]}),
    ),
    "unknown fields": (ALICE, Case({**TOKEN, "future": 1, "Token": "no"}, changes={"preferences": {}, "future": []})),
    "two documents, of which the first is used": (
        ALICE,
        Case(TOKEN, files={"b": b"users: []\n---\nusers: [{name: u, user: {token: no}}]\n"}, env=B_THEN),
    ),
    "UTF-16, as PowerShell writes it": (
        ALICE,
        Case(TOKEN, files={"b": "kind: Config\nusers: []\n".encode("utf-16")}, env=B_THEN),
    ),
}  # fmt: skip

#: Kubeconfigs that both kubectl and our CLI reject.
REJECTED: dict[str, Case] = {
    "an unknown token": Case({"token": "x"}),
    "a token that is a number": Case({"token": 7}),
    "no credentials": Case({}),
    "a user that doesn't exist": Case(TOKEN, changes={"users": []}),
    "a cluster that doesn't exist": Case(TOKEN, changes={"clusters": []}),
    "no current-context": Case(TOKEN, changes={"current-context": ""}),
    "a current-context that doesn't exist": Case(TOKEN, changes={"current-context": "gone"}),
    "a context that doesn't exist": Case(TOKEN, context="gone"),
    "a password, which API servers no longer accept": Case({"username": "a", "password": "b"}),
    "token and password": Case({**TOKEN, "username": "a", "password": "b"}),
    "a missing tokenFile": Case({"tokenFile": "gone"}),
    "an empty tokenFile": Case({"tokenFile": "t"}, files={"t": ""}),
    "client certificate without its key": Case({"client-certificate-data": "<cert>"}),
    "client certificate with another key": Case({**ADMIN_USER, "client-key-data": "<other key>"}),
    "client certificate as data and file": Case(
        {**ADMIN_USER, "client-certificate": "crt"}, files={"crt": "<crt pem>"}
    ),
    "a missing client certificate": Case({"client-certificate": "gone", "client-key-data": "<key>"}),
    "client certificate that isn't base64": Case({"client-certificate-data": "%", "client-key-data": "<key>"}),
    "as without permission to impersonate": Case({**TOKEN, "as": "jane"}),
    "as-groups without as": Case({**ADMIN_USER, "as-groups": ["g"]}),
    "--as-group without --as": Case(ADMIN_USER, as_groups=("g",)),
    "a missing exec plugin": Case(run("./gone")),
    "exec that isn't on PATH": Case(run("no-such-plugin", installHint="get it")),
    "exec that isn't executable": Case(run("./config")),
    "exec that fails": Case(run(), files={"plugin.sh": "#!/bin/sh\nexit 3\n"}),
    "exec that prints no credential": Case(run(), files={"plugin.sh": plugin("{}")}),
    "exec that prints no JSON": Case(run(), files={"plugin.sh": plugin("login first")}),
    "exec that returns an empty credential": Case(run(), files=plugin_file({})),
    "exec that returns a certificate without its key": Case(run(), files=plugin_file({**PAIR, "clientKeyData": ""})),
    "exec that returns another apiVersion": Case(run(), files=plugin_file(TOKEN, V1BETA1)),
    "exec without apiVersion": Case(run(version=""), files=ALICE_PLUGIN),
    "exec with a removed apiVersion": Case(run(version="client.authentication.k8s.io/v1alpha1"), files=ALICE_PLUGIN),
    "exec, v1 without interactiveMode": Case(run(interactiveMode=None), files=ALICE_PLUGIN),
    "exec that needs a terminal": Case(run(interactiveMode="Always"), files=ALICE_PLUGIN),
    "another CA": Case(TOKEN, {"certificate-authority-data": "<other ca>"}),
    "a CA that isn't a certificate": Case(TOKEN, {"certificate-authority-data": "YQ=="}),
    "a missing CA file": Case(TOKEN, {"certificate-authority-data": None, "certificate-authority": "gone"}),
    "a CA as data and file": Case(TOKEN, {"certificate-authority": "ca"}, files={"ca": "<ca pem>"}),
    "no CA": Case(TOKEN, {"certificate-authority-data": None}),
    "a CA and insecure-skip-tls-verify": Case(TOKEN, {"insecure-skip-tls-verify": True}),
    "another tls-server-name": Case(TOKEN, {"tls-server-name": "wrong.example"}),
    "no server": Case(TOKEN, {"server": None}),
    "a server with a path that doesn't exist": Case(TOKEN, {"server": "<server>/prefix"}),
    "a server in cleartext": Case(TOKEN, {"server": "http://127.0.0.1:<port>"}),
    "a proxy-url that is down": Case(TOKEN, {"proxy-url": "http://127.0.0.1:9"}),
    "a proxy-url that isn't supported": Case(TOKEN, {**FAR, "proxy-url": "ftp://127.0.0.1:9"}),
    "HTTPS_PROXY that is down": Case(TOKEN, NEAR, env={"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "10.0.0.0/8"}),
    "a damaged file": Case(TOKEN, files={"b": "users: ["}, env=THEN_B),
    "a file that is a list": Case(TOKEN, files={"b": "[]"}, env=THEN_B),
    "a folder": Case(TOKEN, files={"d/x": ""}, env={"KUBECONFIG": "<here>/config:<here>/d"}),
    "two users with one name": Case(changes={"users": [{"name": "u", "user": TOKEN}, {"name": "u", "user": TOKEN}]}),
    "another apiVersion": Case(TOKEN, changes={"apiVersion": "v2"}),
    "another kind": Case(TOKEN, changes={"kind": "Pod"}),
    "no file at all": Case(TOKEN, env={"KUBECONFIG": "<here>/x:<here>/y"}),
}  # fmt: skip
