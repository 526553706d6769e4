"""The installed program in its own process: the prompt, streams, imports and help."""

import array
import fcntl
import json
import os
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml
from pydantic import SecretBytes

from devbox_secrets.crypto.envelope import KeyPair, Keyring
from harness.terminal import Terminal
from unit.cli.program import PROGRAM, SCRIPTS, SECONDS, run

KEY = KeyPair(SecretBytes(b"s" * 32), datetime(2026, 1, 1, tzinfo=UTC))
CANARY = b"canary-value"
VALUE, REPEAT = b"Value of TOKEN", b"Repeat for confirmation"


@pytest.fixture
def seal(tmp_path: Path) -> list[str]:
    """Return the arguments to seal offline, without the variable's name."""
    key = tmp_path / "key"
    key.write_text(str(KEY.public))
    return ["seal", "--public-key", str(key), "--account", "team"]


def opened(manifest: bytes) -> bytes:
    sealed = yaml.safe_load(manifest)["spec"]["sealed"]
    return Keyring([KEY]).open(sealed, account="team", name="TOKEN").get_secret_value()


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("words", "candidates"),
    [
        (["se"], ["seal", "set"]),
        (["keys", "r"], ["restore", "rotate"]),
        (["keys", ""], ["backup", "list", "prune", "restore", "rotate"]),
        (["seal", "--from"], ["--from-file"]),
        (["nothing-like-this"], []),
    ],
)
def test_the_plugin_completes_words_for_kubectl(words: list[str], candidates: list[str]) -> None:
    # kubectl's protocol for the completion of a plugin.
    done = run(str(SCRIPTS / "kubectl_complete-devbox_secrets"), *words)
    *found, directive = done.stdout.decode().split()
    assert (sorted(found), directive) == (candidates, ":4")


@pytest.mark.parametrize("program", ["devbox-secrets", "kubectl-devbox_secrets"])
def test_the_program_reads_a_value_and_prints_a_manifest(program: str, seal: list[str]) -> None:
    result = run(str(SCRIPTS / program), *seal, "TOKEN", given=CANARY)
    assert (result.returncode, result.stderr) == (0, b"")
    assert opened(result.stdout) == CANARY


def test_the_program_runs_as_a_module(seal: list[str]) -> None:
    result = run(sys.executable, "-m", "devbox_secrets", *seal, "TOKEN", given=CANARY)
    assert opened(result.stdout) == CANARY


def test_sealing_offline_imports_no_slow_modules(seal: list[str]) -> None:
    blocked = ["kopf", "aiohttp", "asyncio", "prometheus_client", "pydantic_settings", "rich", "dotenv"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked}))\n"
        "from devbox_secrets.__main__ import main; sys.argv[0] = 'devbox-secrets'; main()"
    )
    result = run(sys.executable, "-c", code, *seal, "TOKEN", given=CANARY)
    assert (result.returncode, result.stderr) == (0, b"")
    assert opened(result.stdout) == CANARY


SLOW = ["aiohttp", "asyncio", "cryptography", "yaml", "dotenv", "rich", "markdown_it", "pygments"]
#: Modules that typer needs to parse arguments, which the help of the program doesn't need.
READING = ["pydantic", "importlib.metadata", "email", "http", "zipfile", "logging", "ssl"]


@pytest.mark.parametrize(
    ("words", "blocked"),
    [
        (["--help"], SLOW + READING),
        (["--version"], [name for name in SLOW + READING if name not in {"importlib.metadata", "email", "zipfile"}]),
        (["seal", "-h"], SLOW),
        (["keys", "-h"], SLOW),
        (["help", "apikey", "create"], SLOW),
    ],
)
def test_help_imports_no_slow_modules(words: list[str], blocked: list[str]) -> None:
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked}))\n"
        "from devbox_secrets.__main__ import main; sys.argv[0] = 'devbox-secrets'; main()"
    )
    result = run(sys.executable, "-c", code, *words)
    assert (result.returncode, result.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("server", "package", "extra"),
    [
        ("operator", "kopf", "operator"),
        ("webhook", "prometheus_client", "operator"),
        ("gateway", "h2corn", "gateway"),
    ],
)
def test_a_server_without_its_packages_says_which_extra_has_them(server: str, package: str, extra: str) -> None:
    code = (
        "import builtins, sys; real = builtins.__import__\n"
        "def without(name, *others, **more):\n"
        f"    if name.partition('.')[0] == {package!r}:\n"
        f"        raise ModuleNotFoundError('No module', name={package!r})\n"
        "    return real(name, *others, **more)\n"
        "builtins.__import__ = without\n"
        "from devbox_secrets.__main__ import main; sys.argv[0] = 'devbox-secrets'; main()"
    )
    result = run(sys.executable, "-c", code, server)
    assert (result.returncode, result.stdout) == (1, b"")
    assert result.stderr.decode() == (
        f"devbox-secrets: {package} isn't installed; run pip install 'devbox-secrets[{extra}]',"
        " or use the project's image\n"
    )


