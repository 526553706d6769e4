"""Finds, applies and deletes AccountSecrets with the caller's own rights, and describes their state."""

import re
from collections.abc import Iterator, Mapping

from devbox_secrets.api.models import PENDING, AccountSecret, Condition, Reason
from devbox_secrets.api.names import ALL_ACCOUNT_SECRETS_PATH, CLI_FIELD_MANAGER, GROUP, KIND, account_secrets_path
from devbox_secrets.api.ownership import Tool, is_given_up, managing_tool, owned_fields
from devbox_secrets.api.validation import OBJECT_NAME_PATTERN, VARIABLE_PATTERN
from devbox_secrets.crypto.envelope import key_id_of
from devbox_secrets.errors import AmbiguousName, APIError, Conflict, NotFound, RequestTimeout, Unreachable
from devbox_secrets.kube.client import APPLY, MERGE, Body, Client

#: The reason of a cause of a Conflict, in server-side apply (metav1.CauseTypeFieldManagerConflict).
_FIELD_MANAGER_CONFLICT = "FieldManagerConflict"
#: How often a manifest is applied again while only the status of what is stored changes.
_ATTEMPTS = 5


async def list_all(client: Client, account: str | None, field_selector: str = "") -> list[AccountSecret]:
    """List an account's AccountSecrets, or without one the whole cluster's, by account and variable.

    Raises:
        NotFound: the cluster has no such kind.
        APIError: they can't be read.
    """
    try:
        path = account_secrets_path(account) if account else ALL_ACCOUNT_SECRETS_PATH
        secrets, _ = await client.list_all(path, AccountSecret.parse, field_selector)
    except NotFound:
        raise NotFound(
            "this cluster knows no AccountSecrets: devbox-secrets isn't installed there, or it's another one"
        ) from None
    return sorted(secrets, key=lambda secret: (secret.namespace, secret.spec.name, secret.name))


async def by_variable(client: Client, account: str, variable: str) -> AccountSecret | None:
    """Find the one AccountSecret of a variable, None where there is none.

    Raises:
        AmbiguousName: there are several.
        APIError: they can't be read.
    """
    secrets = await list_all(client, account, f"spec.name={variable}")
    if len(secrets) > 1:
        names = ", ".join(secret.name for secret in secrets)
        raise AmbiguousName(
            f"{variable} has {len(secrets)} AccountSecrets in the account {account}: {names}; say which by that name"
        )
    return secrets[0] if secrets else None


async def find(client: Client, account: str, name: str) -> AccountSecret:
    """Find an AccountSecret by its variable, or else by its object's name.

    Raises:
        NotFound: there is none.
        AmbiguousName: several have the variable.
        APIError: they can't be read.
    """
    if re.fullmatch(VARIABLE_PATTERN, name, re.ASCII) and (secret := await by_variable(client, account, name)):
        return secret
    missing = NotFound(
        f"the account {account} has no AccountSecret of that name; see those it has: devbox-secrets list -n {account}"
    )
    if not re.fullmatch(OBJECT_NAME_PATTERN, name, re.ASCII):
        raise missing
    try:
        return AccountSecret.parse(await client.request("GET", account_secrets_path(account, name)))
    except NotFound:
        raise missing from None


async def apply(client: Client, manifest: Body, *, before: AccountSecret | None = None, force: bool) -> AccountSecret:
    """Apply a manifest on the server's side, and give what is stored then.

    What a person's own kubectl or the gateway owns is taken over.

    Args:
        client: the connection.
        manifest: the AccountSecret.
        before: what the manifest was made from; None where it may be in any state.
        force: take over what other field managers own as well.

    Raises:
        Conflict: a tool or an unknown field manager owns what would change, or someone changed the spec meanwhile.
        APIError: it's refused.
    """
    if before and (removed := _removed_fields(manifest, before)):
        before = await _remove(client, manifest, before, removed, force=force)
    return AccountSecret.parse(await _apply(client, manifest, before, force=force))


async def dry_run(client: Client, manifest: Body, *, before: AccountSecret | None = None, force: bool) -> Body:
    """Ask the API server what it would store; the same as `apply`, but nothing is stored."""
    removed = _removed_fields(manifest, before) if before else {}
    if removed:
        await _removable(client, manifest, removed, force=force)
    body = await _apply(client, manifest, before, force=force, dryRun="All")
    for name in removed:
        body["spec"].pop(name, None)
    return body


def _removed_fields(manifest: Body, before: AccountSecret) -> Body:
    """Give the fields of the spec that the manifest has no more, each as null in a patch."""
    spec = before.spec.model_dump(by_alias=True, exclude_none=True)
    return dict.fromkeys(spec.keys() - manifest["spec"].keys())


