"""The state of the fake Expo push service: phones, tickets, receipts, scripted faults, and the log of requests.

`install` adds a phone. `script` adds a fault (faults.py). push_api.py answers sends and receipts from this state, as
https://exp.host does. control.py offers the methods over HTTP.
"""

from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from local.providers.expo import protocol as expo_protocol
from local.providers.expo.faults import Endpoint, Fault, RecipientFault, Script, ScriptedFaults, TicketError
from local.providers.expo.protocol import PUSH_TOKEN, Json, PushMessage
from local.providers.phones import DeadTokenReport, Installation, Phone
from local.providers.push_service import PushService
from local.providers.pushes import Platform


class Settings(BaseModel):
    """How the service behaves when no fault strikes."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    latency_seconds: Annotated[float, Field(ge=0)] = 0  # between the effect of a request and its answer
    rate_limit_per_second: Annotated[int, Field(ge=1)] = 600  # notifications per project
    access_token: str | None = None  # if set, every request needs it as its bearer ("enhanced push security")
    receipt_delay_seconds: Annotated[float, Field(ge=0)] = 0  # from a send to its receipts; up to 30 minutes at Expo


class LoggedRequest(BaseModel):
    """A request to one of the two endpoints."""

    at: AwareDatetime
    endpoint: Endpoint
    headers: dict[str, str]  # names in lower case; the value of `authorization` is left out
    tokens: list[str] = []  # the recipients, or those of the requested receipts
    receipt_ids: list[str] = []
    fault: str | None = None  # kind of the fault that struck the whole request
    status: int | None = None  # None: not answered yet, or reset


class ExpoInstallation(Installation):
    """The app on a phone that has a push token of Expo."""

    token: Annotated[str, Field(pattern=PUSH_TOKEN, max_length=100)]
    platform: Literal["ios", "android"]
    project: Annotated[str, Field(pattern=r"^@[^/\s]+/[^/\s]+$")] = "@chat-push/app"


@dataclass(frozen=True)
class _Receipt:
    token: str
    sent_at: datetime
    outcome: Json


class ExpoService(PushService):
    """The state of the fake service: phones, receipts, scripted faults, and the log of requests."""

    def _forget(self) -> None:
        super()._forget()
        self.settings = Settings()
        self.faults = ScriptedFaults()
        self.requests: list[LoggedRequest] = []
        self._receipts: dict[str, _Receipt] = {}  # by ticket id
        self._recent_sends: defaultdict[str, deque[tuple[datetime, int]]] = defaultdict(deque)  # by project

    # For tests, the local cloud and the control API

    def install(
        self,
        token: str,
        platform: Platform,
        project: str = "@chat-push/app",
        channels: Collection[str] = ("chat-messages", "chat-messages-quiet"),
    ) -> Phone:
        """The app starts on a phone and gets `token` from Expo. Replaces an earlier phone with this token.

        Raises ValueError: not a push token, a platform without Expo, not a project ("@owner/slug").
        """
        installation = ExpoInstallation(token=token, platform=platform, project=project, channels=frozenset(channels))
        phone = Phone(**dict(installation))
        self.phones[token] = phone
        return phone

    def uninstall(self, token: str, report: DeadTokenReport = "ticket") -> Phone:
        """The app is removed. Expo reports it in the ticket, or only in the receipt.

        Raises KeyError: no such phone.
        """
        phone = self.phones[token]
        phone.uninstalled = report
        return phone

    def script(self, fault: Fault, times: int = 1, on: Endpoint = "send", token: str | None = None) -> None:
        """`fault` strikes the next `times` requests to an endpoint, or the next that concern `token`.

        Scripts strike in the order in which they were made. Raises ValueError: the fault cannot strike there.
        """
        self.faults.scripts.append(Script(fault=fault, times=times, on=on, token=token))

    def configure(self, changes: Mapping[str, object]) -> Settings:
        """Changes some settings; returns all. Raises pydantic's ValidationError, and then changes nothing."""
        self.settings = Settings.model_validate({**self.settings.model_dump(), **changes})
        return self.settings

    # For the push API

    def check_project(self, tokens: Iterable[str]) -> None:
        """Raises RefusedError: the tokens belong to several projects. An unknown token belongs to none."""
        tokens_of: defaultdict[str, list[str]] = defaultdict(list)
        for token in tokens:
            if phone := self.phones.get(token):
                tokens_of[phone.project].append(token)
        if len(tokens_of) > 1:
            raise expo_protocol.mixed_projects(tokens_of)

    def accept(self, messages: list[PushMessage]) -> list[Json]:
        """Sends messages to the phones of one project; returns a ticket for each recipient, in their order.

        Raises RefusedError: the project has sent too many in the last second.
        """
        tokens = [token for message in messages for token in message.to]
        self._check_rate(tokens)
        faults = self.faults.take_recipient_faults(tokens)
        tickets = [
            self._ticket(token, payload, faults.get(token))
            for message in messages
            for payload in [message.payload()]
            for token in message.to
        ]
        self.changed()
        return tickets

    def receipts(self, ids: Iterable[str]) -> Json:
        """The receipts by ticket id. Those unknown, not ready yet, or 24 hours old are absent."""
        delay = timedelta(seconds=self.settings.receipt_delay_seconds)
        found = {ticket_id: self._receipts[ticket_id] for ticket_id in ids if ticket_id in self._receipts}
        return {
            ticket_id: receipt.outcome
            for ticket_id, receipt in found.items()
            if delay <= self.now() - receipt.sent_at < expo_protocol.RECEIPTS_KEPT
        }

    def tokens_of(self, ticket_ids: Iterable[str]) -> list[str]:
        """The recipients that these tickets were given for."""
        return [self._receipts[ticket_id].token for ticket_id in ticket_ids if ticket_id in self._receipts]

    def _check_rate(self, tokens: Iterable[str]) -> None:
        known = [self.phones[token] for token in tokens if token in self.phones]
        if not known:
            return
        recent = self._recent_sends[known[0].project]
        while recent and self.now() - recent[0][0] >= timedelta(seconds=1):
            recent.popleft()
        limit = self.settings.rate_limit_per_second
        if sum(count for _, count in recent) + len(known) > limit:
            raise expo_protocol.too_many_requests(limit)
        recent.append((self.now(), len(known)))

    def _ticket(self, token: str, payload: Json, fault: RecipientFault | None) -> Json:
        """Sends to one recipient."""
        if isinstance(fault, TicketError):
            return fault.outcome()
        phone = self.phones.get(token)
        if phone is None or phone.uninstalled == "ticket":
            return expo_protocol.not_registered_ticket(token)
        ticket_id = str(expo_protocol.uuid7(self.now()))
        outcome = self._receipt_error(phone, payload) if fault is None else fault.outcome()
        if outcome is None:
            phone.receive(payload, ticket_id, self.now())
        self._receipts[ticket_id] = _Receipt(token, self.now(), outcome or {"status": "ok"})
        return {"status": "ok", "id": ticket_id}

    def _receipt_error(self, phone: Phone, payload: Json) -> Json | None:
        """The error by which APNs or FCM reject the notification; None: they accept it."""
        if (size := expo_protocol.payload_bytes(payload)) > expo_protocol.MAX_PAYLOAD_BYTES:
            return expo_protocol.error_outcome(f"The notification payload was too big ({size} bytes)", "MessageTooBig")
        if phone.uninstalled:
            return expo_protocol.error_outcome(
                "The recipient device is not registered with its provider", "DeviceNotRegistered"
            )
        return None
