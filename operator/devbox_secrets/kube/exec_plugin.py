"""Runs a kubeconfig's exec plugin: a program that returns credentials (client.authentication.k8s.io).

As with kubectl, the user sees its standard error, where it may say how to log in. Its standard output is never shown.
"""

import asyncio
import base64
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime, Field, ValidationError
from pydantic.alias_generators import to_camel

from devbox_secrets.errors import ConfigError
from devbox_secrets.kube.kubeconfig import Target
from devbox_secrets.kube.kubeconfig_file import Cluster, ExecPlugin, Fields
from devbox_secrets.kube.tls import read_authority

_CLUSTER_CONFIG = "client.authentication.k8s.io/exec"
_KIND = "ExecCredential"
#: uvloop can't start processes from two loops at once, and the operator has two.
_STARTING = threading.Lock()
_RETRY_SECONDS = 0.005


class Credential(Fields, alias_generator=to_camel):
    """The credentials that a plugin returned."""

    token: str = Field(default="", repr=False)
    client_certificate_data: str = ""
    client_key_data: str = Field(default="", repr=False)
    expiration_timestamp: AwareDatetime | None = None


class _Output(Fields, alias_generator=to_camel):
    api_version: str = ""
    kind: str = ""
    status: Credential = Credential()


async def run(target: Target, plugin: ExecPlugin) -> Credential:
    """Run the plugin, which may ask the user for input if there is a terminal.

    Raises:
        ConfigError: it isn't installed, fails, or returns no credentials.
    """
    name = Path(plugin.command).name
    program = shutil.which(plugin.command)
    if program is None:
        hint = "".join(each if each.isprintable() or each.isspace() else " " for each in plugin.install_hint).strip()
        found = "is missing or not executable" if os.sep in plugin.command else "isn't in PATH"
        sentence = f"the exec plugin {plugin.command} of the {target.name} {found}"
        raise ConfigError(f"{sentence}; {hint}" if hint else sentence)
    interactive = plugin.interactive_mode != "Never" and sys.stdin is not None and sys.stdin.isatty()
    if plugin.interactive_mode == "Always" and not interactive:
        raise ConfigError(f"the exec plugin {name} of the {target.name} needs a terminal on standard input")
    env = os.environ | {each.name: each.value for each in plugin.env}
    env["KUBERNETES_EXEC_INFO"] = json.dumps(_exec_info(target, plugin, interactive=interactive), default=str)
    try:
        _check_whole([*plugin.args, *env.values()])
        async with _only_one():
            process = await asyncio.create_subprocess_exec(
                program, *plugin.args, env=env, stdout=asyncio.subprocess.PIPE,
                stdin=None if interactive else asyncio.subprocess.DEVNULL,
            )  # fmt: skip
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "an argument or a variable contains a NUL"
        raise ConfigError(f"cannot run the exec plugin {name} of the {target.name}: {reason}") from None
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:  # nobody is waiting for it anymore
            process.kill()
    if process.returncode:
        how = f"failed with exit code {process.returncode}"
        if process.returncode < 0:
            how = f"was terminated by signal {-process.returncode} ({signal.strsignal(-process.returncode)})"
        raise ConfigError(f"the exec plugin {name} of the {target.name} {how}")
    credential = _parse(output, plugin.api_version)
    if credential is None:
        raise ConfigError(
            f"the exec plugin {name} of the {target.name} returned no {_KIND} of {plugin.api_version} with a token"
            " or a client certificate and key"
        )
    return credential


def _check_whole(texts: Iterable[str]) -> None:
    """Raise ValueError, as asyncio does, for a text with a NUL: uvloop would cut it off there."""
    if any("\0" in text for text in texts):
        raise ValueError


@asynccontextmanager
async def _only_one() -> AsyncIterator[None]:
    """Wait until no loop of this process starts a plugin, without blocking this loop."""
    while not _STARTING.acquire(blocking=False):  # noqa: ASYNC110 - the other loop runs in another thread
        await asyncio.sleep(_RETRY_SECONDS)
    try:
        yield
    finally:
        _STARTING.release()


def _parse(output: bytes, api_version: str) -> Credential | None:
    try:
        found = _Output.model_validate(json.loads(output))
    except (ValueError, ValidationError, RecursionError):
        return None
    status = found.status
    whole = bool(status.client_certificate_data) == bool(status.client_key_data)
    gives = status.token or status.client_key_data
    return status if (found.api_version, found.kind) == (api_version, _KIND) and whole and gives else None


def _exec_info(target: Target, plugin: ExecPlugin, *, interactive: bool) -> dict[str, Any]:
    spec: dict[str, Any] = {"interactive": interactive}
    if plugin.provide_cluster_info:
        spec["cluster"] = _cluster_info(target.cluster)
    return {"apiVersion": plugin.api_version, "kind": _KIND, "spec": spec}


def _cluster_info(cluster: Cluster) -> dict[str, Any]:
    info = {
        "server": cluster.server,
        "tls-server-name": cluster.tls_server_name,
        "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
        "certificate-authority-data": base64.b64encode(read_authority(cluster)).decode(),
        "proxy-url": cluster.proxy_url,
        "disable-compression": cluster.disable_compression,
        "config": next((each.extension for each in cluster.extensions if each.name == _CLUSTER_CONFIG), None),
    }
    return {name: value for name, value in info.items() if value}