def test_the_plugin_s_help_shows_the_command_of_kubectl() -> None:
    result = run(str(SCRIPTS / "kubectl-devbox_secrets"), "seal", "-h")
    text = result.stdout.decode()
    assert text.startswith("Usage: kubectl devbox-secrets seal NAME [OPTIONS]\n")
    assert "  kubectl devbox-secrets seal GITHUB_TOKEN < token | kubectl apply -f -\n" in text
    text = run(str(SCRIPTS / "kubectl-devbox_secrets"), "completion", "-h").stdout.decode()
    assert '  kubectl devbox-secrets completion zsh > "${fpath[1]}/_devbox-secrets"\n' in text
    wrong = run(str(SCRIPTS / "kubectl-devbox_secrets"), "seel")
    assert b"Try 'kubectl devbox-secrets -h' for help." in wrong.stderr


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare, of Linux")
def test_sealing_offline_needs_no_network(seal: list[str]) -> None:
    isolated = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*isolated, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no permission to create a network namespace")
    routes = subprocess.run([*isolated, "cat", "/proc/net/route"], capture_output=True, check=True).stdout
    assert len(routes.splitlines()) <= 1, "the network namespace has a route"
    result = run(*isolated, PROGRAM, *seal, "TOKEN", given=CANARY)
    assert (result.returncode, result.stderr) == (0, b"")
    assert opened(result.stdout) == CANARY


