"""The response to each error."""

import pytest

from devbox_secrets.errors import (
    APIError,
    BadRequest,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    InvalidName,
    NotFound,
    NotReady,
    RequestTimeout,
    ServerError,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from devbox_secrets.gateway.contract.errors import (
    CODES,
    bad_request,
    error_response,
    method_not_allowed,
    not_the_home,
    restarting,
    too_many_requests,
)

STATUSES = [
    (Unauthorized, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (BadRequest, 422),
    (TooLarge, 422),
    (Invalid, 422),
    (TooManyRequests, 429),
    (Conflict, 503),
    (Expired, 503),
    (ServerError, 503),
    (NotReady, 503),
    (Unreachable, 503),
    (RequestTimeout, 503),
]


@pytest.mark.parametrize(("kind", "status"), STATUSES)
def test_an_error_of_the_api_server_has_a_status_and_is_not_quoted(kind: type[APIError], status: int) -> None:
    response = error_response(kind("canary"))
    assert response.status == status
    assert response.status in CODES
    assert "canary" not in str(response)


def test_an_error_about_a_name_or_a_value_is_returned_unchanged() -> None:
    response = error_response(InvalidName("that can't be a name"))
    assert (response.status, str(response)) == (400, "that can't be a name")


def test_an_error_response_is_returned_unchanged() -> None:
    response = bad_request("no")
    assert error_response(response) is response


def test_the_response_to_an_unauthenticated_request_names_the_scheme() -> None:
    assert error_response(Unauthorized("401")).headers == {"WWW-Authenticate": "Bearer"}


POLICIES = "the cluster rejected the secret; ask its administrators which policies apply"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            Unauthorized(""),
            "the token is invalid or has expired; create a new one with devbox-secrets apikey create",
        ),
        (
            Forbidden(""),
            (
                "the token's user isn't allowed to do this in this account; reading needs the role"
                " devbox-secrets-view, writing devbox-secrets-edit. A quota or a policy may also forbid it"
            ),
        ),
        (NotFound(""), "secret not found in this account"),
        (BadRequest(""), POLICIES),
        (TooLarge(""), POLICIES),
        (Invalid(""), POLICIES),
        (TooManyRequests("", retry_after=3), "the Kubernetes API server has too many requests; try again in 3 seconds"),
        (RequestTimeout(""), "the Kubernetes API server took too long to respond; try again in 2 seconds"),
        (
            NotReady(""),
            "the Kubernetes API server is starting and hasn't loaded the roles yet; try again in 2 seconds",
        ),
        (Unreachable(""), "the Kubernetes API server is unavailable; try again in 2 seconds"),
    ],
)
def test_an_error_of_the_api_server_says_what_to_do(error: APIError, sentence: str) -> None:
    assert str(error_response(error)) == sentence


@pytest.mark.parametrize(
    ("seconds", "delay", "headers"),
    [
        (0, "1 second", ("1", "1")),
        (0.25, "1 second", ("1", "250")),
        (1.2, "2 seconds", ("2", "1200")),
        (10_000, "60 seconds", ("60", "60000")),
    ],
)
def test_a_response_to_too_many_requests_says_when_to_retry(
    seconds: float, delay: str, headers: tuple[str, str]
) -> None:
    response = too_many_requests("Too many", seconds)
    assert (response.status, str(response)) == (429, f"Too many; try again in {delay}")
    assert response.headers == dict(zip(("Retry-After", "Retry-After-Ms"), headers, strict=True))


def test_a_temporary_failure_can_be_retried_in_two_seconds() -> None:
    assert error_response(Unreachable("")).headers == {"Retry-After": "2", "Retry-After-Ms": "2000"}


def test_a_request_on_a_closing_connection_can_be_retried_immediately() -> None:
    response = restarting()
    assert (response.status, response.headers) == (503, {"Retry-After": "1", "Retry-After-Ms": "100"})
    assert str(response) == "this connection is being closed; try again in 1 second"


def test_the_error_for_a_method_lists_the_allowed_ones() -> None:
    response = method_not_allowed({"POST", "GET"})
    assert (response.status, response.headers) == (405, {"Allow": "GET, POST"})
    assert str(response) == "method not allowed"


def test_the_error_for_another_accounts_namespace_names_the_account() -> None:
    response = not_the_home("team")
    assert (response.status, response.headers) == (422, {})
    assert str(response) == (
        "this namespace belongs to the account team; name that account in the header X-Devbox-Secrets-Account, and use"
        " a token whose user has the role devbox-secrets-edit in team"
    )


def test_a_permanent_error_has_no_time_to_retry() -> None:
    assert error_response(Forbidden("GET /: 403")).headers == {}
