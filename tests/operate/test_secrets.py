"""./dev secrets put: its questions, the keys that it refuses, and the values that it writes."""

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from select import select
from uuid import uuid4

import boto3
import pytest

from local.aws.services import Aws
from local.processes import free_port
from operate.secrets import FIELDS, REMOVE, Secrets, apns_key_fault, service_account_fault
from tests.credentials import APNS, ec_key, pem, service_account

SECRET_KEY, PUBLISHABLE_KEY, ACCESS_TOKEN = (
    "sb_secret_0123456789",
    "sb_publishable_abc-DEF",
    "0123456789abcdefghij_-XYZ",
)


@pytest.fixture
def secrets(services: Aws) -> Secrets:
    """The secrets of a new stack, where only WebhookSecret has a value."""
    names = ("WebhookSecret", "BackendSecret", "AppSecret")
    ids = {name: services.secrets_manager.create_secret(Name=f"{name}-{uuid4().hex}")["ARN"] for name in names}
    generated = {"current": "generated", "previous": None}
    services.secrets_manager.put_secret_value(SecretId=ids["WebhookSecret"], SecretString=json.dumps(generated))
    return Secrets(services.secrets_manager, ids)


@pytest.fixture
def local_cloud(services: Aws, tmp_path: Path) -> Iterator[tuple[Path, Secrets]]:
    """The env file of a local cloud, and its secrets without values."""
    client = services.secrets_manager
    ids = {name: client.create_secret(Name=name)["ARN"] for name in ("WebhookSecret", "BackendSecret", "AppSecret")}
    env_file = tmp_path / "env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in services.environment.items()))
    yield env_file, Secrets(client, ids)
    for name in ids:
        client.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)


async def test_writing_one_key_of_a_secret_keeps_the_others(secrets: Secrets) -> None:
    def put(**given: str) -> list[str]:
        return secrets.put(given)

    written = await asyncio.to_thread(put, supabase_secret_key=SECRET_KEY, supabase_publishable_key=PUBLISHABLE_KEY)
    assert written == ["BackendSecret.supabase_secret_key", "AppSecret.supabase_publishable_key"]
    assert put(expo_access_token=ACCESS_TOKEN, supabase_secret_key="") == ["BackendSecret.expo_access_token"]
    assert secrets.read("BackendSecret") == {"supabase_secret_key": SECRET_KEY, "expo_access_token": ACCESS_TOKEN}
    put(expo_access_token=REMOVE)
    assert secrets.read("BackendSecret") == {"supabase_secret_key": SECRET_KEY, "expo_access_token": None}
    assert secrets.read("AppSecret") == {"supabase_publishable_key": PUBLISHABLE_KEY}
    assert secrets.read("WebhookSecret") == {"current": "generated", "previous": None}


async def test_rotation_keeps_the_previous_webhook_secret_until_it_is_forgotten(secrets: Secrets) -> None:
    assert secrets.put({}, "rotate") == ["WebhookSecret.current", "WebhookSecret.previous"]
    rotated = secrets.read("WebhookSecret")
    assert rotated["previous"] == "generated"
    assert len(rotated["current"]) == 48
    assert secrets.put({}, "forget") == ["WebhookSecret.previous"]
    assert secrets.read("WebhookSecret") == {"current": rotated["current"], "previous": None}


@pytest.mark.parametrize("before", ["not JSON", '["a list"]'])
async def test_writing_a_key_replaces_an_unreadable_secret(secrets: Secrets, before: str) -> None:
    secrets.client.put_secret_value(SecretId=secrets.ids["AppSecret"], SecretString=before)
    secrets.put({"supabase_publishable_key": PUBLISHABLE_KEY})
    assert secrets.read("AppSecret") == {"supabase_publishable_key": PUBLISHABLE_KEY}


