"""Writes the keys of a stack into its secrets. It asks without echo, checks each key, and never shows one."""

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from getpass import getpass
from pathlib import Path
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any, Literal

from chat_push.credentials import CredentialInvalid, parse_apns_key, parse_service_account

from operate.files import file_of_caller
from operate.stack import NotReachable, aws_of, local_aws, local_environment, stack_outputs

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

type WebhookSecretChange = Literal["keep", "rotate", "forget"]


@dataclass(frozen=True)
class Field:
    """One key: its place in the secrets, and how to recognise it."""

    secret: str  # its name in template.yaml
    name: str  # of the field in the secret's JSON
    title: str
    form: str
    pattern: str
    found_in: str
    optional: bool = False

    def fault(self, value: str) -> str | None:
        """The fault of a value, without quoting it; None if the value has the right form."""
        if re.fullmatch(self.pattern, value, re.ASCII):
            return None
        return f"{self.name}: the {self.title} must look like {self.form}. You find it in {self.found_in}."


# Legacy keys (JWTs) are rejected: the Data API accepts them only as a bearer token, and Supabase removes them in 2026.
FIELDS = (
    Field(
        "BackendSecret",
        "supabase_secret_key",
        "Supabase secret key",
        "sb_secret_...",
        r"sb_secret_[\w-]+",
        "the Supabase dashboard, Project Settings, API Keys, Secret keys (not the legacy keys)",
    ),
    Field(
        "AppSecret",
        "supabase_publishable_key",
        "Supabase publishable key",
        "sb_publishable_...",
        r"sb_publishable_[\w-]+",
        "the Supabase dashboard, Project Settings, API Keys, Publishable key (not the legacy keys)",
    ),
    Field(
        "BackendSecret",
        "expo_access_token",
        "Expo access token",
        "20 letters and digits or more",
        r"(?!sb_|Expo|eyJ)[\w-]{20,}",
        "expo.dev, Account settings, Access tokens",
        optional=True,
    ),
)
SECRETS = ("WebhookSecret", "BackendSecret", "AppSecret")  # their names in template.yaml
REMOVE = "-"
KEEP_OR_REMOVE = f"Enter: keep it, {REMOVE}: remove it"
# The credentials of FCM and APNs, in BackendSecret. chat_push.credentials knows their forms.
FCM_FIELDS = ("fcm_service_account",)
APNS_FIELDS = ("apns_key", "apns_key_id", "apns_team_id", "apns_topic")