def test_characters_that_the_output_cannot_encode_are_escaped(seal: list[str]) -> None:
    latin = {**os.environ, "PYTHONIOENCODING": "iso-8859-1"}
    args = [PROGRAM, "import", "--public-key", seal[2], "-n", "team", "-"]
    result = subprocess.run(args, input="A=${é}".encode(), capture_output=True, env=latin, check=False)
    assert result.returncode == 3
    assert rb"the value refers to another variable with ${\u2026}" in result.stdout
    assert b"Traceback" not in result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_complete_commands(shell: str) -> None:
    word = {"bash": {"COMP_WORDS": "devbox-secrets re", "COMP_CWORD": "1"}}.get(
        shell, {"_TYPER_COMPLETE_ARGS": "devbox-secrets re", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    )
    env = {**os.environ, **word, "_DEVBOX_SECRETS_COMPLETE": f"complete_{shell}"}
    done = subprocess.run([PROGRAM], capture_output=True, env=env, text=True, timeout=SECONDS, check=False)
    assert "reseal" in done.stdout
    assert "seal" not in done.stdout.replace("reseal", "").split()


def test_the_help_does_not_list_the_operator() -> None:
    text = run(PROGRAM, "--help").stdout.decode()
    assert "seal" in text
    assert " operator " not in text


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
def test_a_running_command_does_not_expose_the_value(seal: list[str]) -> None:
    with subprocess.Popen([PROGRAM, *seal, "TOKEN"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(CANARY)
        process.stdin.flush()
        waiting = array.array("i", [1])

        def read() -> bool:
            assert process.stdin is not None
            fcntl.ioctl(process.stdin, termios.FIONREAD, waiting)
            return waiting[0] == 0

        until(read)
        about = Path("/proc") / str(process.pid)
        shown = [(about / name).read_bytes() for name in ("cmdline", "environ", "comm")]
        manifest, _ = process.communicate(timeout=SECONDS)
    assert b"TOKEN" in shown[0]
    assert all(CANARY not in text for text in shown)
    assert opened(manifest) == CANARY


def test_closed_standard_input_is_reported(seal: list[str]) -> None:
    closing = "import os, sys; os.close(0); os.execv(sys.argv[1], sys.argv[1:])"
    result = run(sys.executable, "-c", closing, PROGRAM, *seal, "TOKEN")
    assert (result.returncode, result.stdout) == (1, b"")
    assert result.stderr == (
        b"devbox-secrets: standard input is closed; pass the value of TOKEN there or with --from-file\n"
    )


def test_closed_standard_output_is_reported_before_anything_is_done() -> None:
    closing = "import os, sys; os.close(1); os.execv(sys.argv[1], sys.argv[1:])"
    result = run(sys.executable, "-c", closing, PROGRAM, "apikey", "create", "ci")
    assert (result.returncode, result.stdout) == (1, b"")
    assert result.stderr == (
        b"devbox-secrets: standard output is closed, so nothing was done; redirect it to a file or to /dev/null\n"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("is_help", [False, True])
def test_a_full_disk_is_reported(seal: list[str], is_help: bool) -> None:
    words = ["-h"] if is_help else [*seal, "TOKEN"]
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(
            [PROGRAM, *words], input=CANARY, stdout=full, stderr=subprocess.PIPE, timeout=SECONDS, check=False
        )
    assert result.returncode == 1
    assert b"No space left on device" in result.stderr
    assert result.stderr.count(b"\n") == 1


def test_a_closed_pipe_causes_no_traceback(seal: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        [PROGRAM, *seal, "TOKEN"], input=CANARY, stdout=writer, stderr=subprocess.PIPE, timeout=SECONDS, check=False
    )
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, b"")


@pytest.fixture
def terminal(seal: list[str]) -> Iterator[Terminal]:
    program = Terminal([PROGRAM, *seal, "TOKEN"])
    yield program
    program.close()


def test_a_value_is_typed_twice_and_never_shown(terminal: Terminal) -> None:
    terminal.answer(VALUE, CANARY + b"\n")
    terminal.answer(REPEAT, CANARY + b"\n")
    code, manifest = terminal.end()
    assert code == 0
    assert opened(manifest) == CANARY
    assert terminal.shown.split() == b"Value of TOKEN: Repeat for confirmation:".split()


def test_a_value_with_non_ascii_characters_can_be_typed(terminal: Terminal) -> None:
    terminal.answer(VALUE, "né 🙂\n".encode())
    terminal.answer(REPEAT, "né 🙂\n".encode())
    _, manifest = terminal.end()
    assert opened(manifest) == "né 🙂".encode()


def test_the_prompt_is_repeated_if_two_values_differ(terminal: Terminal) -> None:
    terminal.answer(VALUE, b"canary-other\n")
    terminal.answer(REPEAT, CANARY + b"\n")
    terminal.answer(VALUE, CANARY + b"\n")
    terminal.answer(REPEAT, CANARY + b"\n")
    _, manifest = terminal.end()
    assert opened(manifest) == CANARY
    assert b"The two entered values do not match." in terminal.shown
    assert b"canary" not in terminal.shown


@pytest.mark.parametrize("key", [b"\x03", b"\x04"], ids=["ctrl-c", "ctrl-d"])
def test_the_prompt_can_be_aborted(terminal: Terminal, key: bytes) -> None:
    terminal.answer(VALUE, key)
    assert terminal.end() == (1, b"")
    assert b"Aborted!" in terminal.shown
    assert b"Traceback" not in terminal.shown


def test_typed_text_that_is_not_utf_8_is_rejected(terminal: Terminal) -> None:
    terminal.answer(VALUE, CANARY + b"\xff\n")
    assert terminal.end() == (1, b"")
    assert b"devbox-secrets: the typed value of TOKEN isn't UTF-8 text\r\n" in terminal.shown
    assert b"Traceback" not in terminal.shown
    assert b"canary" not in terminal.shown


@pytest.mark.skipif(sys.platform != "linux", reason="the limit depends on the system")
@pytest.mark.parametrize(("length", "fits"), [(4094, True), (4095, False), (6000, False)])
def test_a_line_truncated_by_the_terminal_is_not_sealed(terminal: Terminal, length: int, fits: bool) -> None:
    terminal.answer(VALUE, b"x" * length + b"\n")
    terminal.answer(REPEAT, b"x" * length + b"\n")
    code, manifest = terminal.end()
    if fits:
        assert opened(manifest) == b"x" * length
    else:
        assert (code, manifest) == (1, b"")
        assert b"a terminal drops everything after 4,095 bytes" in terminal.shown


class _Cluster(BaseHTTPRequestHandler):
    """An API server with a public key, and without AccountSecrets."""

    def do_GET(self) -> None:
        keys = {"data": {"newest": str(KEY.public)}}
        nothing = {"metadata": {"resourceVersion": "1"}, "items": []}
        body = json.dumps(keys if "configmaps" in self.path else nothing).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def test_the_prompt_can_be_aborted_while_connected_to_a_cluster(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Cluster) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(
            "{apiVersion: v1, kind: Config, current-context: one, users: [],"
            f' clusters: [{{name: one, cluster: {{server: "http://127.0.0.1:{server.server_port}"}}}}],'
            " contexts: [{name: one, context: {cluster: one}}]}"
        )
        terminal = Terminal([PROGRAM, "seal", "TOKEN", "--apply", "--kubeconfig", kubeconfig])
        try:
            terminal.answer(VALUE, b"\x03")
            assert terminal.end() == (1, b"")
        finally:
            terminal.close()
            server.shutdown()
    assert b"Aborted!" in terminal.shown
    assert b"Traceback" not in terminal.shown
