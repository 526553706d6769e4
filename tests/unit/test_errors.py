"""The API server's errors, by status code."""

import pytest

from devbox_secrets.errors import APIError, Conflict, NotLeader, RequestTimeout, ServerError, Unreachable, api_error


@pytest.mark.parametrize(
    ("status", "name", "permanent"),
    [
        (400, "BadRequest", True), (401, "Unauthorized", False), (403, "Forbidden", True), (404, "NotFound", False),
        (409, "Conflict", False), (410, "Expired", False), (413, "TooLarge", True), (422, "Invalid", True),
        (429, "TooManyRequests", False), (500, "ServerError", False), (503, "ServerError", False),
    ],
)  # fmt: skip
def test_each_status_code_has_its_error_and_is_permanent_if_a_retry_does_not_help(
    status: int, name: str, permanent: bool
) -> None:
    error = api_error(status, "why")
    assert type(error).__name__ == name
    assert error.is_permanent is permanent
    assert str(error) == "why"


@pytest.mark.parametrize("kind", [Unreachable, RequestTimeout, NotLeader])
def test_without_a_response_there_is_no_status_code(kind: type[APIError]) -> None:
    assert kind("why").status == 0
    assert not kind("why").is_permanent


def test_an_error_has_the_details_of_the_server() -> None:
    details = {"kind": "clusterroles", "causes": [{"reason": "FieldManagerConflict"}]}
    error = api_error(409, "why", details)
    assert isinstance(error, Conflict)
    assert error.details == details
    assert ServerError("why").details == {}
