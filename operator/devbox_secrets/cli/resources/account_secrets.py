"""Finds, applies and deletes AccountSecrets with the caller's own permissions, and describes their state."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from devbox_secrets.api.models import PENDING, AccountSecret, Condition, Reason
from devbox_secrets.api.names import ALL_ACCOUNT_SECRETS_PATH, CLI_FIELD_MANAGER, GROUP, KIND, account_secrets_path
from devbox_secrets.api.ownership import Tool, is_given_up, managing_tool, owned_fields
from devbox_secrets.api.validation import OBJECT_NAME_PATTERN, VARIABLE_PATTERN
from devbox_secrets.crypto.envelope import key_id_of
from devbox_secrets.errors import AmbiguousName, APIError, Conflict, NotFound, RequestTimeout, Unreachable
from devbox_secrets.kube.client import APPLY, MERGE, Body, Client

#: The reason of a conflict's cause in server-side apply (metav1.CauseTypeFieldManagerConflict).
_FIELD_MANAGER_CONFLICT = "FieldManagerConflict"
#: The number of attempts to apply a manifest while only the stored object's status changes.
_ATTEMPTS = 5


async def list_all(client: Client, account: str | None, field_selector: str = "") -> list[AccountSecret]:
    """List the AccountSecrets of an account, or of the whole cluster, sorted by account and variable.

    Raises:
        NotFound: the CRD isn't installed.
        APIError: the request failed.
    """
    path = account_secrets_path(account) if account else ALL_ACCOUNT_SECRETS_PATH
    with crd_installed():
        secrets, _ = await client.list_all(path, AccountSecret.parse, field_selector)
    return sorted(secrets, key=lambda secret: (secret.namespace, secret.spec.name, secret.name))


@contextmanager
def crd_installed() -> Iterator[None]:
    """Say what to do if a list of AccountSecrets doesn't exist."""
    try:
        yield
    except NotFound:
        raise NotFound(
            "the cluster has no AccountSecrets resource; install devbox-secrets, or select another context"
        ) from None


async def by_variable(client: Client, account: str, variable: str) -> AccountSecret | None:
    """Return the AccountSecret of a variable, or None.

    Raises:
        AmbiguousName: there are several.
        APIError: the request failed.
    """
    secrets = await list_all(client, account, f"spec.name={variable}")
    if len(secrets) > 1:
        names = ", ".join(secret.name for secret in secrets)
        raise AmbiguousName(
            f"{variable} has {len(secrets)} AccountSecrets in the account {account}: {names}; pass one of these names"
        )
    return secrets[0] if secrets else None


async def find(client: Client, account: str, name: str) -> AccountSecret:
    """Find an AccountSecret by its variable, or by the object's name.

    Raises:
        NotFound: there is none.
        AmbiguousName: several AccountSecrets set the variable.
        APIError: the request failed.
    """
    if re.fullmatch(VARIABLE_PATTERN, name, re.ASCII) and (secret := await by_variable(client, account, name)):
        return secret
    missing = NotFound(
        f"the account {account} has no such secret; list its secrets with: devbox-secrets list -n {account}"
    )
    if not re.fullmatch(OBJECT_NAME_PATTERN, name, re.ASCII):
        raise missing
    try:
        return AccountSecret.parse(await client.request("GET", account_secrets_path(account, name)))
    except NotFound:
        raise missing from None


async def apply(client: Client, manifest: Body, *, before: AccountSecret | None = None, force: bool) -> AccountSecret:
    """Apply a manifest with server-side apply, and return the stored object.

    Fields that kubectl or the gateway manages are taken over.

    Args:
        client: the connection.
        manifest: the AccountSecret.
        before: the stored object that the manifest is based on; None to accept any state.
        force: also take over fields that other field managers own.

    Raises:
        Conflict: a tool or an unknown field manager owns a field to change, or the spec changed in the meantime.
        APIError: the request failed.
    """
    if before and (removed := _removed_fields(manifest, before)):
        before = await _remove(client, manifest, before, removed, force=force)
    return AccountSecret.parse(await _apply(client, manifest, before, force=force))