async def _removable(client: Client, manifest: Body, removed: Body, *, force: bool) -> Body:
    """Give the stored object, whose fields may be removed.

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
    """Remove fields; server-side apply leaves those that someone else owns as well."""
    current = AccountSecret.parse(await _removable(client, manifest, removed, force=force))
    if (before.uid, before.generation) != (current.uid, current.generation):
        raise Conflict(f"someone changed {before.name} meanwhile; look at it, and run this again")
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
                return body  # the request was done, and not answered
            if _is_about_fields(error):
                _check_given_up(body, manifest["spec"])
                before, force = before or current, True
            if before is None or (before.uid, before.generation) != (current.uid, current.generation):
                raise Conflict(f"someone changed {name} meanwhile; look at it, and run this again") from None
            before = current  # the operator writes the status, which is no change of the spec
    raise Conflict(f"others change {name} at the same time; run this again")


async def _current(client: Client, path: str, name: str) -> Body:
    try:
        return await client.request("GET", path)
    except NotFound:
        raise Conflict(f"someone deleted {name} meanwhile; run this again to create it") from None


async def _send(client: Client, path: str, manifest: Body, query: Mapping[str, str]) -> Body:
    query = {"fieldManager": CLI_FIELD_MANAGER, "fieldValidation": "Strict", **query}

    async def send() -> Body:
        # No value is in it: the server's own words can be repeated.
        return await client.request("PATCH", path, query=query, body=manifest, media_type=APPLY, quote=True)

    try:
        return await send()
    except RequestTimeout:
        raise
    except Unreachable:
        return await send()  # the connection may have been closed while a person typed the value


def _pinned(manifest: Body, before: AccountSecret) -> Body:
    return {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": before.resource_version}}


def _is_about_fields(error: Conflict) -> bool:
    return any(cause.get("reason") == _FIELD_MANAGER_CONFLICT for cause in error.details.get("causes") or ())


def _check_given_up(body: Body, spec: Body) -> None:
    """Refuse to take over fields that a tool would put back, or whose field manager isn't known."""
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
    """Give the tool that would create a deleted AccountSecret again, such as Argo CD; None where none is known."""
    try:
        metadata = (await client.request("GET", account_secrets_path(secret.namespace, secret.name)))["metadata"]
    except APIError:
        return None
    return managing_tool(metadata, owned_fields(metadata, ["sealed"]))


async def delete(client: Client, secret: AccountSecret) -> None:
    """Delete an AccountSecret; not another one that has its name by now.

    Raises:
        APIError: it can't be deleted, or is another one.
    """
    body = {"preconditions": {"uid": secret.uid}}
    await client.request("DELETE", account_secrets_path(secret.namespace, secret.name), body=body, quote=True)


def ready(secret: AccountSecret) -> Condition | None:
    """Give what the operator says of the current generation, None until it has.

    Of a spec that can't be read it may be unable to say anything: the API server may refuse that object's status.
    """
    if secret.invalid_spec:
        return PENDING.model_copy(
            update={"status": "False", "reason": Reason.INVALID_SPEC, "message": secret.invalid_spec}
        )
    return secret.status.ready if secret.status.observed_generation == secret.generation else None


def is_synced(secret: AccountSecret) -> bool:
    """Tell whether new devboxes get the current value."""
    return not secret.invalid_spec and secret.status.is_synced(secret.generation)


def synced_text(secret: AccountSecret) -> str:
    """Tell the same in words, with the reason why not."""
    condition = ready(secret)
    return "not yet" if condition is None else "yes" if condition.holds else f"no: {condition.reason}"


def full_name(secret: AccountSecret) -> str:
    """Name it as kubectl does."""
    return f"{KIND.lower()}.{GROUP}/{secret.name}"


def changes(before: AccountSecret | None, after: AccountSecret, *, dry_run: bool = False) -> Iterator[str]:
    """Say what became of an AccountSecret, or would become, one line each."""
    new = after.spec
    what = "created" if before is None else "changed" if before.spec != new else "unchanged"
    what = f"would be {what}" if dry_run else what
    yield f"{full_name(after)} {what} in {after.namespace}: {new.name}"
    if before is None:
        return
    old = before.spec
    if old.sealed != new.sealed:
        yield f"  sealed: a new text, with the key {key_id_of(new.sealed)} (before: {key_id_of(old.sealed)})"
    if old.description != new.description:
        yield f"  description: {_quoted(old.description)} → {_quoted(new.description)}"
    if old.rotate_after != new.rotate_after:
        yield f"  rotateAfter: {_quoted(old.rotate_after)} → {_quoted(new.rotate_after)}"


def _quoted(text: str | None) -> str:
    return "none" if text is None else repr(text)
