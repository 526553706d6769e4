"""The models of response bodies, from which the OpenAPI document is generated. Pure."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from devbox_secrets.gateway.contract.errors import CODES
from devbox_secrets.gateway.contract.ids import ID_PATTERN

Milliseconds = Annotated[int, Field(description="Milliseconds since 1970, UTC.", json_schema_extra={"format": "int64"})]


class ResponseBody(BaseModel):
    """The JSON object in a response."""

    model_config = ConfigDict(frozen=True)


class SecretView(ResponseBody):
    """A secret without its value."""

    id: Annotated[
        str,
        Field(description="Stays the same until the secret is deleted.", json_schema_extra={"pattern": ID_PATTERN}),
    ]
    name: Annotated[str, Field(description="The environment variable's name, unique in the account.")]
    create_time_ms: Milliseconds
    update_time_ms: Annotated[
        Milliseconds, Field(description="When the value was last set, in milliseconds since 1970, UTC.")
    ]


class SecretListView(ResponseBody):
    """A page of an account's secrets, newest first."""

    secrets: list[SecretView]
    has_more: Annotated[
        bool, Field(description="Whether there are older secrets; pass the last `id` as `starting_after` to get them.")
    ]
    total_count: Annotated[int, Field(ge=0, description="How many secrets the account has.")]


class ErrorView(ResponseBody):
    """An error. It repeats nothing from the request."""

    message: Annotated[str, Field(description="What is wrong, for people.")]
    code: Annotated[str, Field(description="The status as a word.", json_schema_extra={"enum": [*CODES.values()]})]
