"""How one kubeconfig is read, and the errors for a damaged one, which don't quote it."""

from pathlib import Path

import pytest

from devbox_secrets.errors import ConfigError
from devbox_secrets.kube.kubeconfig_file import KubeconfigFile, read_file

CANARY = "canary-7d21"


@pytest.mark.parametrize("content", [b"", b"\n", b"# nothing\n", b"---\n", b"null\n", b"users:\nclusters: null\n"])
def test_a_file_without_content_is_an_empty_kubeconfig(tmp_path: Path, content: bytes) -> None:
    (file := tmp_path / "config").write_bytes(content)
    assert read_file(file) == KubeconfigFile()


def test_a_missing_file_is_none(tmp_path: Path) -> None:
    assert read_file(tmp_path / "gone") is None


@pytest.mark.parametrize(
    "content",
    [
        "users: [{name: a, user: {token: t, as-user-extra: {k: [v]}}}]",
        '{"users": [{"name": "a", "user": {"token": "t", "as-user-extra": {"k": ["v"]}}}]}',
        "users:\n- name: a\n  user: {token: t, tokenFile: null, as-user-extra: {k: [v]}, x: []}\n---\nusers: x\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_yaml_and_json_are_read_in_any_encoding_that_kubectl_reads(tmp_path: Path, content: str, encoding: str) -> None:
    (file := tmp_path / "config").write_text(content, encoding=encoding)
    found = read_file(file)
    assert found
    (entry,) = found.users
    assert (entry.name, entry.user.token, entry.user.as_user_extra) == ("a", "t", {"k": ("v",)})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (f"{CANARY}: [", "line 1 isn't valid YAML"),
        (f"a: b\n{CANARY}\n", "line 3 isn't valid YAML"),
        (f"a: b\n\t{CANARY}: c\n", "line 2 isn't valid YAML"),
        (f"\0{CANARY}", "it isn't valid YAML"),
        (f"a: *{CANARY}", "line 1 isn't valid YAML"),
        (f"a: !!python/name:{CANARY} x", "line 1 isn't valid YAML"),
        (f"a: {'{b: ' * 20_000}", "it isn't valid YAML"),
        (f'a: "{CANARY}\\U00110000"', "it isn't valid YAML"),
        (f'a: "{CANARY}\\UFFFFFFFF"', "it isn't valid YAML"),
        (f"a: !!bool {CANARY}", "it isn't valid YAML"),
        (f"a: !!timestamp {CANARY}", "it isn't valid YAML"),
        ("a: !!int ''", "it isn't valid YAML"),
        (f"- {CANARY}", "it isn't a mapping"),
        (CANARY, "it isn't a mapping"),
        ("users: {}", "users should be a valid list"),
        (f"users: [{CANARY}]", "users[0] should be a valid dictionary"),
        ("users: [{name: a, user: {token: 7}}]", "users[0].user.token should be a valid string"),
        (f"users: [{{user: {{as-groups: {CANARY}}}}}]", "users[0].user.as-groups should be a valid list"),
        (f"users: [{{user: {{client-key-data: '{CANARY}'}}}}]", "users[0].user.client-key-data isn't base64"),
        (
            f"clusters: [{{cluster: {{insecure-skip-tls-verify: '{CANARY}'}}}}]",
            "clusters[0].cluster.insecure-skip-tls-verify should be a valid boolean",
        ),
        (
            f"users: [{{user: {{exec: {{interactiveMode: {CANARY}}}}}}}]",
            "users[0].user.exec.interactiveMode should be '', 'Never', 'IfAvailable' or 'Always'",
        ),
        ("apiVersion: v2", "apiVersion should be '' or 'v1'"),
        ("contexts: [{name: a}, {name: a}]", "two of its contexts have the name a"),
        ("users: [{}, {}]", "two of its users have the name (empty)"),
    ],
)
def test_the_error_for_a_damaged_file_has_the_place_and_does_not_quote_the_file(
    tmp_path: Path, content: str, problem: str
) -> None:
    (file := tmp_path / "config").write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_file(file)
    assert str(caught.value) == f"the kubeconfig {file} is invalid: {problem}"
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_a_file_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_file(tmp_path)
    assert str(caught.value) == f"cannot read the kubeconfig {tmp_path}: Is a directory"
