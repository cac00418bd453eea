"""A client that we did not write, firebase-admin, drives the fake FCM unchanged."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import firebase_admin
import pytest
from firebase_admin import credentials, exceptions, messaging

from local.providers.fcm.faults import ErrorName, FcmError, GoAway, HtmlError, OAuthError, Reset
from local.providers.fcm.protocol import MAX_TTL_SECONDS
from local.providers.fcm.state import FcmService
from tests.local.providers.fcm.sending import BROWSER, FOREIGN, PIXEL, STRANGER

pytestmark = [
    pytest.mark.allow_hosts(["127.0.0.1"]),
    # It prefers installation ids, which the app's library does not offer.
    pytest.mark.filterwarnings("ignore:Message.token is deprecated:DeprecationWarning"),
]

type Send = Callable[..., Awaitable[messaging.BatchResponse]]

MALFORMED = "not-a-token"


@pytest.fixture
def app(secure_fcm: FcmService, monkeypatch: pytest.MonkeyPatch) -> Iterator[firebase_admin.App]:
    """The client, with a key file whose endpoint is the fake. It has no option for the host of FCM."""
    assert secure_fcm.ca_file is not None
    url = f"{secure_fcm.url}/v1/projects/{{0}}/messages:send"
    monkeypatch.setattr(messaging._MessagingService, "FCM_URL", url)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", secure_fcm.ca_file)
    monkeypatch.setenv("SSL_CERT_FILE", secure_fcm.ca_file)
    app = firebase_admin.initialize_app(credentials.Certificate(secure_fcm.service_account()))
    yield app
    firebase_admin.delete_app(app)


@pytest.fixture
def send_async(app: firebase_admin.App) -> Iterator[Send]:
    """Sends with `send_each_async`, in a loop of its own: the client blocks its loop while it fetches a token."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def run[T](coroutine: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))

    async def send(messages: list[messaging.Message], dry_run: bool = False) -> messaging.BatchResponse:
        return await run(messaging.send_each_async(messages, dry_run=dry_run, app=app))

    yield send
    asyncio.run_coroutine_threadsafe(messaging._get_messaging_service(app)._async_client.aclose(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def send_sync(app: firebase_admin.App) -> Send:
    """Sends with `send_each`."""

    async def send(messages: list[messaging.Message], dry_run: bool = False) -> messaging.BatchResponse:
        return await asyncio.to_thread(messaging.send_each, messages, dry_run=dry_run, app=app)

    return send


@pytest.fixture(params=["send_sync", "send_async"])
def send(request: pytest.FixtureRequest) -> Send:
    """Sends with either function."""
    chosen: Send = request.getfixturevalue(request.param)
    return chosen


def message(token: str, text: str = "Hello") -> messaging.Message:
    """A message with whatever the client can say for a phone and for a browser."""
    return messaging.Message(
        token=token,
        data={"messageId": "m1", "conversationId": "r1"},
        notification=messaging.Notification(title="Ana", body=text),
        android=messaging.AndroidConfig(
            collapse_key="r1",
            priority="high",
            ttl=60,
            notification=messaging.AndroidNotification(
                tag="r1", channel_id="chat-messages", sound="default", notification_count=3
            ),
        ),
        webpush=messaging.WebpushConfig(
            headers={"TTL": "60", "Urgency": "high"},
            notification=messaging.WebpushNotification(title="Ana", body=text, tag="r1", renotify=True),
            fcm_options=messaging.WebpushFCMOptions(link="https://chat.example/r1"),
        ),
    )


async def test_phones_and_browsers_show_what_the_client_sends(secure_fcm: FcmService, send: Send) -> None:
    batch = await send([message(PIXEL), message(BROWSER)])
    assert [response.exception for response in batch.responses] == [None, None]
    [on_phone], [in_browser] = (secure_fcm.phones[token].shown for token in (PIXEL, BROWSER))
    assert [response.message_id for response in batch.responses] == [on_phone.ticket_id, in_browser.ticket_id]
    assert on_phone.message == {
        "title": "Ana",
        "body": "Hello",
        "tag": "r1",
        "channelId": "chat-messages",
        "sound": "default",
        "badge": 3,
        "priority": "high",
        "ttl": 60,
        "collapseId": "r1",
        "data": {"messageId": "m1", "conversationId": "r1"},
    }
    assert in_browser.message == {
        "title": "Ana",
        "body": "Hello",
        "tag": "r1",
        "renotify": True,
        "priority": "high",
        "ttl": 60,
        "data": {"messageId": "m1", "conversationId": "r1"},
    }


async def test_the_sync_client_speaks_http_1_and_the_async_client_http_2(
    secure_fcm: FcmService, send_sync: Send, send_async: Send
) -> None:
    await send_sync([message(PIXEL)])
    await send_async([message(PIXEL)])
    assert [(request.endpoint, request.http_version) for request in secure_fcm.requests] == [
        ("token", "HTTP/1.1"),
        ("send", "HTTP/1.1"),
        ("send", "HTTP/2"),
    ]


async def test_a_hundred_messages_arrive_with_one_grant(secure_fcm: FcmService, send: Send) -> None:
    assert (await send([message(PIXEL)])).success_count == 1  # the threads of the client would each fetch a token
    assert (await send([message(PIXEL, str(number)) for number in range(100)])).success_count == 100
    assert len(secure_fcm.phones[PIXEL].arrived) == 101
    assert [request.endpoint for request in secure_fcm.requests].count("token") == 1


async def test_the_client_raises_the_class_of_each_wrong_token(secure_fcm: FcmService, send: Send) -> None:
    secure_fcm.uninstall(BROWSER)
    batch = await send([message(token) for token in (PIXEL, STRANGER, BROWSER, FOREIGN, MALFORMED)])
    assert [type(response.exception) for response in batch.responses] == [
        type(None),
        messaging.UnregisteredError,
        messaging.UnregisteredError,
        messaging.SenderIdMismatchError,
        exceptions.InvalidArgumentError,
    ]


# A fault, and the class that the client raises for it. Faults that it retries with pauses have tests below.
FAULTS: dict[str, tuple[FcmError | HtmlError, type[exceptions.FirebaseError]]] = {
    **{
        name: (FcmError(error=name), error_class)
        for name, error_class in [
            *dict[ErrorName, type[exceptions.FirebaseError]](
                UNREGISTERED=messaging.UnregisteredError,
                NOT_FOUND=exceptions.NotFoundError,
                INVALID_TOKEN=exceptions.InvalidArgumentError,
                INVALID_TOKEN_FIELD=exceptions.InvalidArgumentError,
                INVALID_FIELD=exceptions.InvalidArgumentError,
                INVALID_PAYLOAD=exceptions.InvalidArgumentError,
                TOO_BIG=exceptions.InvalidArgumentError,
                SENDER_ID_MISMATCH=messaging.SenderIdMismatchError,
                PERMISSION_DENIED=exceptions.PermissionDeniedError,
                SERVICE_DISABLED=exceptions.PermissionDeniedError,
                THIRD_PARTY_AUTH_ERROR=messaging.ThirdPartyAuthError,
                APNS_AUTH_ERROR=messaging.ThirdPartyAuthError,
                QUOTA_EXCEEDED=messaging.QuotaExceededError,
            ).items()
        ]
    },
    "502 of a gateway": (HtmlError(status=502), exceptions.UnknownError),
    "504 of a gateway": (HtmlError(status=504), exceptions.UnknownError),
}


@pytest.mark.parametrize(("fault", "error_class"), FAULTS.values(), ids=FAULTS)
async def test_the_client_raises_the_class_of_each_fault(
    secure_fcm: FcmService, send: Send, fault: FcmError | HtmlError, error_class: type[exceptions.FirebaseError]
) -> None:
    secure_fcm.script(fault, times=3)  # the client repeats every 401 with another access token
    [response] = (await send([message(PIXEL)])).responses
    assert type(response.exception) is error_class
    assert secure_fcm.phones[PIXEL].arrived == []


@pytest.mark.parametrize("error", ["INTERNAL", "UNAVAILABLE", "UNAUTHENTICATED"])
async def test_the_client_repeats_a_request_after_a_passing_error(
    secure_fcm: FcmService, send: Send, error: ErrorName
) -> None:
    secure_fcm.script(FcmError(error=error))
    assert (await send([message(PIXEL)])).success_count == 1
    statuses = [request.status for request in secure_fcm.requests if request.endpoint == "send"]
    assert len(statuses) == 2
    assert statuses[1] == 200
    fetches = [request.endpoint for request in secure_fcm.requests].count("token")
    assert fetches == (2 if error == "UNAUTHENTICATED" else 1)


async def test_the_sync_client_shows_a_message_twice_after_a_reset_that_hides_a_delivery(
    secure_fcm: FcmService, send_sync: Send
) -> None:
    secure_fcm.script(Reset(accepted=True))
    assert (await send_sync([message(PIXEL)])).success_count == 1
    assert (len(secure_fcm.phones[PIXEL].arrived), len(secure_fcm.phones[PIXEL].shown)) == (2, 1)


async def test_the_client_reports_a_goaway_that_names_no_stream(secure_fcm: FcmService, send_async: Send) -> None:
    secure_fcm.script(GoAway(last_stream="zero", reason="session_timed_out"))
    [response] = (await send_async([message(PIXEL)])).responses
    assert type(response.exception) is exceptions.UnknownError
    assert (await send_async([message(PIXEL)])).success_count == 1


async def test_the_client_repeats_what_a_goaway_leaves_unhandled(secure_fcm: FcmService, send_async: Send) -> None:
    await send_async([message(PIXEL)])
    secure_fcm.script(GoAway(last_stream="earlier"))
    assert (await send_async([message(PIXEL)])).success_count == 1
    assert len(secure_fcm.phones[PIXEL].arrived) == 2


async def test_a_deleted_key_gets_no_access_token(secure_fcm: FcmService, send: Send) -> None:
    secure_fcm.script(OAuthError(error="invalid_grant"), on="token", times=2)
    with pytest.raises(exceptions.UnknownError, match="invalid_grant"):
        await send([message(PIXEL)])
    assert [request.status for request in secure_fcm.requests] == [400]


async def test_a_dry_run_reaches_no_phone(secure_fcm: FcmService, send: Send) -> None:
    batch = await send([message(PIXEL), message(STRANGER)], dry_run=True)
    assert [response.success for response in batch.responses] == [True, False]
    assert secure_fcm.phones[PIXEL].arrived == []


async def test_the_longest_ttl_of_the_client_is_accepted(secure_fcm: FcmService, send: Send) -> None:
    longest = messaging.Message(token=PIXEL, android=messaging.AndroidConfig(ttl=MAX_TTL_SECONDS), data={"a": "b"})
    too_long = messaging.Message(token=PIXEL, android=messaging.AndroidConfig(ttl=MAX_TTL_SECONDS + 1), data={"a": "b"})
    batch = await send([longest, too_long])
    assert [type(response.exception) for response in batch.responses] == [type(None), exceptions.InvalidArgumentError]