LEGACY_KEY = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("supabase_secret_key", SECRET_KEY),
        ("supabase_publishable_key", PUBLISHABLE_KEY),
        ("expo_access_token", ACCESS_TOKEN),
    ],
)
def test_a_key_that_has_the_form_of_another_key_is_refused(name: str, right: str) -> None:
    [field] = [field for field in FIELDS if field.name == name]
    assert field.fault(right) is None
    others = {SECRET_KEY, PUBLISHABLE_KEY, ACCESS_TOKEN, LEGACY_KEY, "ExponentPushToken[0123456789012345678901]"}
    for wrong in [*(others - {right}), "too-short", f"{right} x", f"{right}\nx", f"Bearer {right}", "é" * 30]:
        fault = field.fault(wrong)
        assert fault is not None
        assert fault.startswith(f"{name}: ")
        assert wrong not in fault


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (service_account(), None),
        (pem(ec_key()), ".p8 of Apple"),
        ("AIza" + "x" * 35, "old FCM API"),
        (None, "cannot be read"),
    ],
    ids=["right", "key of Apple", "server key", "no file"],
)
def test_a_file_that_is_no_service_account_is_named_as_what_it_is(
    tmp_path: Path, text: str | None, named: str | None
) -> None:
    file = tmp_path / "account.json"
    if text is not None:
        file.write_text(text)
    fault = service_account_fault(file)
    assert (fault is None) == (named is None)
    assert fault is None or (fault.startswith("fcm_service_account: ") and str(named) in fault)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (pem(ec_key()).encode(), None),
        (b"0\x82\xff\xfe", "certificate"),
        (service_account().encode(), "service account"),
    ],
    ids=["right", "p12", "service account"],
)
def test_a_file_that_is_no_key_of_apns_is_named_as_what_it_is(tmp_path: Path, text: bytes, named: str | None) -> None:
    file = tmp_path / "AuthKey_ABC1234567.p8"
    file.write_bytes(text)
    fault = apns_key_fault(file, *APNS.values())
    assert (fault is None) == (named is None)
    assert fault is None or (fault.startswith("apns_key: ") and str(named) in fault)


class Terminal:
    """The other end of a pseudoterminal: types answers and collects the output."""

    def __init__(self, descriptor: int, process: subprocess.Popen[bytes]) -> None:
        self._descriptor = descriptor
        self._process = process
        self.shown = ""
        self._seen = 0  # the end of the text that was waited for last

    def answer(self, question: str, answer: str) -> None:
        """Waits for a question and types the answer."""
        self.wait_for(question)
        self.press(f"{answer}\n")

    def press(self, key: str) -> None:
        """Presses a key."""
        os.write(self._descriptor, key.encode())

    def interrupt(self) -> None:
        """Does what Ctrl-C does at the terminal of a session, which this one is not."""
        self._process.send_signal(signal.SIGINT)
        self.press("\n")  # Python looks at a signal that came just before its read only when the read ends.

    def end(self) -> int:
        """Waits for the end of the process and its output. Returns the exit code."""
        self._until(None)
        return self._process.wait()

    def wait_for(self, text: str) -> None:
        """Waits until the text is shown after the text that was waited for last."""
        self._until(text)

    def _until(self, text: str | None) -> None:
        while text is None or text not in self.shown[self._seen :]:
            assert select([self._descriptor], [], [], 60)[0], f"no {text!r} in: {self.shown}"
            try:
                read = os.read(self._descriptor, 4096).decode()
            except OSError:  # The other side is closed.
                read = ""
            if not read:
                assert text is None, f"no {text!r} in: {self.shown}"
                return
            self.shown += read
        self._seen = self.shown.index(text, self._seen) + len(text)


@contextmanager
def terminal(*arguments: object, environment: dict[str, str]) -> Iterator[Terminal]:
    """Runs `./dev secrets put` at a terminal."""
    mine, its = pty.openpty()
    command = [sys.executable, "-m", "operate", "secrets", "put", *map(str, arguments)]
    environment = {**os.environ, **environment}
    with subprocess.Popen(
        command,
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
        env=environment,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # the tests may run in the background
    ) as process:
        os.close(its)
        try:
            yield Terminal(mine, process)
        finally:
            process.kill()
            os.close(mine)