@dataclass(frozen=True)
class Secrets:
    """The secrets of a stack or of a local cloud. `ids`: the ARN or name of each, by its name in template.yaml."""

    client: "SecretsManagerClient"
    ids: Mapping[str, str]

    def read(self, name: str) -> dict[str, Any]:
        """The value of a secret; {} if it was never written or is not a JSON object."""
        try:
            value = json.loads(self.client.get_secret_value(SecretId=self.ids[name])["SecretString"])
        except (self.client.exceptions.ResourceNotFoundException, KeyError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def put(self, given: Mapping[str, str], webhook: WebhookSecretChange = "keep") -> list[str]:
        """Merges values, by field name, into the secrets. Returns the written fields as secret.field."""
        changes: dict[str, dict[str, Any]] = {}
        places = [(field.secret, field.name) for field in FIELDS]
        for secret, name in [*places, *(("BackendSecret", name) for name in FCM_FIELDS + APNS_FIELDS)]:
            if value := given.get(name):
                changes.setdefault(secret, {})[name] = None if value == REMOVE else value
        if webhook == "rotate":
            current = self.read("WebhookSecret").get("current")
            changes["WebhookSecret"] = {"current": token_urlsafe(36), "previous": current}
        if webhook == "forget":
            changes["WebhookSecret"] = {"previous": None}
        for secret, changed in changes.items():
            value = json.dumps({**self.read(secret), **changed})
            self.client.put_secret_value(SecretId=self.ids[secret], SecretString=value)
        return [f"{secret}.{field}" for secret, changed in changes.items() for field in changed]


def put_secrets(stack: str | None, env_file: Path | None) -> None:
    """Asks for the keys, writes them, and prints the next step. Raises NotReachable and errors of AWS."""
    if not sys.stdin.isatty():
        raise NotReachable("it asks for keys without echo: run it in a terminal")
    secrets = _of_stack(stack) if stack else _of_local_cloud(env_file)
    stored = secrets.read("BackendSecret")  # Without the right to read it, nothing is asked.
    try:
        given = {field.name: _ask(field) for field in FIELDS}
        given |= _ask_for_service_account() | _ask_for_apns_key(stored)
        webhook = _ask_for_webhook()
    except EOFError:
        raise NotReachable("the input ended before the last answer; no key was changed") from None
    written = secrets.put(given, webhook)
    print("\n".join([f"written: {name}" for name in written]) or "no key was changed")
    if written:
        print("The functions use the new values within five minutes.")
    if webhook == "rotate":
        print(
            "Wait five minutes. Then run this in the SQL editor, which gives the database the new webhook secret:\n"
            "  select push.configure_webhook('<output WebhookUrl>', '<current>');\n"
            "This command shows <current>:\n"
            f"  aws secretsmanager get-secret-value --secret-id {secrets.ids['WebhookSecret']}"
            " --query SecretString --output text\n"
            "After five more minutes run ./dev secrets put again and answer f. This removes the previous secret."
        )


def _of_stack(stack: str) -> Secrets:
    outputs = stack_outputs(stack)
    if missing := [name for name in SECRETS if name not in outputs]:
        raise NotReachable(
            f"--stack {stack}: the stack has no output {', '.join(missing)}. Name a stack of this template; if it is"
            " one: sam deploy"
        )
    return Secrets(aws_of(stack).client("secretsmanager"), outputs)


def _of_local_cloud(env_file: Path | None) -> Secrets:
    assert env_file is not None
    session, endpoint_url = local_aws(local_environment(env_file))
    client = session.client("secretsmanager", endpoint_url=endpoint_url)
    return Secrets(client, {name: name for name in SECRETS})


def _ask(field: Field) -> str:
    """Asks until the value has the right form or is empty."""
    keep = KEEP_OR_REMOVE if field.optional else "Enter: keep it"

    def fault(value: str) -> str | None:
        return None if not value or (field.optional and value == REMOVE) else field.fault(value)

    return _ask_until_valid(lambda: getpass(f"{field.title}, {field.form} ({keep}): ").strip(), fault)


def _ask_for_service_account() -> dict[str, str]:
    """Asks for the JSON file of FCM until it is a service account. Returns the fields to change."""

    def fault(path: str) -> str | None:
        return None if path in ("", REMOVE) else service_account_fault(file_of_caller(path))

    question = f"FCM service account, path of its JSON file ({KEEP_OR_REMOVE}): "
    path = _ask_until_valid(lambda: input(question).strip(), fault)
    return {"fcm_service_account": path if path in ("", REMOVE) else file_of_caller(path).read_text()}


def _ask_for_apns_key(stored: Mapping[str, Any]) -> dict[str, str]:
    """Asks for the .p8 file of APNs, and what belongs to it, until it is a key. Returns the fields to change."""
    while True:
        path = input(f"APNs key, path of its .p8 file ({KEEP_OR_REMOVE}): ").strip()
        if path in ("", REMOVE):
            return dict.fromkeys(APNS_FIELDS, path)
        # Apple names the file after the key: AuthKey_ABC1234567.p8
        named = re.fullmatch(r"AuthKey_([A-Z0-9]{10})", Path(path).stem)
        known = {**stored, "apns_key_id": named[1] if named else None}
        given = {
            "apns_key_id": _ask_or_known("APNs key id, 10 letters and digits", known.get("apns_key_id")),
            "apns_team_id": _ask_or_known("Apple team id, 10 letters and digits", known.get("apns_team_id")),
            "apns_topic": _ask_or_known("Bundle id of the app, such as com.example.app", known.get("apns_topic")),
        }
        if found := apns_key_fault(file_of_caller(path), **given):
            print(found)
            continue
        return {"apns_key": file_of_caller(path).read_text(), **given}


def _ask_or_known(question: str, known: str | None) -> str:
    return input(f"{question}{f' (Enter: {known})' if known else ''}: ").strip() or known or ""


def service_account_fault(path: Path) -> str | None:
    """Why a file is no service account, without quoting it; None if it is one."""
    try:
        parse_service_account(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        return f"fcm_service_account: {path} cannot be read: {type(error).__name__}."
    except CredentialInvalid as error:
        return (
            f"fcm_service_account: {error}. You find it in the Firebase console, Project settings, Service accounts, "
            "Generate new private key."
        )
    return None


def apns_key_fault(path: Path, apns_key_id: str, apns_team_id: str, apns_topic: str) -> str | None:
    """Why a file, or what belongs to it, is no key of APNs, without quoting it; None if it is one."""
    try:
        parse_apns_key(path.read_text(errors="replace"), apns_key_id, apns_team_id, apns_topic)
    except OSError as error:
        return f"apns_key: {path} cannot be read: {type(error).__name__}."
    except CredentialInvalid as error:
        return (
            f"apns_key: {error}. You find the key at developer.apple.com, Certificates, Identifiers & Profiles, Keys; "
            "Apple offers each file once. The team id is under Membership details."
        )
    return None


def _ask_for_webhook() -> WebhookSecretChange:
    choices: dict[str, WebhookSecretChange] = {"": "keep", "r": "rotate", "f": "forget"}
    answer = _ask_until_valid(
        lambda: input("Webhook secret (Enter: keep it, r: rotate it, f: forget the previous one): ").strip(),
        lambda given: None if given in choices else "Webhook secret: answer with Enter, r or f.",
    )
    return choices[answer]


def _ask_until_valid(ask: Callable[[], str], fault: Callable[[str], str | None]) -> str:
    while found := fault(value := ask()):
        print(found)
    return value
