"""The code that the functions share: settings, secrets, database, Expo, Supabase Auth, delivery, logs and metrics.

No module here reads a Lambda event; the functions do that. Each outside system has one module: database (PostgREST),
expo with expo_errors and expo_session, identity (Supabase Auth), secrets (Secrets Manager), wakeup (SQS).
"""

# A test holds it equal to the version in pyproject.toml, which is not deployed.
__version__ = "0.1.0"
