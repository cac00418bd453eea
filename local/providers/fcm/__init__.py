"""Firebase Cloud Messaging, HTTP v1, with the token endpoint of Google, as their documentation describes them."""
