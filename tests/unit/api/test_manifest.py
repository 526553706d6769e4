"""The manifest that people apply, and the name it gives the object."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from devbox_secrets.api.manifest import manifest, object_name, object_names
from devbox_secrets.api.models import AccountSecretSpec
from devbox_secrets.api.validation import VARIABLE_PATTERN

# RFC 1123's subdomain, as Kubernetes has it.
OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
alike = st.from_regex(r"[A-Ca-c_][A-Ca-c0-1_]{0,6}", fullmatch=True)
variables = alike | st.from_regex(VARIABLE_PATTERN, fullmatch=True).filter(lambda name: len(name) <= 253)


def test_a_manifest_has_what_was_given_and_nothing_else() -> None:
    spec = AccountSecretSpec(name="GITHUB_TOKEN", sealed="dbs1.…")
    assert manifest("team", spec) == {
        "apiVersion": "devbox-secrets.dev/v1beta1",
        "kind": "AccountSecret",
        "metadata": {"name": "github-token", "namespace": "team"},
        "spec": {"name": "GITHUB_TOKEN", "sealed": "dbs1.…"},
    }


def test_a_manifest_has_the_api_s_names_of_what_is_optional() -> None:
    spec = AccountSecretSpec(name="A", sealed="dbs1.…", description="for CI", rotate_after="90d")
    assert manifest("team", spec)["spec"] == {
        "name": "A",
        "sealed": "dbs1.…",
        "description": "for CI",
        "rotateAfter": "90d",
    }


def test_an_object_can_have_a_name_of_its_own() -> None:
    spec = AccountSecretSpec(name="A", sealed="dbs1.…")
    assert manifest("team", spec, name="mine")["metadata"]["name"] == "mine"


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("GITHUB_TOKEN", "github-token"),
        ("A", "a"),
        ("A1_2B", "a1-2b"),
        ("A" * 253, "a" * 253),
        # What isn't plain capitals, single underscores between them, ends in a piece of its SHA-256.
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
def test_every_variable_gives_a_name_that_kubernetes_takes(variable: str) -> None:
    name = object_name(variable)
    assert OBJECT_NAME.fullmatch(name)
    assert len(name) <= 253
    assert object_name(variable) == name


@given(pair=st.lists(variables, min_size=2, max_size=2, unique=True))
@example(pair=["a", "A_CA978112"])
@example(pair=["a", "A__CA978112"])
@example(pair=["_", "D2E2ADF7"])
@example(pair=["_", "X_D2E2ADF7"])
def test_two_variables_never_give_the_same_name(pair: list[str]) -> None:
    assert object_name(pair[0]) != object_name(pair[1])


@pytest.mark.parametrize(
    ("variable", "names"),
    [("GITHUB_TOKEN", ["github-token", "github-token--d29e33c3"]), ("http_proxy", ["http-proxy--9bbaa0f4"])],
)
def test_where_the_first_name_is_taken_there_is_a_second_with_a_piece_of_the_hash(
    variable: str, names: list[str]
) -> None:
    assert object_names(variable) == names
