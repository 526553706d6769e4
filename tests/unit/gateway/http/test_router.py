"""Which endpoint serves a path and a method."""

import pytest

from devbox_secrets.gateway.contract.errors import ErrorResponse
from devbox_secrets.gateway.http.router import Match, Router, decoded_path

BY_ID, BY_NAME, DELETE_BY_NAME = "/v1/secrets/id/{id}", "/v1/secrets/{name}", "/v1/secrets/{name}/delete"
ROUTER = Router(
    [
        ("GET", BY_ID, "get by id"),
        ("GET", BY_NAME, "get by name"),
        ("POST", BY_NAME, "update by name"),
        ("POST", DELETE_BY_NAME, "delete by name"),
    ]
)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/v1/secrets/A", Match(BY_NAME, {"name": "A"}, "get by name")),
        ("POST", "/v1/secrets/A", Match(BY_NAME, {"name": "A"}, "update by name")),
        ("GET", "/v1/secrets/id", Match(BY_NAME, {"name": "id"}, "get by name")),
        ("GET", "/v1/secrets/id/delete", Match(BY_ID, {"id": "delete"}, "get by id")),
        ("POST", "/v1/secrets/id/delete", Match(DELETE_BY_NAME, {"name": "id"}, "delete by name")),
        ("GET", "/v1/secrets/A%2Fdelete", Match(BY_NAME, {"name": "A%2Fdelete"}, "get by name")),
    ],
)
def test_the_first_route_that_matches_path_and_method_is_used(method: str, path: str, expected: Match[str]) -> None:
    assert ROUTER.find(method, path) == expected


@pytest.mark.parametrize("path", ["", "/", "/v1/secrets/", "/v1/secrets/A/", "/v1/secrets/A/b", "//v1/secrets/A"])
def test_another_path_is_not_found(path: str) -> None:
    match = ROUTER.find("GET", path)
    assert match.template is None
    assert isinstance(match.endpoint, ErrorResponse)
    assert match.endpoint.status == 404


def test_the_error_for_another_method_lists_those_of_all_matching_templates() -> None:
    match = ROUTER.find("PUT", "/v1/secrets/id/delete")
    assert match.template == BY_ID
    assert isinstance(match.endpoint, ErrorResponse)
    assert (match.endpoint.status, match.endpoint.headers) == (405, {"Allow": "GET, POST"})


@pytest.mark.parametrize(
    ("raw", "path", "expected"),
    [
        (b"/v1/secrets/A", "/v1/secrets/A", "/v1/secrets/A"),
        (b"/v1/secrets/A%2Fdelete", "/v1/secrets/A/delete", "/v1/secrets/A%2Fdelete"),
        (b"/v1/secrets/%41%2fdelete", "/v1/secrets/A/delete", "/v1/secrets/A%2Fdelete"),
    ],
)
def test_an_encoded_slash_stays_in_a_name(raw: bytes, path: str, expected: str) -> None:
    assert decoded_path({"raw_path": raw, "path": path}) == expected


def test_without_a_raw_path_the_decoded_path_is_used() -> None:
    assert decoded_path({"path": "/v1/secrets/A"}) == "/v1/secrets/A"
