"""The manifests that people apply, and the names of their objects."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from devbox_secrets.api.manifest import manifest, object_name, object_names
from devbox_secrets.api.models import AccountSecretSpec
from devbox_secrets.api.validation import VARIABLE_PATTERN

# An RFC 1123 subdomain, as Kubernetes defines it.
OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
similar_names = st.from_regex(r"[A-Ca-c_][A-Ca-c0-1_]{0,6}", fullmatch=True)
variables = similar_names | st.from_regex(VARIABLE_PATTERN, fullmatch=True).filter(lambda name: len(name) <= 253)


def test_a_manifest_contains_only_the_given_fields() -> None:
    spec = AccountSecretSpec(name="GITHUB_TOKEN", sealed="dbs1.…")
    assert manifest("team", spec) == {
        "apiVersion": "devbox-secrets.dev/v1beta1",
        "kind": "AccountSecret",
        "metadata": {"name": "github-token", "namespace": "team"},
        "spec": {"name": "GITHUB_TOKEN", "sealed": "dbs1.…"},
    }


def test_optional_fields_have_the_api_s_names() -> None:
    spec = AccountSecretSpec(name="A", sealed="dbs1.…", description="for CI", rotate_after="90d")
    assert manifest("team", spec)["spec"] == {
        "name": "A",
        "sealed": "dbs1.…",
        "description": "for CI",
        "rotateAfter": "90d",
    }


def test_an_object_can_have_another_name() -> None:
    spec = AccountSecretSpec(name="A", sealed="dbs1.…")
    assert manifest("team", spec, name="mine")["metadata"]["name"] == "mine"


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("GITHUB_TOKEN", "github-token"),
        ("A", "a"),
        ("A1_2B", "a1-2b"),
        ("A" * 253, "a" * 253),
        # Anything but uppercase words with single underscores between them gets a suffix from its SHA-256.
        ("http_proxy", "http-proxy--9bbaa0f4"),
        ("A__B", "a--b--f1350933"),
        ("_A", "a--26f5ad23"),
        ("_", "x--d2e2adf7"),
        ("a" * 253, "a" * 243 + "--32859a3a"),
    ],
)
def test_an_object_is_named_after_its_variable(variable: str, name: str) -> None:
    assert object_name(variable) == name


@given(variable=variables)
def test_every_variable_has_a_valid_object_name(variable: str) -> None:
    name = object_name(variable)
    assert OBJECT_NAME.fullmatch(name)
    assert len(name) <= 253
    assert object_name(variable) == name


@given(pair=st.lists(variables, min_size=2, max_size=2, unique=True))
@example(pair=["a", "A_CA978112"])
@example(pair=["a", "A__CA978112"])
@example(pair=["_", "D2E2ADF7"])
@example(pair=["_", "X_D2E2ADF7"])
def test_different_variables_have_different_object_names(pair: list[str]) -> None:
    assert object_name(pair[0]) != object_name(pair[1])


@pytest.mark.parametrize(
    ("variable", "names"),
    [("GITHUB_TOKEN", ["github-token", "github-token--d29e33c3"]), ("http_proxy", ["http-proxy--9bbaa0f4"])],
)
def test_a_name_without_a_hash_has_an_alternative_with_one(variable: str, names: list[str]) -> None:
    assert object_names(variable) == names