def type_keys(terminal: Terminal) -> int:
    """Answers each question. The first answer is a wrong key. Returns the exit code."""
    terminal.answer("Supabase secret key, ", PUBLISHABLE_KEY)
    # getpass drops what was typed before its question.
    terminal.wait_for("supabase_secret_key: the Supabase secret key must look like sb_secret_")
    terminal.answer("Supabase secret key, ", SECRET_KEY)
    terminal.answer("Supabase publishable key, ", PUBLISHABLE_KEY)
    terminal.answer("Expo access token, ", "")
    terminal.answer("FCM service account, ", "")
    terminal.answer("APNs key, ", "")
    terminal.answer("Webhook secret (", "r")
    return terminal.end()


def in_terminal(environment: dict[str, str], *arguments: object) -> tuple[int, str]:
    with terminal(*arguments, environment=environment) as shown:
        return type_keys(shown), shown.shown


async def test_secrets_put_writes_the_keys_of_a_stack_and_never_shows_them(
    services: Aws, secrets: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in services.environment.items():
        monkeypatch.setenv(name, value)
    stack = f"chat-push-{uuid4().hex}"

    def deploy() -> None:
        template = {
            "Resources": {"PushQueue": {"Type": "AWS::SQS::Queue"}},
            # moto has no value for a Ref to a secret.
            "Outputs": {name: {"Value": arn} for name, arn in secrets.ids.items()},
        }
        boto3.client("cloudformation").create_stack(StackName=stack, TemplateBody=json.dumps(template))

    await asyncio.to_thread(deploy)
    code, shown = await asyncio.to_thread(in_terminal, dict(services.environment), "--stack", stack)
    assert code == 0, shown
    assert secrets.read("BackendSecret") == {"supabase_secret_key": SECRET_KEY}
    assert secrets.read("AppSecret") == {"supabase_publishable_key": PUBLISHABLE_KEY}
    for written in ("BackendSecret.supabase_secret_key", "WebhookSecret.current", "push.configure_webhook"):
        assert written in shown
    for value in (SECRET_KEY, PUBLISHABLE_KEY, secrets.read("WebhookSecret")["current"]):
        assert value not in shown


async def test_secrets_put_writes_credentials_of_fcm_and_apns_and_never_shows_them(
    local_cloud: tuple[Path, Secrets], tmp_path: Path
) -> None:
    env_file, written = local_cloud
    account, key = tmp_path / "account.json", tmp_path / "AuthKey_ABC1234567.p8"
    account.write_text(service_account())
    key.write_text(pem(ec_key()))

    def put(account_answer: object, key_answer: object, *more: str) -> str:
        with terminal("--env", env_file, environment={"HOME": str(tmp_path)}) as shown:
            for question in ("Supabase secret key, ", "Supabase publishable key, ", "Expo access token, "):
                shown.answer(question, "")
            shown.answer("FCM service account, ", str(key))
            shown.wait_for("it is a key file, such as a .p8 of Apple")
            shown.answer("FCM service account, ", str(account_answer))
            shown.answer("APNs key, ", str(key_answer))
            for question, answer in zip(("(Enter: ABC1234567)", "Apple team id", "Bundle id"), more, strict=False):
                shown.answer(question, answer)
            shown.answer("Webhook secret (", "")
            assert shown.end() == 0
            return shown.shown

    shown = await asyncio.to_thread(
        put, "~/account.json", "~/AuthKey_ABC1234567.p8", "", APNS["team_id"], APNS["topic"]
    )
    assert written.read("BackendSecret") == {
        "fcm_service_account": service_account(),
        "apns_key": pem(ec_key()),
        "apns_key_id": "ABC1234567",
        "apns_team_id": APNS["team_id"],
        "apns_topic": APNS["topic"],
    }
    assert pem(ec_key()).splitlines()[1] not in shown
    await asyncio.to_thread(put, REMOVE, REMOVE)
    assert set(written.read("BackendSecret").values()) == {None}


async def test_secrets_put_finds_the_local_cloud_by_its_env_file(local_cloud: tuple[Path, Secrets]) -> None:
    env_file, written = local_cloud
    code, shown = await asyncio.to_thread(in_terminal, {}, "--env", env_file)
    assert code == 0, shown
    assert written.read("AppSecret") == {"supabase_publishable_key": PUBLISHABLE_KEY}


async def test_secrets_put_names_a_stopped_local_cloud_before_it_asks_for_keys(tmp_path: Path) -> None:
    env_file = tmp_path / "env"
    env_file.write_text(f"AWS_ENDPOINT_URL=http://127.0.0.1:{free_port()}\n")
    with terminal("--env", env_file, environment={}) as shown:
        assert await asyncio.to_thread(shown.end) == 1
    assert shown.shown.startswith(f"./dev secrets: --env {env_file}: its local cloud does not run any more")
    assert "Traceback" not in shown.shown


@pytest.mark.parametrize(
    ("leave", "code", "message"),
    [
        (Terminal.interrupt, 130, ""),
        (
            lambda shown: shown.press("\x04"),
            1,
            "./dev secrets: the input ended before the last answer; no key was changed",
        ),
    ],
    ids=["Ctrl-C", "Ctrl-D"],
)
async def test_an_operator_can_leave_at_each_question_and_no_key_is_changed(
    local_cloud: tuple[Path, Secrets], leave: Callable[[Terminal], None], code: int, message: str
) -> None:
    env_file, written = local_cloud
    keys = {"Supabase secret key, ": SECRET_KEY, "Supabase publishable key, ": "", "Expo access token, ": ""}

    def run(answers: dict[str, str], question: str) -> None:
        with terminal("--env", env_file, environment={}) as shown:
            for asked, answer in answers.items():
                shown.answer(asked, answer)
            shown.wait_for(question)
            leave(shown)
            assert shown.end() == code
        assert "Traceback" not in shown.shown
        assert message in shown.shown

    await asyncio.to_thread(run, {}, "Supabase secret key, ")  # asked by getpass
    await asyncio.to_thread(run, keys, "FCM service account, ")  # asked by input
    assert written.read("BackendSecret") == {}


async def test_secrets_put_names_a_stack_of_another_template_before_it_asks_for_keys(services: Aws) -> None:
    stack = f"other-{uuid4().hex}"
    template = json.dumps({"Resources": {"PushQueue": {"Type": "AWS::SQS::Queue"}}})

    def run() -> tuple[int, str]:
        where = services.environment
        boto3.client(
            "cloudformation",
            endpoint_url=services.endpoint_url,
            region_name=where["AWS_REGION"],
            aws_access_key_id=where["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=where["AWS_SECRET_ACCESS_KEY"],
        ).create_stack(StackName=stack, TemplateBody=template)
        with terminal("--stack", stack, environment=dict(where)) as shown:
            return shown.end(), shown.shown

    code, shown = await asyncio.to_thread(run)
    assert code == 1
    assert shown.startswith(
        f"./dev secrets: --stack {stack}: the stack has no output WebhookSecret, BackendSecret, AppSe"
    )


async def test_secrets_put_names_a_stack_that_does_not_exist(services: Aws) -> None:
    def run() -> tuple[int, str]:
        with terminal("--stack", "nowhere", environment=dict(services.environment)) as shown:
            return shown.end(), shown.shown

    code, shown = await asyncio.to_thread(run)
    assert code == 1
    assert "./dev secrets: --stack nowhere:" in shown
    assert "does not exist" in shown
    assert "Traceback" not in shown


def test_secrets_put_without_a_terminal_is_refused() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "operate", "secrets", "put", "--stack", "x"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert "run it in a terminal" in run.stderr
