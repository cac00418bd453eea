"""What the functions of Chat Push share: the domain, the database, Expo, settings, secrets, logs and metrics.

Nothing in here knows a Lambda event.
"""