async def dry_run(client: Client, manifest: Body, *, before: AccountSecret | None = None, force: bool) -> Body:
    """Do the same as `apply` as a server-side dry run, which stores nothing."""
    removed = _removed_fields(manifest, before) if before else {}
    if removed:
        await _removable(client, manifest, removed, force=force)
    body = await _apply(client, manifest, before, force=force, dryRun="All")
    for name in removed:
        body["spec"].pop(name, None)
    return body


def _removed_fields(manifest: Body, before: AccountSecret) -> Body:
    """Return the spec fields that the manifest no longer has, as nulls for a patch."""
    spec = before.spec.model_dump(by_alias=True, exclude_none=True)
    return dict.fromkeys(spec.keys() - manifest["spec"].keys())


async def _removable(client: Client, manifest: Body, removed: Body, *, force: bool) -> Body:
    """Return the stored object, after checking that the fields can be removed from it.

    Raises:
        Conflict: a tool or an unknown field manager owns them.
    """
    metadata = manifest["metadata"]
    body = await _current(client, account_secrets_path(metadata["namespace"], metadata["name"]), metadata["name"])
    if not force:
        _check_given_up(body, {**manifest["spec"], **removed})
    return body


async def _remove(
    client: Client, manifest: Body, before: AccountSecret, removed: Body, *, force: bool
) -> AccountSecret:
    """Remove fields with a patch, because server-side apply keeps fields that have another owner, too."""
    current = AccountSecret.parse(await _removable(client, manifest, removed, force=force))
    if (before.uid, before.generation) != (current.uid, current.generation):
        raise Conflict(f"{before.name} changed in the meantime; check it and run the command again")
    patch = {"metadata": {"resourceVersion": current.resource_version}, "spec": removed}
    query = {"fieldManager": CLI_FIELD_MANAGER}
    path = account_secrets_path(before.namespace, before.name)
    return AccountSecret.parse(
        await client.request("PATCH", path, query=query, body=patch, media_type=MERGE, quote=True)
    )


async def _apply(client: Client, manifest: Body, before: AccountSecret | None, *, force: bool, **options: str) -> Body:
    name = manifest["metadata"]["name"]
    path = account_secrets_path(manifest["metadata"]["namespace"], name)
    for _ in range(_ATTEMPTS):
        query = {**options, "force": "true"} if force else options
        try:
            return await _send(client, path, manifest if before is None else _pinned(manifest, before), query)
        except Conflict as error:
            body = await _current(client, path, name)
            current = AccountSecret.parse(body)
            if manifest["spec"].items() <= (body.get("spec") or {}).items():
                return body  # the request succeeded, but its response was lost
            if _is_about_fields(error):
                _check_given_up(body, manifest["spec"])
                before, force = before or current, True
            if before is None or (before.uid, before.generation) != (current.uid, current.generation):
                raise Conflict(f"{name} changed in the meantime; check it and run the command again") from None
            before = current  # only the status changed
    raise Conflict(f"{name} is being changed by others; run the command again")


async def _current(client: Client, path: str, name: str) -> Body:
    try:
        return await client.request("GET", path)
    except NotFound:
        raise Conflict(f"{name} was deleted in the meantime; run the command again to create it") from None


async def _send(client: Client, path: str, manifest: Body, query: Mapping[str, str]) -> Body:
    query = {"fieldManager": CLI_FIELD_MANAGER, "fieldValidation": "Strict", **query}

    async def send() -> Body:
        # The request contains no plain-text value, so the server's message can be repeated.
        return await client.request("PATCH", path, query=query, body=manifest, media_type=APPLY, quote=True)

    try:
        return await send()
    except RequestTimeout:
        raise
    except Unreachable:
        return await send()  # the connection may have been closed while the user typed the value


