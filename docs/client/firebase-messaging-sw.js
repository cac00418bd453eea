// Shows the pushes of a web app. Serve it at /firebase-messaging-sw.js, where firebase/messaging registers it. It needs no
// package: FCM delivers {notification, data}, and data.body holds the data of Chat Push as JSON.

self.addEventListener('push', (event) => {
  const { notification, data } = event.data.json();
  event.waitUntil(handle(notification, JSON.parse(data?.body ?? '{}')));
});

async function handle(notification, content) {
  if (notification) {
    const { title, ...options } = notification;
    // The same tag replaces the notification of the conversation.
    await self.registration.showNotification(title, { ...options, data: content });
  } else if (content.kind === 'dismiss') {
    for (const shown of await self.registration.getNotifications()) {
      // The browser may hold a push back, and show a newer message meanwhile.
      const isOlder = shown.timestamp <= Date.parse(content.sentAt);
      if (isOlder && content.conversationIds.includes(shown.data?.conversationId)) shown.close();
    }
  }
  if (content.badge !== undefined) {
    // Not in every browser, and only for an app that was installed.
    await (content.badge ? navigator.setAppBadge?.(content.badge) : navigator.clearAppBadge?.());
  }
}

self.addEventListener('notificationclick', (event) => {
  event.notification.close();
  event.waitUntil(openConversation(event.notification.data?.conversationId));
});

async function openConversation(conversationId) {
  const url = conversationId ? `/chat/${conversationId}` : '/';
  const [open] = await self.clients.matchAll({ type: 'window' });
  if (!open) return self.clients.openWindow(url);
  await open.focus();
  return open.navigate(url);
}
