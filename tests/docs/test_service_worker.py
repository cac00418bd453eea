"""The service worker of docs/client for web apps, in Node with the browser's objects that it uses."""

import json
import subprocess
from datetime import UTC, datetime
from typing import Any

from chat_push.models import Push
from chat_push.notification import notifications

from local.packages import PROJECT
from tests.http_fakes import push, uuid

WORKER = PROJECT / "docs" / "client" / "firebase-messaging-sw.js"
ROOM, OTHER_ROOM = uuid(7001), uuid(7009)

# Runs events one after the other, and prints what is shown, the badge, and the pages that were opened.
BROWSER = """
const listeners = {}, state = { shown: [], badge: null, opened: [] };
let clock = Date.parse('2026-11-22T10:00:00Z');
globalThis.self = globalThis;
self.addEventListener = (name, listener) => { listeners[name] = listener; };
self.registration = {
  async showNotification(title, options) {
    state.shown = state.shown.filter((one) => one.tag !== options.tag);
    const notification = { title, ...options, timestamp: clock };
    notification.close = () => { state.shown = state.shown.filter((one) => one !== notification); };
    state.shown.push(notification);
  },
  async getNotifications() { return [...state.shown]; },
};
self.clients = { async matchAll() { return []; }, async openWindow(url) { state.opened.push(url); } };
Object.defineProperty(globalThis, 'navigator', { value: {
  async setAppBadge(number) { state.badge = number; },
  async clearAppBadge() { state.badge = 0; },
} });
require('node:vm').runInThisContext(require('node:fs').readFileSync(process.argv[1], 'utf8'));
(async () => {
  for (const { at, message, click } of JSON.parse(process.argv[2])) {
    clock = Date.parse(at);
    const work = [];
    const event = { waitUntil: (promise) => work.push(promise) };
    if (message) listeners.push({ ...event, data: { json: () => message } });
    else listeners.notificationclick({ ...event, notification: state.shown[click] });
    await Promise.all(work);
  }
  console.log(JSON.stringify(state));
})();
"""


def message(at: str, **fields: Any) -> dict[str, Any]:
    """A push as FCM delivers it to a browser at a time."""
    given = push(1, ["token"], provider="fcm", platform="web", **fields)
    now = datetime.fromisoformat(at).astimezone(UTC)
    [notification] = notifications([Push.model_validate(given)], now)
    payload = notification.payload
    return {"notification": payload["webpush"].get("notification"), "data": payload["data"]}


def run(*events: dict[str, Any]) -> Any:
    command = ["node", "-e", BROWSER, str(WORKER), json.dumps(events)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def arrives(at: str, sent_at: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"at": at, "message": message(sent_at or at, **fields)}


def test_an_alert_is_shown_and_the_next_one_of_the_conversation_replaces_it() -> None:
    state = run(
        arrives("2026-11-22T10:00:00Z"),
        arrives("2026-11-22T10:00:05Z", body="Hello again", unread=2),
        arrives("2026-11-22T10:00:06Z", room_id=OTHER_ROOM),
    )
    assert [(shown["title"], shown["body"]) for shown in state["shown"]] == [
        ("Ana (2)", "Hello again"),
        ("Ana", "Hello"),
    ]
    assert state["badge"] == 3


def test_a_dismissal_closes_only_the_notification_of_its_conversation_and_sets_the_badge() -> None:
    state = run(
        arrives("2026-11-22T10:00:00Z"),
        arrives("2026-11-22T10:00:00Z", room_id=OTHER_ROOM),
        arrives("2026-11-22T10:01:00Z", kind="dismiss", badge=0),
    )
    assert [shown["tag"] for shown in state["shown"]] == [OTHER_ROOM]
    assert state["badge"] == 0


def test_a_dismissal_that_arrives_late_keeps_a_newer_notification() -> None:
    state = run(
        arrives("2026-11-22T10:05:00Z"),
        arrives("2026-11-22T10:06:00Z", sent_at="2026-11-22T10:01:00Z", kind="dismiss"),
    )
    assert len(state["shown"]) == 1


def test_a_tap_opens_the_conversation() -> None:
    state = run(arrives("2026-11-22T10:00:00Z"), {"at": "2026-11-22T10:01:00Z", "click": 0})
    assert (state["opened"], state["shown"]) == ([f"/chat/{ROOM}"], [])
