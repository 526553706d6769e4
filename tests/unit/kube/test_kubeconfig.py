"""Merging kubeconfigs: which entries and paths are used, and the errors for those that can't be used."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from devbox_secrets.errors import ConfigError
from devbox_secrets.kube.kubeconfig import Kubeconfig, Target

CANARY = "canary-7d21"
Json = dict[str, Any]


def content(user: Json | None = None, cluster: Json | None = None, **changes: object) -> Json:
    return {
        "clusters": [{"name": "c", "cluster": {"server": "https://one.example", **(cluster or {})}}],
        "users": [{"name": "u", "user": {"token": CANARY} if user is None else user}],
        "contexts": [{"name": "dev", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "dev",
        **changes,
    }


def write(path: Path, found: Json) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(found))
    return path


def target(*files: Path) -> Target:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", os.pathsep.join(map(str, files)))
        it = Kubeconfig.read()
    chosen = it.choose(None)
    assert chosen
    return it.target(*chosen)


def test_of_two_entries_with_one_name_only_the_first_file_s_is_used(tmp_path: Path) -> None:
    one = write(tmp_path / "one", content({"token": "one"}))
    two = write(tmp_path / "two", content({"token": "two", "as": "jane"}, {"tls-server-name": "x"}))
    found = target(one, two)
    assert (found.user.token, found.user.as_, found.cluster.tls_server_name) == ("one", "", "")
    assert target(two, one).user.as_ == "jane"


def test_an_entry_and_the_current_context_may_come_from_a_later_file(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"users": content()["users"], "current-context": None})
    two = write(tmp_path / "two", content(users=[]))
    assert target(tmp_path / "missing", one, two).user.token == CANARY


def test_paths_are_relative_to_the_file_that_contains_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    user = {"client-certificate": "crt", "client-key": "/key", "tokenFile": "../t"}
    plugin = {"command": "./login", "apiVersion": "client.authentication.k8s.io/v1beta1"}
    write(tmp_path / "sub/users", {"users": [{"name": "u", "user": {**user, "exec": plugin}}]})
    found = target(Path("sub/users"), write(tmp_path / "config", content({}, {"certificate-authority": "ca"})))
    assert found.cluster.certificate_authority == str(tmp_path / "ca")
    assert found.user.client_certificate == str(tmp_path / "sub/crt")
    assert found.user.client_key == "/key"
    assert found.user.token_file == str(tmp_path / "t")
    assert found.user.exec
    assert found.user.exec.command == str(tmp_path / "sub/login")


def test_a_command_without_a_slash_is_searched_in_path(tmp_path: Path) -> None:
    plugin = {"command": "login", "apiVersion": "client.authentication.k8s.io/v1beta1"}
    found = target(write(tmp_path / "config", content({"exec": plugin})))
    assert found.user.exec
    assert found.user.exec.command == "login"


def test_no_credentials_are_sent_in_cleartext(tmp_path: Path) -> None:
    cluster = {"server": "http://localhost:8001"}
    user = {"token": CANARY, "as": "jane", "as-groups": ["a"], "client-certificate-data": "YQ==", "client-key": "k"}
    found = target(write(tmp_path / "config", content(user, cluster))).user
    assert (found.token, found.client_certificate_data, found.as_, found.as_groups) == ("", b"", "jane", ("a",))
    assert target(write(tmp_path / "config", content(None, cluster, users=[]))).user.token == ""


PLUGIN = {"command": "login", "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never"}
CERTIFICATE = {"client-certificate-data": "YQ==", "client-key-data": "YQ=="}


@pytest.mark.parametrize(
    ("user", "problem"),
    [
        ({}, "has no credentials"),
        ({"as": "jane"}, "has no credentials"),
        ({"password": CANARY}, "has no credentials"),
        (
            {"auth-provider": {"name": "oidc", "config": {"id-token": CANARY}}},
            "uses an auth-provider, which isn't supported; use an exec plugin",
        ),
        ({"token": CANARY, "username": "me"}, "has both a token and a password"),
        ({"tokenFile": "t", "password": CANARY}, "has both a token and a password"),
        ({"client-certificate-data": "YQ=="}, "has a client certificate without its key"),
        ({**CERTIFICATE, "client-key": "k"}, "has a client certificate or key both as a file and as data"),
        ({"token": CANARY, "as-uid": "1"}, "has as-uid, as-groups or as-user-extra without as"),
        ({"token": CANARY, "as-user-extra": {"a": ["b"]}}, "has as-uid, as-groups or as-user-extra without as"),
        ({"exec": {**PLUGIN, "command": None}}, "has an exec plugin without a command"),
        ({"exec": {**PLUGIN, "interactiveMode": None}}, "has an exec plugin without interactiveMode"),
        (
            {"exec": {**PLUGIN, "apiVersion": "v1"}},
            "has an exec plugin whose apiVersion isn't client.authentication.k8s.io/v1 or v1beta1",
        ),
        (
            {"exec": {**PLUGIN, "env": [{"value": CANARY}]}},
            "has an exec plugin with an invalid environment variable name",
        ),
    ],
)
def test_a_user_that_cannot_be_used_is_an_error(tmp_path: Path, user: Json, problem: str) -> None:
    file = write(tmp_path / "config", content(user))
    with pytest.raises(ConfigError) as caught:
        target(file)
    assert str(caught.value) == f"the user u in {file} {problem}"


@pytest.mark.parametrize(
    ("cluster", "problem"),
    [
        ({"server": ""}, "has no valid server URL, such as https://example.com:6443"),
        ({"server": "one.example:6443"}, "has no valid server URL, such as https://example.com:6443"),
        ({"server": "https://[one"}, "has no valid server URL, such as https://example.com:6443"),
        ({"server": "https://one:99999"}, "has no valid server URL, such as https://example.com:6443"),
        ({"server": f"https://me:{CANARY}@one"}, "has no valid server URL, such as https://example.com:6443"),
        ({"server": " https://one"}, "has no valid server URL, such as https://example.com:6443"),
        ({"server": "ht\ttps://one"}, "has no valid server URL, such as https://example.com:6443"),
        ({"server": "https://one/a?b=c"}, "has no valid server URL, such as https://example.com:6443"),
        (
            {"proxy-url": f"ftp://me:{CANARY}@proxy"},
            "has a proxy-url that isn't supported; only http:// and https:// are",
        ),
        ({"proxy-url": "proxy:3128"}, "has a proxy-url that isn't supported; only http:// and https:// are"),
        (
            {"certificate-authority": "ca", "certificate-authority-data": "YQ=="},
            "has both certificate-authority and certificate-authority-data",
        ),
        (
            {"certificate-authority": "ca", "insecure-skip-tls-verify": True},
            "has both insecure-skip-tls-verify and a certificate authority",
        ),
    ],
)
def test_a_cluster_that_cannot_be_used_is_an_error(tmp_path: Path, cluster: Json, problem: str) -> None:
    file = write(tmp_path / "config", content(None, cluster))
    with pytest.raises(ConfigError) as caught:
        target(file)
    assert str(caught.value) == f"the cluster c in {file} {problem}"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"current-context": "gone"}, "there is no context gone in {file}; pass --context, one of: dev"),
        ({"contexts": []}, "there is no context dev in {file}; it has none"),
        ({"clusters": []}, "the context dev names the cluster c, which isn't in {file}"),
        ({"users": None}, "the context dev names the user u, which isn't in {file}"),
        ({"contexts": [{"name": "dev", "context": {"user": "u"}}]}, "the context dev in {file} names no cluster"),
        ({"contexts": [{"name": "dev", "context": {"cluster": "c"}}]}, "the context dev in {file} names no user"),
    ],
)
def test_a_context_with_missing_parts_is_an_error(tmp_path: Path, changes: Json, sentence: str) -> None:
    file = write(tmp_path / "config", content(**changes))
    with pytest.raises(ConfigError) as caught:
        target(file)
    assert str(caught.value) == sentence.format(file=file)


@pytest.mark.parametrize("server", ["HTTPS://one.example", "Https://one.example"])
def test_a_scheme_may_have_uppercase_letters(tmp_path: Path, server: str) -> None:
    assert target(write(tmp_path / "config", content(None, {"server": server}))).user.token == CANARY


def test_without_a_current_context_nothing_is_chosen(tmp_path: Path) -> None:
    it = Kubeconfig.read(write(tmp_path / "config", content() | {"current-context": ""}))
    assert it.choose(None) is None
    assert it.choose("dev")


def test_a_file_that_is_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Kubeconfig.read(tmp_path / "gone")
    assert str(caught.value) == f"the kubeconfig {tmp_path / 'gone'} doesn't exist"


def test_no_credential_is_printed(tmp_path: Path) -> None:
    user = {"token": CANARY, "password": CANARY, "client-key-data": "YQ=="}
    it = Kubeconfig.read(write(tmp_path / "config", content(user, {"proxy-url": f"http://{CANARY}@proxy"})))
    assert CANARY not in repr(it)
    assert "b'a'" not in repr(it)
