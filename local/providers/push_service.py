"""What the fake push services have in common: the phones, a clock that can be put forward, and awaiting events."""

import asyncio
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from uuid import UUID

from local.providers.phones import Arrival, Condition, Phone

type Clock = Callable[[], datetime]

CONTROL_PATH = "/control"  # where the control API of a service begins


class PushService:
    """The phones that a push service reaches, by their token."""

    url: str  # to be used in place of the real service; set while it is served

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._change = asyncio.Event()
        self._forget()

    def _forget(self) -> None:
        self._ahead = timedelta(0)
        self.phones: dict[str, Phone] = {}

    @property
    def control_url(self) -> str:
        """Where the control API begins."""
        return f"{self.url}{CONTROL_PATH}"

    def change_phone(self, token: str, condition: Condition) -> Phone:
        """A person switches the phone on or off, closes the app, or signs in. What was held for the phone arrives.

        Raises KeyError: no such phone.
        """
        phone = self.phones[token]
        phone.change(condition, self.now())
        self.changed()
        return phone

    def open_app(self, token: str, unread_conversations: Collection[str | UUID], badge: int) -> Phone:
        """A person opens the app, which reads from the database what is unread, and the badge.

        Raises KeyError: no such phone.
        """
        phone = self.phones[token]
        phone.open(unread_conversations, badge, self.now())
        self.changed()
        return phone

    def pass_time(self, seconds: float) -> None:
        """Puts the clock of the service and of the phones forward, so that what they hold expires."""
        self._ahead += timedelta(seconds=seconds)

    def reset(self) -> None:
        """Forgets phones, faults, requests, settings, passed time and whatever else the service keeps."""
        self._forget()
        self.changed()

    async def until[T](self, condition: Callable[[], T], seconds: float = 30) -> T:
        """The first true value of `condition`, which is evaluated after every push request. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not (found := condition()):
                await self._change.wait()
        return found

    async def arrival(self, token: str, message_id: str, seconds: float = 30) -> Arrival:
        """The first notification of a chat message (`data.messageId`) on a phone, awaited for some seconds.

        Raises TimeoutError, with what did arrive; KeyError: no such phone.
        """
        phone = self.phones[token]

        def arrived() -> list[Arrival]:
            return [arrival for arrival in phone.arrived if arrival.message_id == message_id]

        try:
            return (await self.until(arrived, seconds))[0]
        except TimeoutError as error:
            others = [arrival.message_id for arrival in phone.arrived]
            raise TimeoutError(f"no {message_id} on {token} within {seconds} s; arrived: {others}") from error

    def now(self) -> datetime:
        """The time by the clock of the service."""
        return self._clock() + self._ahead

    def changed(self) -> None:
        """Wakes every waiting `until`."""
        self._change.set()
        self._change = asyncio.Event()
