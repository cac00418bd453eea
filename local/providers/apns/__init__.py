"""The Apple Push Notification service, as its documentation and its clients describe it."""