def _pinned(manifest: Body, before: AccountSecret) -> Body:
    return {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": before.resource_version}}


def _is_about_fields(error: Conflict) -> bool:
    return any(cause.get("reason") == _FIELD_MANAGER_CONFLICT for cause in error.details.get("causes") or ())


def _check_given_up(body: Body, spec: Body) -> None:
    """Reject taking over fields that a tool would revert, or whose field manager is unknown."""
    metadata, current = body["metadata"], body.get("spec") or {}
    owned = owned_fields(metadata, [name for name, value in spec.items() if current.get(name) != value])
    owned.pop(CLI_FIELD_MANAGER, None)
    tool = managing_tool(metadata, owned)
    others = owned if tool else {name: fields for name, fields in owned.items() if not is_given_up(name)}
    if not others:
        return
    who = tool.name if tool else f"the field manager {', '.join(others)}"
    fields = ", ".join(sorted({field for names in others.values() for field in names}))
    source = tool.source if tool else "there"
    raise Conflict(f"{who} manages {metadata['name']} ({fields}); change it {source}, or pass --force-conflicts")


async def managing_tool_of(client: Client, secret: AccountSecret) -> Tool | None:
    """Return the tool that would create a deleted AccountSecret again, such as Argo CD, or None."""
    try:
        metadata = (await client.request("GET", account_secrets_path(secret.namespace, secret.name)))["metadata"]
    except APIError:
        return None
    return managing_tool(metadata, owned_fields(metadata, ["sealed"]))


async def delete(client: Client, secret: AccountSecret) -> None:
    """Delete an AccountSecret, but not a newer one with the same name.

    Raises:
        APIError: the request failed, or the object was replaced.
    """
    body = {"preconditions": {"uid": secret.uid}}
    await client.request("DELETE", account_secrets_path(secret.namespace, secret.name), body=body, quote=True)


def ready(secret: AccountSecret) -> Condition | None:
    """Return the Ready condition of the current generation, or None until the operator has set it.

    For an invalid spec it is computed here, because the API server may reject the operator's write to the status.
    """
    if secret.invalid_spec:
        return PENDING.model_copy(
            update={"status": "False", "reason": Reason.INVALID_SPEC, "message": secret.invalid_spec}
        )
    return secret.status.ready if secret.status.observed_generation == secret.generation else None


def is_synced(secret: AccountSecret) -> bool:
    """Return whether new devboxes get the current value."""
    return not secret.invalid_spec and secret.status.is_synced(secret.generation)


def synced_text(secret: AccountSecret) -> str:
    """Return the same as text, with the reason if they don't."""
    condition = ready(secret)
    return "not yet" if condition is None else "yes" if condition.holds else f"no: {condition.reason}"


def full_name(secret: AccountSecret) -> str:
    """Return the name in kubectl's format."""
    return f"{KIND.lower()}.{GROUP}/{secret.name}"


def changes(before: AccountSecret | None, after: AccountSecret, *, dry_run: bool = False) -> Iterator[str]:
    """Yield lines that describe how an AccountSecret changed, or would change."""
    new = after.spec
    what = "created" if before is None else "changed" if before.spec != new else "unchanged"
    what = f"would be {what}" if dry_run else what
    yield f"{full_name(after)} {what} in {after.namespace}: {new.name}"
    if before is None:
        return
    old = before.spec
    if old.sealed != new.sealed:
        yield f"  sealed: new value, key {key_id_of(new.sealed)} (was {key_id_of(old.sealed)})"
    if old.description != new.description:
        yield f"  description: {_quoted(old.description)} → {_quoted(new.description)}"
    if old.rotate_after != new.rotate_after:
        yield f"  rotateAfter: {_quoted(old.rotate_after)} → {_quoted(new.rotate_after)}"


def _quoted(text: str | None) -> str:
    return "none" if text is None else repr(text)
