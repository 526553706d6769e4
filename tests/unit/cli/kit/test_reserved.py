"""Reserved names: which are rejected, the message, and the exceptions."""

import pytest

from devbox_secrets.cli.kit.reserved import check_not_reserved
from devbox_secrets.errors import ReservedName


@pytest.mark.parametrize("variable", ["PATH", "LD_PRELOAD", "npm_config_registry", "NPM_CONFIG_X"])
def test_a_reserved_name_is_rejected(variable: str) -> None:
    with pytest.raises(ReservedName) as caught:
        check_not_reserved(variable, allow=False)
    assert str(caught.value) == (
        f"{variable} is reserved because it could run code in every devbox or break it; choose another name, and set"
        " this one inside the devbox if a program needs it, or pass --allow-reserved if this cluster's operator"
        " allows it"
    )


@pytest.mark.parametrize(
    ("variable", "allow", "existing_ready"),
    [("PATH", True, False), ("PATH", False, True), ("GITHUB_TOKEN", False, False), ("NPM_TOKEN", False, False)],
    ids=["allowed by the caller", "accepted by the operator", "not reserved", "not reserved either"],
)
def test_other_names_are_accepted(variable: str, allow: bool, existing_ready: bool) -> None:
    check_not_reserved(variable, allow=allow, existing_ready=existing_ready)
