"""Which response each error becomes."""

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
    RequestTimeout,
    ServerError,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from devbox_secrets.gateway.contract.errors import CODES, ErrorResponse, bad_request, error_response, too_many_requests

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
    (Unreachable, 503),
    (RequestTimeout, 503),
]


@pytest.mark.parametrize(("kind", "status"), STATUSES)
def test_an_error_of_the_api_server_has_a_status_and_none_of_its_words(kind: type[APIError], status: int) -> None:
    response = error_response(kind("canary"))
    assert response.status == status
    assert response.status in CODES
    assert "canary" not in str(response)


def test_what_is_wrong_with_a_name_or_a_value_is_told_as_it_is() -> None:
    response = error_response(InvalidName("that can't be a name"))
    assert (response.status, str(response)) == (400, "that can't be a name")


def test_a_response_stays_as_it_is() -> None:
    response = bad_request("no")
    assert error_response(response) is response


def test_who_is_not_authenticated_is_told_how_to() -> None:
    assert error_response(Unauthorized("401")).headers == {"WWW-Authenticate": "Bearer"}


@pytest.mark.parametrize(
    ("rejected", "status", "sentence", "headers"),
    [
        (too_many_requests("Too many", 0.25), 429, "Too many; try again in 1 second", ("1", "250")),
        (too_many_requests("Too many", 1.2), 429, "Too many; try again in 2 seconds", ("2", "1200")),
        (too_many_requests("Too many", 10_000), 429, "Too many; try again in 60 seconds", ("60", "60000")),
        (too_many_requests("Too many", 0), 429, "Too many; try again in 1 second", ("1", "1")),
        (
            error_response(TooManyRequests("GET /: 429", retry_after=3)),
            429,
            "the Kubernetes API server has too many requests; try again in 3 seconds",
            ("3", "3000"),
        ),
        (
            error_response(RequestTimeout("GET /")),
            503,
            "the Kubernetes API server took too long to respond; try again in 2 seconds",
            ("2", "2000"),
        ),
        (
            error_response(Unreachable("GET /: ClientConnectorError")),
            503,
            "the Kubernetes API server is unavailable; try again in 2 seconds",
            ("2", "2000"),
        ),
    ],
)
def test_a_retryable_error_says_when_to_retry(
    rejected: ErrorResponse, status: int, sentence: str, headers: tuple[str, str]
) -> None:
    assert (rejected.status, str(rejected)) == (status, sentence)
    assert rejected.headers == dict(zip(("Retry-After", "Retry-After-Ms"), headers, strict=True))


def test_a_permanent_error_says_no_time() -> None:
    assert error_response(Forbidden("GET /: 403")).headers == {}
