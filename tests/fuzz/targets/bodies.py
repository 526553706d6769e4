"""The gateway's requests: an accepted body has the contract's fields, and each id has only one accepted text."""

from pydantic import SecretStr
from pydantic_core import from_json

from devbox_secrets.api.validation import check_value, check_variable
from devbox_secrets.errors import InvalidName, InvalidValue, ValueTooLarge
from devbox_secrets.gateway.contract.errors import ErrorResponse
from devbox_secrets.gateway.contract.ids import SecretId
from devbox_secrets.gateway.contract.requests import Body, Creation, Nothing, Update, parse_body, to_bytes
from fuzz.targets.errors import check_error

_MODELS: tuple[type[Body], ...] = (Creation, Update, Nothing)


def check(data: bytes) -> None:
    """Check one request; the first byte selects its kind."""
    which, raw = int.from_bytes(data[:1]) % (len(_MODELS) + 1), data[1:]
    if which == len(_MODELS):
        _check_id(raw.decode(errors="surrogateescape"))
    else:
        _check_body(raw, _MODELS[which])


def _check_body(raw: bytes, model: type[Body]) -> None:
    found = _read(raw)
    try:
        body = parse_body(raw, model)
    except ErrorResponse as error:
        check_error(error, *_texts(found))
        if "duplicate" not in str(error):
            _check_rejected(found, model)
        return
    fields = {name: _plain(value) for name, value in body}
    if _is_text("".join(fields.values())):  # the other parser rejects unpaired surrogates
        assert found == fields or (model is Nothing and not raw.strip()), "the body was parsed differently"
    try:
        check_variable(fields.get("name", "A"))
        check_value("A", to_bytes(SecretStr(fields.get("value", ""))))
    except (InvalidName, InvalidValue, ValueTooLarge) as error:
        check_error(error, fields.get("value", ""))


def _check_id(text: str) -> None:
    if found := SecretId.parse(text):
        assert SecretId(found.created_ms, found.uid, found.name).text == text


def _texts(found: object) -> list[str]:
    return [each for each in [*found, *found.values()] if isinstance(each, str)] if isinstance(found, dict) else []


def _read(raw: bytes) -> object:
    """Parse JSON with a parser that the product doesn't use."""
    try:
        return from_json(raw, allow_inf_nan=False)
    except ValueError:
        return None


def _check_rejected(found: object, model: type[Body]) -> None:
    is_valid = isinstance(found, dict) and found.keys() == model.model_fields.keys()
    assert not (is_valid and len(_texts(found)) == 2 * len(model.model_fields)), "a valid body was rejected"


def _plain(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _is_text(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
