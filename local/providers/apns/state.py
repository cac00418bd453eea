"""The state of the fake APNs: phones, keys, scripted faults, and the log of requests.

`install` adds a phone. `script` adds a fault (faults.py). push_api.py answers requests from this state. connection.py
speaks HTTP/2.
"""

from collections import defaultdict, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal, Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter

from local.providers.apns.faults import Endpoint, Fault, Script
from local.providers.apns.protocol import CLOSING, DEVICE_TOKEN, ApnsNotification, Environment, Json, RejectedError
from local.providers.apns.provider_tokens import ProviderKey, new_id, new_key
from local.providers.phones import Phone
from local.providers.push_service import Clock, PushService
from local.providers.scripts import ScriptedFaults

ENVIRONMENTS: tuple[Environment, ...] = ("production", "sandbox")
TOPIC = "com.example.chat"  # the bundle id of the app

_DEVICE_TOKEN: TypeAdapter[str] = TypeAdapter(Annotated[str, Field(pattern=DEVICE_TOKEN)])


class Settings(BaseModel):
    """How the service behaves when no fault strikes."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    latency_seconds: Annotated[float, Field(ge=0)] = 0  # from a request to its effect and its answer
    streams: Annotated[int, Field(ge=1)] = 1000  # at once on a connection, after its first valid provider token
    device_limit_per_minute: Annotated[int, Field(ge=1)] | None = None  # Apple documents no number
    topics: frozenset[str] = frozenset({TOPIC})  # the apps of the team


class LoggedRequest(BaseModel):
    """A request, valid or not."""

    at: AwareDatetime
    connection: int  # 1 for the first connection since the service started
    environment: Environment
    token: str  # the device token, or what the path has instead
    headers: dict[str, str]  # names in lower case, with `:method` and `:path`; the value of `authorization` is left out
    provider_token: str | None = None  # a digest, which is equal for equal provider tokens
    payload: Json | None = None  # None: not JSON
    fault: str | None = None  # kind of the fault that struck
    status: int | None = None  # None: not answered
    reason: str | None = None


@dataclass
class Registration:
    """A device token: the app on a phone, as APNs knows it."""

    environment: Environment
    topic: str
    phone: Phone
    gone: Literal["Unregistered", "ExpiredToken"] | None = None  # the reason of status 410
    gone_at: datetime | None = None  # since when the app is not on the phone; None: it is


class Connection(Protocol):
    """An open connection of a sender."""

    def abort(self) -> None:
        """Closes the TCP connection at once."""

    def go_away(self, reason: str | None) -> None:
        """Sends GOAWAY, and closes the connection without further answers."""


class ApnsService(PushService):
    """The state of the fake service. Production and sandbox are two ports; they differ by nothing else."""

    # Set while it is served; `url` is to be used in place of https://api.push.apple.com
    sandbox_url: str  # to be used in place of https://api.sandbox.push.apple.com
    authority: str  # path of the PEM file of the authority that clients have to trust

    def __init__(self, clock: Clock) -> None:
        self.key = new_key(new_id(), ENVIRONMENTS, ())  # for all topics; outlives `reset`
        self.connections: set[Connection] = set()
        self.connection_count = 0  # since the service started
        super().__init__(clock)

    def _forget(self) -> None:
        super()._forget()
        self.settings = Settings()
        self.registrations: dict[str, Registration] = {}  # by device token
        self.keys: dict[str, ProviderKey] = {self.key.id: self.key}  # by key id; one that is deleted was revoked
        self.faults: ScriptedFaults[Fault, Endpoint] = ScriptedFaults()
        self.requests: list[LoggedRequest] = []
        self._recent: defaultdict[str, deque[datetime]] = defaultdict(deque)  # by device token

    # For tests and the local cloud

    def install(self, token: str, environment: Environment = "production", topic: str = TOPIC) -> Phone:
        """The app starts on an iPhone and gets this device token. Replaces an earlier phone with this token.

        `environment` is "sandbox" for an app that Xcode has installed. Raises ValueError: not lower-case hexadecimal
        digits of at least 32 bytes.
        """
        _DEVICE_TOKEN.validate_python(token)
        phone = Phone(token=token, platform="ios", provider="apns")
        self.phones[token] = phone
        self.registrations[token] = Registration(environment, topic, phone)
        return phone

    def uninstall(self, token: str, reason: Literal["Unregistered", "ExpiredToken"] | None = "Unregistered") -> Phone:
        """The app is removed now. APNs answers 410 with this reason and the time.

        None: APNs has not noticed it yet. It accepts notifications, and nothing arrives.

        Raises KeyError: no such phone.
        """
        registration = self.registrations[token]
        registration.gone, registration.gone_at = reason, self.now()
        registration.phone.uninstalled = "ticket" if reason else None
        return registration.phone

    def add_key(
        self, environments: Collection[Environment] = ENVIRONMENTS, topics: Collection[str] = ()
    ) -> ProviderKey:
        """A further key of the team. Without topics, it is for all topics of the team."""
        key = new_key(self.key.team_id, environments, topics)
        self.keys[key.id] = key
        return key

    def script(self, fault: Fault, times: int = 1, on: Endpoint = "send", token: str | None = None) -> None:
        """`fault` strikes the next `times` valid requests, the next that concern `token`, or the next connections.

        Scripts strike in the order in which they were made. Raises ValueError: the fault cannot strike there.
        """
        self.faults.scripts.append(Script(fault=fault, times=times, on=on, token=token))

    def close_connections(self, reason: Literal["IdleTimeout", "Shutdown"] = "Shutdown") -> None:
        """Ends all connections with GOAWAY. Nothing of what was not answered yet is delivered."""
        assert reason in CLOSING
        for connection in list(self.connections):
            connection.go_away(reason)

    def configure(self, changes: Mapping[str, object]) -> Settings:
        """Changes some settings; returns all. Raises pydantic's ValidationError, and then changes nothing."""
        self.settings = Settings.model_validate({**self.settings.model_dump(), **changes})
        return self.settings

    # For the push API

    def check(self, notification: ApnsNotification, environment: Environment, key: ProviderKey) -> None:
        """Raises RejectedError: the key must not send this, or the device does not take it."""
        if notification.topic not in (key.topics or self.settings.topics):
            raise RejectedError("TopicDisallowed")
        registration = self.registrations.get(notification.token)
        if registration is None or registration.environment != environment:
            raise RejectedError("BadDeviceToken")
        if registration.topic != notification.topic:
            raise RejectedError("DeviceTokenNotForTopic")
        if registration.gone is not None:
            raise RejectedError(registration.gone, registration.gone_at)
        self._check_rate(notification.token)

    def deliver(self, notification: ApnsNotification) -> None:
        """The phone receives the notification, if the app is still there."""
        registration = self.registrations.get(notification.token)
        if registration is not None and registration.gone_at is None:
            registration.phone.receive(notification.phone_message(), notification.id, self.now())

    def _check_rate(self, token: str) -> None:
        limit = self.settings.device_limit_per_minute
        if limit is None:
            return
        recent = self._recent[token]
        while recent and self.now() - recent[0] >= timedelta(minutes=1):
            recent.popleft()
        if len(recent) >= limit:
            raise RejectedError("TooManyRequests")
        recent.append(self.now())
