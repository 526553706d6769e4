"""`devbox-secrets seal` offline: its output, and the message for each error."""

import json
import re
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretBytes
from typer.testing import CliRunner, Result

from devbox_secrets.api.validation import VARIABLE_MAX_BYTES
from devbox_secrets.cli import app
from devbox_secrets.crypto.envelope import KeyPair, Keyring, PublicKey

KEY = KeyPair(SecretBytes(b"s" * 32), datetime(2026, 1, 1, tzinfo=UTC))
CANARY = b"canary-value"
NOTE = "devbox-secrets: removed the trailing newline (use --keep-newline to keep it)\n"
RENAME = (
    "invalid name of an environment variable: use letters, digits and _,"
    " not starting with a digit, such as GITHUB_TOKEN"
)
NO_ACCOUNT = (
    "'Team A' isn't a valid account: an account is a namespace, so use up to 63 lowercase letters, digits and -,"
    " such as team-a"
)
UTF16 = "the text is UTF-16, which PowerShell's > writes; save it as UTF-8, for example with Set-Content -Encoding utf8"
ALLOW_EMPTY = "pass --allow-empty if this is intended"
ENCODE_IT = "encode binary data first, for example with base64"
NO_ARGUMENTS = (
    "unexpected arguments. If one of them is the value: pass it on standard input, with --from-file or at the prompt,"
    " since arguments are visible in the shell's history and in process listings"
)
GET_IT = (
    "get the key with: kubectl get configmap devbox-secrets-public-keys -n devbox-secrets -o jsonpath='{.data.newest}'"
)
KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: one
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: u, user: {token: canary-value}}]
contexts:
- {name: one, context: {cluster: c, user: u, namespace: team-one}}
- {name: two, context: {cluster: c, user: u, namespace: team-two}}
- {name: plain, context: {cluster: c, user: u}}
"""


@pytest.fixture(autouse=True, scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Any:  # noqa: ANN401
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("cli"))
        patch.setenv("COLUMNS", "200")  # so that no word is broken at the end of a line
        Path("key").write_text(f"{KEY.public}\n")
        Path("kubeconfig").write_text(KUBECONFIG)
        yield


def run(*args: str, given: bytes = b"") -> Result:
    result = CliRunner().invoke(app, args, input=given)
    # Any other exception would be shown as a traceback.
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def seal(*args: str, given: bytes = b"") -> Result:
    return run("seal", "--public-key", "key", *args, given=given)


def opened(result: Result, account: str = "team", name: str = "TOKEN") -> bytes:
    assert result.exit_code == 0, result.stderr
    sealed = yaml.safe_load(result.stdout)["spec"]["sealed"]
    return Keyring([KEY]).open(sealed, account=account, name=name).get_secret_value()


def plain(text: str) -> str:
    """Return only the words, without colors, boxes and line breaks."""
    return " ".join(re.sub(r"[─│╭╮╰╯]", " ", re.sub(r"\x1b\[[0-9;]*m", "", text)).split())


def test_seal_prints_a_manifest_that_the_key_opens() -> None:
    result = seal("TOKEN", "--account", "team", given=CANARY)
    assert opened(result) == CANARY
    assert result.stderr == ""
    body = yaml.safe_load(result.stdout)
    sealed = body["spec"].pop("sealed")
    assert sealed.startswith(f"dbs1.{KEY.public.id}.")
    assert body == {
        "apiVersion": "devbox-secrets.dev/v1beta1",
        "kind": "AccountSecret",
        "metadata": {"name": "token", "namespace": "team"},
        "spec": {"name": "TOKEN"},
    }
    assert "canary" not in result.stdout


@pytest.mark.parametrize("option", ["--account", "--namespace", "-n"])
def test_the_account_is_a_namespace(option: str) -> None:
    assert opened(seal("TOKEN", option, "team", given=CANARY)) == CANARY


@pytest.mark.parametrize("source", ["standard input", "a file"])
@pytest.mark.parametrize(
    ("given", "options", "kept", "note"),
    [
        (b"one", [], b"one", ""),
        (b"one\n", [], b"one", NOTE),
        (b"one\r\n", [], b"one", NOTE),
        (b"one\n", ["--keep-newline"], b"one\n", ""),
        (b"one\r\n", ["--keep-newline"], b"one\r\n", ""),
        (b"one\r", [], b"one\r", ""),
        (b"  one  \n", [], b"  one  ", NOTE),
        (b"one\n\n", [], b"one\n\n", ""),
        (b"one\ntwo", [], b"one\ntwo", ""),
        (b"one\ntwo\n", [], b"one\ntwo\n", ""),
        (b"one\r\ntwo\r\n", [], b"one\r\ntwo\r\n", ""),
        ("né 🙂".encode(), [], "né 🙂".encode(), ""),
        (b"one\xef\xbb\xbf", [], b"one\xef\xbb\xbf", ""),
        (b"\xef\xbb\xbfone\n", ["--keep-newline"], b"\xef\xbb\xbfone\n", ""),
        (b"\n", ["--allow-empty"], b"", NOTE),
        (b"", ["--allow-empty"], b"", ""),
        (b" ", ["--allow-empty"], b" ", ""),
    ],
)
def test_only_the_trailing_newline_of_a_one_line_value_is_removed(
    source: str, given: bytes, options: list[str], kept: bytes, note: str
) -> None:
    if source == "a file":
        Path("value").write_bytes(given)
        result = seal("TOKEN", "--account", "team", "--from-file", "value", *options, given=b"not this")
    else:
        result = seal("TOKEN", "--account", "team", *options, given=given)
    assert opened(result) == kept
    assert result.stderr == note


@pytest.mark.parametrize("source", ["standard input", "value"])
@pytest.mark.parametrize("given", [b"", b"\n", b"\r\n", b"\n\n", b" \t", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("options", [[], ["--keep-newline"]])
def test_an_empty_value_is_rejected(source: str, given: bytes, options: list[str]) -> None:
    if source == "value":
        Path("value").write_bytes(given)
        result = seal("TOKEN", "-n", "team", "-f", "value", *options, given=CANARY)
    else:
        result = seal("TOKEN", "-n", "team", *options, given=given)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[-1] in {
        f"devbox-secrets: the value of TOKEN is {what}; {ALLOW_EMPTY}" for what in ("empty", "only whitespace")
    }


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (b"\xef\xbb\xbfone\r\n", b"one"),
        (b"\xef\xbb\xbf\xef\xbb\xbfone", b"\xef\xbb\xbfone"),
    ],
)
def test_one_byte_order_mark_is_removed_with_a_message(given: bytes, kept: bytes) -> None:
    result = seal("TOKEN", "-n", "team", given=given)
    assert opened(result) == kept
    assert result.stderr.startswith(
        "devbox-secrets: removed the byte order mark from the start of standard input (use --keep-newline to keep it)\n"
    )


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_value_in_utf_16_is_rejected(encoding: str) -> None:
    result = seal("TOKEN", "-n", "team", given="canary\r\n".encode(encoding))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"devbox-secrets: standard input: {UTF16}\n"


@pytest.mark.parametrize(
    ("content", "stderr"),
    [
        (str(KEY.public).encode("utf-8-sig"), "removed the byte order mark from the start of saved"),
        (f"{KEY.public}\r\n".encode(), ""),
    ],
)
def test_a_key_file_saved_on_windows_is_accepted(content: bytes, stderr: str) -> None:
    Path("saved").write_bytes(content)
    result = run("seal", "TOKEN", "-n", "team", "--public-key", "saved", given=CANARY)
    assert opened(result) == CANARY
    assert stderr in result.stderr


@pytest.mark.parametrize(
    ("content", "trouble"),
    [(str(KEY.public).encode("utf-16"), UTF16), (b"\xff", "not UTF-8 text: byte 1 is invalid")],
)
def test_a_key_file_that_is_not_text_is_reported(content: bytes, trouble: str) -> None:
    Path("saved").write_bytes(content)
    result = run("seal", "TOKEN", "-n", "team", "--public-key", "saved", given=CANARY)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"devbox-secrets: saved: {trouble}\n"


def test_a_reserved_name_is_rejected_before_the_value_is_read_unless_it_is_allowed() -> None:
    result = seal("PATH", "--account", "team", given=b"\0")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("devbox-secrets: PATH is reserved ")
    assert opened(seal("PATH", "--account", "team", "--allow-reserved", given=CANARY), name="PATH") == CANARY


def test_the_largest_value_is_sealed() -> None:
    value = b"x" * (VARIABLE_MAX_BYTES - len("TOKEN=\0"))
    assert opened(seal("TOKEN", "--account", "team", given=value)) == value


def test_json_and_yaml_have_the_same_content() -> None:
    texts = {
        form: seal("TOKEN", "--account", "team", "--rotate-after", "90d", "-o", form, given=CANARY).stdout
        for form in ("yaml", "json")
    }
    as_yaml, as_json = yaml.safe_load(texts["yaml"]), json.loads(texts["json"])
    assert as_yaml["spec"].pop("sealed") != as_json["spec"].pop("sealed")
    assert as_yaml == as_json
    assert texts["json"].endswith("}\n")


def test_manifests_can_be_appended_to_one_file() -> None:
    text = "".join(seal(name, "-n", "team", given=CANARY).stdout for name in ("A", "B"))
    assert [body["spec"]["name"] for body in yaml.safe_load_all(text)] == ["A", "B"]


def test_raw_output_is_only_the_sealed_value() -> None:
    result = seal("TOKEN", "--account", "team", "-o", "raw", given=CANARY)
    assert result.stdout.count("\n") == 1
    sealed = result.stdout.removesuffix("\n")
    assert Keyring([KEY]).open(sealed, account="team", name="TOKEN") == SecretBytes(CANARY)


def test_a_sealed_value_is_one_line_of_yaml() -> None:
    lines = seal("TOKEN", "--account", "team", given=b"x" * 100_000).stdout.splitlines()
    assert len(lines) == 9
    assert re.fullmatch(r"  sealed: dbs1\.[0-9a-f]{16}\.[A-Za-z0-9_-]+", lines[-1])


def test_optional_fields_are_in_the_manifest() -> None:
    result = seal("TOKEN", "--account", "team", "--description", "for CI", "--rotate-after", "90d", given=CANARY)
    spec = yaml.safe_load(result.stdout)["spec"]
    assert (spec["description"], spec["rotateAfter"]) == ("for CI", "90d")
    assert opened(result) == CANARY


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
@pytest.mark.parametrize("form", ["yaml", "json"])
def test_any_description_survives_the_manifest(form: str, text: str) -> None:
    result = seal("TOKEN", "--account", "team", f"--description={text}", "-o", form, given=CANARY)
    body = json.loads(result.stdout) if form == "json" else yaml.safe_load(result.stdout)
    assert body["spec"].get("description", "") == text


@pytest.mark.parametrize(
    ("args", "given", "sentence"),
    [
        (["1TOKEN", "-n", "team"], CANARY, RENAME),
        (["A-B", "-n", "team"], CANARY, RENAME),
        (["", "-n", "team"], CANARY, RENAME),
        (["TOKEN=canary-value", "-n", "team"], CANARY, RENAME),
        (["A" * 254, "-n", "team"], CANARY, "the name has 254 characters; the maximum is 253"),
        (
            ["TOKEN", "-n", "Team A"],
            CANARY,
            NO_ACCOUNT,
        ),
        (["TOKEN", "-n", "team", "--description", "caf\udce9"], CANARY, "the description isn't UTF-8 text"),
        (
            ["TOKEN", "-n", "team", "--description", "x" * 1025],
            CANARY,
            "the description has 1,025 characters; the maximum is 1,024",
        ),
        (
            ["TOKEN", "-n", "team", "--rotate-after", "2w"],
            CANARY,
            "'2w' isn't a number of days, hours or minutes, such as 90d or 12h",
        ),
        (
            ["TOKEN", "-n", "team"],
            CANARY + b"\xff",
            f"the value of TOKEN isn't UTF-8 text; {ENCODE_IT}",
        ),
        (
            ["TOKEN", "-n", "team"],
            CANARY + b"\0",
            f"the value of TOKEN contains a NUL byte, which environment variables can't contain; {ENCODE_IT}",
        ),
        (
            ["TOKEN", "-n", "team"],
            CANARY * 10_923,
            "TOKEN and its value take 131,083 bytes; the maximum is 131,072",
        ),
    ],
)
def test_an_error_is_one_message_without_the_value(args: list[str], given: bytes, sentence: str) -> None:
    result = seal(*args, given=given)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == f"devbox-secrets: {sentence}\n"
    assert "canary" not in result.stderr


NO_ARGUMENT = {
    "a value": ["canary-value"],
    "a value after an option": ["--value", "canary-value"],
    "a value in an option": ["--value=canary-value"],
    "a key": ["-----BEGIN canary-value"],
    "a value with a dash": ["-canary-value"],
    "a value like an option": ["--canary-description"],
}


@pytest.mark.parametrize("what", NO_ARGUMENT)
@pytest.mark.parametrize("command", ["seal", "set", "update"])
def test_an_argument_that_may_be_a_value_is_rejected_without_repeating_it(command: str, what: str) -> None:
    result = run(command, "TOKEN", *NO_ARGUMENT[what], "-n", "team", given=CANARY)
    assert (result.exit_code, result.stdout) == (2, "")
    assert NO_ARGUMENTS in plain(result.stderr)
    assert "canary" not in result.stderr


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--form-file=canary", "--from-file"), ("--desription", "--description"), ("--keep-newlines", "--keep-newline"),
        ("--force", "--force-conflicts"), ("--name-space", "--namespace"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["seal", "set"])
def test_a_misspelled_option_is_reported_without_its_value(command: str, given: str, meant: str) -> None:
    result = run(command, "TOKEN", given, "canary", "-n", "team", given=CANARY)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"No such option: {given.partition('=')[0]}. Did you mean {meant}?" in plain(result.stderr)
    assert "canary" not in result.stderr


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ([], "Missing argument 'NAME'."),
        (["TOKEN", "-n", "team", "--public-key", "nowhere"], "file 'nowhere' does not exist"),
        (["TOKEN", "-n", "team", "--public-key", "."], "file '.' is a directory"),
        (["TOKEN", "-n", "team", "--from-file", "nowhere"], "file 'nowhere' does not exist"),
        (["TOKEN", "-n", "team", "--from-file", "."], "file '.' is a directory"),
        (["TOKEN", "-n", "team", "--kubeconfig", "nowhere"], "file 'nowhere' does not exist"),
        (["TOKEN", "-n", "team", "-o", "xml"], "'xml' is not one of 'yaml', 'json', 'raw'"),
    ],
)
def test_a_usage_error_says_how_to_get_help(args: list[str], sentence: str) -> None:
    result = seal(*args, given=CANARY)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert sentence in plain(result.stderr)
    assert "devbox-secrets seal -h" in plain(result.stderr)
    assert "canary" not in result.stderr


@pytest.mark.parametrize(
    ("content", "trouble"),
    [
        (b"", "not a public sealing key: it doesn't start with dbs1-public."),
        (b"canary", "not a public sealing key: it doesn't start with dbs1-public."),
        (str(KEY.public).encode()[:-2], "a public sealing key has 1216 bytes, not 1215"),
        (str(KEY.public).encode()[:-1], "the public sealing key is damaged: not base64url"),
        (
            str(KEY.public).replace(KEY.public.id, "0" * 16).encode(),
            "the public sealing key is damaged: its id doesn't match its bytes",
        ),
        (
            str(KEY.public).replace(".", ". ").encode(),
            "the public sealing key contains whitespace or a line break; write it on one line without whitespace",
        ),
        (
            str(PublicKey(KEY.public.raw[:1184] + bytes(32))).encode(),
            "the public sealing key is invalid: its ML-KEM-768 or X25519 half can't be used",
        ),
    ],
)
def test_the_error_for_a_damaged_key_file_says_how_to_get_the_key(content: bytes, trouble: str) -> None:
    Path("damaged").write_bytes(content)
    result = run("seal", "TOKEN", "-n", "team", "--public-key", "damaged", given=CANARY)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"devbox-secrets: damaged: {trouble}; {GET_IT}\n"


@pytest.mark.parametrize(
    ("context", "account"),
    [([], "team-one"), (["--context", "two"], "team-two"), (["--context", "plain"], "default")],
)
def test_the_default_account_is_the_context_s_namespace(context: list[str], account: str) -> None:
    result = seal("TOKEN", "--kubeconfig", "kubeconfig", *context, given=CANARY)
    assert yaml.safe_load(result.stdout)["metadata"]["namespace"] == account
    assert opened(result, account=account) == CANARY


def test_a_kubeconfig_without_a_current_context_needs_a_context_or_an_account() -> None:
    Path("no-current").write_text(KUBECONFIG.replace("current-context: one", ""))
    result = seal("TOKEN", "--kubeconfig", "no-current", "--context", "two", given=CANARY)
    assert opened(result, account="team-two") == CANARY
    result = seal("TOKEN", "--kubeconfig", "no-current", given=CANARY)
    assert result.exit_code == 1
    assert result.stderr == (
        "devbox-secrets: no account given: no-current has no current-context; pass --account or --context, one of:"
        " one, plain, two\n"
    )


def test_a_context_that_does_not_exist_is_reported() -> None:
    result = seal("TOKEN", "--kubeconfig", "kubeconfig", "--context", "three", given=CANARY)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "devbox-secrets: there is no context three in kubeconfig; pass --context, one of: one, plain, two\n"
    )


@pytest.mark.parametrize("content", [b"[]", b"a: [", b"\xff", b"contexts: token", b"users: [{token: token}, {}]"])
@pytest.mark.parametrize("options", [["--public-key", "key"], ["--account", "team"]])
def test_a_damaged_kubeconfig_is_reported_without_quoting_it(content: bytes, options: list[str]) -> None:
    Path("broken").write_bytes(content)
    result = run("seal", "TOKEN", "--kubeconfig", "broken", *options, given=CANARY)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("devbox-secrets: the kubeconfig broken is invalid: ")
    assert "token" not in result.stderr


def test_an_unreachable_cluster_is_reported_before_the_prompt() -> None:
    result = run("seal", "TOKEN", "--kubeconfig", "kubeconfig", given=CANARY + b"\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "devbox-secrets: cannot reach http://127.0.0.1:1 (context one): connection refused\n"


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>canary: log in</html>")

    def log_message(self, *args: object) -> None:
        pass


def test_a_proxy_s_error_page_is_reported_without_quoting_it() -> None:
    with HTTPServer(("127.0.0.1", 0), _Page) as server:
        Thread(target=server.handle_request, daemon=True).start()
        Path("proxied").write_text(KUBECONFIG.replace("127.0.0.1:1", f"127.0.0.1:{server.server_port}"))
        result = run("list", "--kubeconfig", "proxied")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "devbox-secrets: GET /apis/devbox-secrets.dev/v1beta1/namespaces/team-one/accountsecrets:"
        " the response isn't from an API server, but perhaps from a proxy\n"
    )


def test_an_unknown_command_is_reported_with_similar_ones() -> None:
    result = run("unseal")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "No such command 'unseal'. Did you mean 'seal', 'reseal'?" in plain(result.stderr)
