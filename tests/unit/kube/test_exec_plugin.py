"""Exec plugins: their input, their output, and the errors of those that fail."""

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import uvloop

from devbox_secrets.errors import ConfigError
from devbox_secrets.kube import exec_plugin
from devbox_secrets.kube.exec_plugin import Credential
from devbox_secrets.kube.kubeconfig import Target
from devbox_secrets.kube.kubeconfig_file import Cluster, ExecPlugin, User

CANARY = "canary-7d21"
V1 = "client.authentication.k8s.io/v1"
NOTHING = f"returned no ExecCredential of {V1} with a token or a client certificate and key"


def credential(**status: object) -> dict[str, Any]:
    return {"apiVersion": V1, "kind": "ExecCredential", "status": status}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Return a plugin that writes its input to files, and prints the file `output`."""
    path = tmp_path / "login"
    path.write_text(
        '#!/bin/sh\ncd "$(dirname "$0")"\necho "$1 $X" > arguments\necho "$KUBERNETES_EXEC_INFO" > info\n'
        'cat > stdin\ncat output\nexit "$(cat code)"\n'
    )
    path.chmod(0o700)
    (tmp_path / "code").write_text("0")
    (tmp_path / "output").write_text(json.dumps(credential(token="t")))  # noqa: S106 - only for tests
    return path


async def run(command: Path | str, cluster: Mapping[str, Any] | None = None, **fields: Any) -> Credential:  # noqa: ANN401 - a plugin's
    given = {"command": str(command), "apiVersion": V1, "interactiveMode": "IfAvailable", **fields}
    target = Target("context dev", Cluster(server="https://one.example").model_copy(update=cluster), User())
    return await exec_plugin.run(target, ExecPlugin.model_validate(given))


async def failure(command: Path | str, **fields: Any) -> str:  # noqa: ANN401 - a plugin's
    with pytest.raises(ConfigError) as caught:
        await run(command, **fields)
    assert CANARY not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return str(caught.value)


async def test_a_plugin_gets_its_arguments_and_variables_and_no_input(program: Path) -> None:
    found = await run(program, args=["a b"], env=[{"name": "X", "value": "y"}])
    assert found.token == "t"  # noqa: S105 - only for tests
    assert program.with_name("arguments").read_text() == "a b y\n"
    assert program.with_name("stdin").read_bytes() == b""
    info = json.loads(program.with_name("info").read_text())
    assert info == {"apiVersion": V1, "kind": "ExecCredential", "spec": {"interactive": False}}


async def test_a_plugin_gets_the_cluster_if_it_is_configured_to(program: Path, tmp_path: Path) -> None:
    (tmp_path / "ca").write_bytes(b"certificate")
    cluster = Cluster.model_validate(
        {
            "server": "https://one.example", "certificate-authority": str(tmp_path / "ca"), "tls-server-name": "two",
            "extensions": [
                {"name": "other", "extension": 1},
                {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "x"}},
            ],
        }
    )  # fmt: skip
    await run(program, dict(cluster), provideClusterInfo=True)
    assert json.loads(program.with_name("info").read_text())["spec"]["cluster"] == {
        "server": "https://one.example",
        "certificate-authority-data": "Y2VydGlmaWNhdGU=",
        "tls-server-name": "two",
        "config": {"audience": "x"},
    }


async def test_a_plugin_can_prompt_the_user_on_a_terminal(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main, terminal = os.openpty()
    saved = os.dup(0)
    os.write(main, b"yes\n\x04")
    os.dup2(terminal, 0)
    try:
        monkeypatch.setattr("sys.stdin", os.fdopen(0, closefd=False))
        await run(program, interactiveMode="Always")
    finally:
        os.dup2(saved, 0)
        for each in (main, terminal, saved):
            os.close(each)
    assert program.with_name("stdin").read_bytes() == b"yes\n"
    assert json.loads(program.with_name("info").read_text())["spec"]["interactive"]


@pytest.mark.parametrize(
    "output",
    [
        b"", b"\xff", CANARY.encode(), b"[]", b"null", b"{}", b"[" * 100_000,
        *[
            json.dumps(each).encode()
            for each in (
                credential(), credential(token=""), credential(token=7), credential(clientKeyData=CANARY),
                {**credential(), "status": None}, credential(token=CANARY, clientCertificateData="c"),
                credential(token=CANARY, expirationTimestamp="soon"),
                credential(token=CANARY, expirationTimestamp="2026-01-01T00:00:00"),
                {**credential(token=CANARY), "apiVersion": f"{V1}beta1"}, {**credential(token=CANARY), "kind": "Other"},
            )
        ],
    ],
)  # fmt: skip
async def test_incomplete_output_is_rejected_without_showing_it(program: Path, output: bytes) -> None:
    program.with_name("output").write_bytes(output)
    assert await failure(program) == f"the exec plugin login of the context dev {NOTHING}"


async def test_a_credential_is_not_printed() -> None:
    assert CANARY not in repr(Credential(token=CANARY, client_key_data=CANARY))


async def test_a_plugin_that_fails_is_reported_with_its_exit_code(program: Path) -> None:
    program.with_name("code").write_text("7")
    program.with_name("output").write_text(json.dumps(credential(token=CANARY)))
    assert await failure(program) == "the exec plugin login of the context dev failed with exit code 7"


async def test_a_plugin_that_was_killed_is_reported_with_its_signal(program: Path) -> None:
    replace(program, "kill -9 $$")
    assert await failure(program) == "the exec plugin login of the context dev was terminated by signal 9 (Killed)"


async def test_a_plugin_is_terminated_when_its_task_is_canceled(program: Path) -> None:
    replace(program, 'echo $$ > "$0.new"; mv "$0.new" "$0.pid"; exec sleep 600')
    task = asyncio.create_task(run(program))
    file = program.with_name("login.pid")
    await asyncio.to_thread(until, file.exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    process = Path("/proc", file.read_text().strip())
    await asyncio.to_thread(until, lambda: not process.exists())


def replace(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.005)


async def test_a_plugin_that_needs_a_terminal_is_not_run_without_one(program: Path) -> None:
    wanted = "the exec plugin login of the context dev needs a terminal on standard input"
    assert await failure(program, interactiveMode="Always") == wanted
    assert not program.with_name("info").exists()


async def test_a_missing_plugin_is_reported_with_its_install_hint(tmp_path: Path) -> None:
    hint = "\n  Install it:\n\x1b[1mbrew\x07 install it\n"
    wanted = "the exec plugin no-such-login of the context dev isn't in PATH"
    assert await failure("no-such-login") == wanted
    assert await failure("no-such-login", installHint=hint) == f"{wanted}; Install it:\n [1mbrew  install it"
    (tmp_path / "file").touch(mode=0o600)
    wanted = f"the exec plugin {tmp_path}/file of the context dev is missing or not executable"
    assert await failure(tmp_path / "file") == wanted


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"args": ["a\0b"]}, "an argument or a variable contains a NUL"),
        ({"env": [{"name": "A", "value": "\0"}]}, "an argument or a variable contains a NUL"),
        ({"args": ["x" * 3_000_000]}, "Argument list too long"),
    ],
)
async def test_a_plugin_that_cannot_be_run_is_reported(program: Path, fields: dict[str, object], reason: str) -> None:
    assert await failure(program, **fields) == f"cannot run the exec plugin login of the context dev: {reason}"


def test_two_event_loops_can_run_plugins_at_the_same_time(program: Path) -> None:
    async def some() -> list[str]:
        return [found.token for found in await asyncio.gather(*(run(program) for _ in range(20)))]

    with ThreadPoolExecutor() as threads:
        found = [threads.submit(lambda: uvloop.run(some())) for _ in range(2)]
    assert [each.result() for each in found] == [["t"] * 20] * 2


def test_the_operator_s_event_loop_does_not_truncate_arguments_at_a_nul(program: Path) -> None:
    reason = "an argument or a variable contains a NUL"
    found = uvloop.run(failure(program, args=["a\0b"]))
    assert found == f"cannot run the exec plugin login of the context dev: {reason}"
