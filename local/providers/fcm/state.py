"""The state of the fake FCM: phones, accounts, scripted faults, and the log of requests.

`service_account` makes a key file, `install` adds a phone, `script` adds a fault (faults.py). push_api.py answers from
this state, as https://fcm.googleapis.com and https://oauth2.googleapis.com do.
"""

import secrets
from asyncio import Transport
from collections import defaultdict, deque
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from local.providers.fcm import protocol as fcm_protocol
from local.providers.fcm.accounts import TOKEN_PATH, Accounts
from local.providers.fcm.connections import Connection
from local.providers.fcm.faults import AnyFault, Endpoint, Script
from local.providers.fcm.protocol import PROJECT_ID, REGISTRATION_TOKEN, Message
from local.providers.fcm.translation import push_of
from local.providers.phones import Installation, Phone
from local.providers.push_service import Clock, PushService
from local.providers.pushes import QUIET_CHANNEL, Platform
from local.providers.scripts import ScriptedFaults


class Settings(BaseModel):
    """How the service behaves when no fault strikes."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    latency_seconds: Annotated[float, Field(ge=0)] = 0  # between the effect of a request and its answer
    # https://firebase.google.com/docs/cloud-messaging/throttling-and-quotas
    messages_per_minute: Annotated[int, Field(ge=1)] = 600_000  # of a project
    device_messages_per_minute: Annotated[int, Field(ge=1)] = 240  # to one Android device
    token_seconds: Annotated[int, Field(ge=1)] = 3600  # how long an access token lives


class LoggedRequest(BaseModel):
    """A request to one of the two endpoints."""

    at: AwareDatetime
    endpoint: Endpoint
    http_version: Literal["HTTP/1.1", "HTTP/2"]
    connection: int  # number of the connection, from 1
    stream: int  # of HTTP/2; 0 in HTTP/1.1
    headers: dict[str, str]  # names in lower case; the value of `authorization` is left out
    token: str | None = None  # the recipient
    validate_only: bool = False
    fault: str | None = None  # kind of the fault that struck
    status: int | None = None  # None: not answered yet, or never


class FcmInstallation(Installation):
    """The app on a phone, or a web site in a browser, with a registration token of FCM."""

    token: Annotated[str, Field(pattern=REGISTRATION_TOKEN)]
    project: Annotated[str, Field(pattern=PROJECT_ID)] = "chat-push"


def registration_token(name: str) -> str:
    """A well-formed registration token that begins with a name of up to 22 letters, digits, - and _."""
    return f"{name:0<22}:APA91b{'x' * 134}"


class FcmService(PushService):
    """The state of the fake service: phones, accounts, scripted faults, and the log of requests."""

    ca_file: str | None = None  # PEM of the authority that a client has to trust; None: served without TLS

    def __init__(self, clock: Clock) -> None:
        self.accounts = Accounts()  # outlive `reset`
        super().__init__(clock)
        self.connections: Mapping[Transport, Connection] = {}  # the open ones, oldest first; set while it is served

    def _forget(self) -> None:
        super()._forget()
        self.settings = Settings()
        self.faults: ScriptedFaults[AnyFault, Endpoint] = ScriptedFaults()
        self.requests: list[LoggedRequest] = []
        self._sent: defaultdict[str, deque[datetime]] = defaultdict(deque)  # by project, and by token

    # For tests and the local cloud

    @property
    def token_url(self) -> str:
        """The token endpoint, to be used in place of https://oauth2.googleapis.com/token."""
        return f"{self.url}{TOKEN_PATH}"

    def service_account(self, project: str = "chat-push", *, may_send: bool = True) -> dict[str, str]:
        """The JSON key file of a new service account, as the Firebase console offers it.

        With `may_send=False` the account lacks the role to send messages.
        """
        return self.accounts.create_key(project, self.token_url, may_send=may_send)

    def install(
        self,
        token: str,
        platform: Platform,
        project: str = "chat-push",
        channels: Collection[str] = ("chat-messages", QUIET_CHANNEL),
    ) -> Phone:
        """The app starts on a phone and gets `token` from FCM. Replaces an earlier phone with this token.

        A token for tests is `registration_token(name)`. Raises ValueError: not a registration token, not a project id.
        """
        installation = FcmInstallation(token=token, platform=platform, project=project, channels=frozenset(channels))
        phone = Phone(**dict(installation), provider="fcm")
        self.phones[token] = phone
        return phone

    def uninstall(self, token: str) -> Phone:
        """The app is removed, or the token replaced. FCM reports it in the answer. Raises KeyError: no such phone."""
        phone = self.phones[token]
        phone.uninstalled = "ticket"
        return phone

    def script(self, fault: AnyFault, times: int = 1, on: Endpoint = "send", token: str | None = None) -> None:
        """`fault` strikes the next `times` requests to an endpoint, or the next that concern `token`.

        On `connect` it strikes new connections. Scripts strike in the order in which they were made.
        Raises ValueError: the fault cannot strike there.
        """
        self.faults.scripts.append(Script(fault=fault, times=times, on=on, token=token))

    def end_connections(self, how: Literal["reset", "close", "silence"]) -> None:
        """Ends all open connections, in the middle of their requests.

        silence: they stay open, and nothing that a client writes is answered.
        """
        for connection in list(self.connections.values()):
            match how:
                case "reset":
                    connection.reset()
                case "close":
                    connection.close()
                case "silence":
                    connection.silence()

    def configure(self, changes: Mapping[str, object]) -> Settings:
        """Changes some settings; returns all. Raises pydantic's ValidationError, and then changes nothing."""
        self.settings = Settings.model_validate({**self.settings.model_dump(), **changes})
        return self.settings

    # For the push API

    def check(self, access_token: str | None, project: str) -> None:
        """Raises RefusedError: the access token is not valid, or its account may not send messages of the project."""
        found = None if access_token is None else self.accounts.account_of(access_token, self.now())
        if found is None:
            raise fcm_protocol.unauthenticated()
        account, has_scope = found
        if not has_scope:
            raise fcm_protocol.insufficient_scope()
        if account.project != project or not account.may_send:
            raise fcm_protocol.permission_denied(project)

    def send(self, message: Message, project: str, *, validate_only: bool) -> str:
        """Sends a message to its phone; returns its name. A topic or a condition reaches no phone.

        Raises RefusedError: the quota is used up, or FCM rejects the message or its token.
        """
        self._count(f"project {project}", self.settings.messages_per_minute)
        phone = self._phone(message, project)
        if validate_only:
            return f"projects/{project}/messages/fake_message_id"
        name = f"projects/{project}/messages/0:{int(self.now().timestamp() * 1e6)}%{secrets.token_hex(8)}"
        if phone is not None:
            if phone.platform == "android":
                self._count(phone.token, self.settings.device_messages_per_minute)
            phone.receive(push_of(message, phone.platform, phone.channels), name, self.now())
            self.changed()
        return name

    def _phone(self, message: Message, project: str) -> Phone | None:
        if not message.device:
            return None
        fcm_protocol.check_token(message.device)
        phone = self.phones.get(message.device)
        if phone is None or phone.uninstalled:
            raise fcm_protocol.unregistered()
        if phone.project != project:
            raise fcm_protocol.sender_id_mismatch()
        if phone.platform == "ios":
            fcm_protocol.check_ios(message)
        return phone

    def _count(self, key: str, limit: int) -> None:
        """Counts a message of the last minute. Raises RefusedError: there are too many."""
        sent = self._sent[key]
        while sent and self.now() - sent[0] >= timedelta(minutes=1):
            sent.popleft()
        if len(sent) >= limit:
            raise fcm_protocol.quota_exceeded()
        sent.append(self.now())
