"""One kubeconfig: reading the file, and its fields about API servers and users.

Fields that kubectl ignores are ignored. No message repeats a file's content, except names of its entries.
"""

import base64
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from devbox_secrets.errors import ConfigError


def _decode(text: object) -> bytes:
    if isinstance(text, bytes):
        return text  # not from a file
    try:
        return base64.b64decode("".join(str(text).split()), validate=True)
    except ValueError:
        raise ValueError("isn't base64") from None


Data = Annotated[bytes, BeforeValidator(_decode)]


class Fields(BaseModel):
    """Fields of a file; null means that a field isn't set."""

    model_config = ConfigDict(
        frozen=True,
        validate_by_name=True,
        hide_input_in_errors=True,
        alias_generator=lambda name: name.replace("_", "-"),
    )

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, fields: Any) -> Any:  # noqa: ANN401 - whatever the file contains
        return {key: each for key, each in fields.items() if each is not None} if isinstance(fields, dict) else fields


class _Variable(Fields):
    name: str = ""
    value: str = ""


class ExecPlugin(Fields):
    """A program that returns credentials."""

    model_config = ConfigDict(alias_generator=to_camel)

    command: str = ""
    args: tuple[str, ...] = ()
    env: tuple[_Variable, ...] = ()
    api_version: str = ""
    install_hint: str = ""
    provide_cluster_info: StrictBool = False
    interactive_mode: Literal["", "Never", "IfAvailable", "Always"] = ""


class _AuthProvider(Fields):
    name: str = ""


class _Extension(Fields):
    name: str = ""
    extension: object = None


class Cluster(Fields):
    """The API server's address, and how to verify its identity."""

    server: str = ""
    tls_server_name: str = ""
    insecure_skip_tls_verify: StrictBool = False
    certificate_authority: str = ""
    certificate_authority_data: Data = b""
    proxy_url: str = Field(default="", repr=False)
    disable_compression: StrictBool = False
    extensions: tuple[_Extension, ...] = ()


class User(Fields):
    """The user and their credentials."""

    client_certificate: str = ""
    client_certificate_data: Data = b""
    client_key: str = ""
    client_key_data: Data = Field(default=b"", repr=False)
    token: str = Field(default="", repr=False)
    token_file: str = Field(default="", validation_alias="tokenFile")
    username: str = ""
    password: str = Field(default="", repr=False)
    exec: ExecPlugin | None = None
    auth_provider: _AuthProvider | None = None
    as_: str = Field(default="", validation_alias="as")
    as_uid: str = ""
    as_groups: tuple[str, ...] = ()
    as_user_extra: Mapping[str, tuple[str, ...]] = {}


class Context(Fields):
    """A cluster, a user and a namespace."""

    cluster: str = ""
    user: str = ""
    namespace: str = ""


class _NamedCluster(Fields):
    name: str = ""
    cluster: Cluster = Cluster()


class _NamedUser(Fields):
    name: str = ""
    user: User = User()


class _NamedContext(Fields):
    name: str = ""
    context: Context = Context()


class KubeconfigFile(Fields):
    """The content of one file."""

    api_version: Literal["", "v1"] = Field(default="", validation_alias="apiVersion")
    kind: Literal["", "Config"] = ""
    current_context: str = ""
    clusters: tuple[_NamedCluster, ...] = ()
    users: tuple[_NamedUser, ...] = ()
    contexts: tuple[_NamedContext, ...] = ()


def read_file(path: Path) -> KubeconfigFile | None:
    """Read a file; None if it doesn't exist.

    Raises:
        ConfigError: it can't be read or is invalid; the message says where.
    """
    try:
        with path.open("rb") as file:
            # Like kubectl, only the first of several documents.
            content = next(iter(yaml.safe_load_all(file)), None)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"cannot read the kubeconfig {path}: {error.strerror}") from None
    except Exception as error:  # noqa: BLE001 - pyyaml raises any exception, such as KeyError for `!!bool x`
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "it"
        raise ConfigError(f"the kubeconfig {path} is invalid: {where} isn't valid YAML") from None
    if content is not None and not isinstance(content, dict):
        raise ConfigError(f"the kubeconfig {path} is invalid: it isn't a mapping")
    try:
        found = KubeconfigFile.model_validate(content or {})
    except ValidationError as error:
        raise ConfigError(f"the kubeconfig {path} is invalid: {_first_problem(error)}") from None
    for kind, entries in (("clusters", found.clusters), ("users", found.users), ("contexts", found.contexts)):
        if (name := _first_twice(each.name for each in entries)) is not None:
            raise ConfigError(f"the kubeconfig {path} is invalid: two of its {kind} have the name {name or '(empty)'}")
    return found


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    where = "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in first["loc"]).removeprefix(".")
    text = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return f"{where} {text.partition(' or instance of')[0].replace('tuple', 'list')}"


def _first_twice(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
