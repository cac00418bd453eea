"""A stand-in for Supabase Realtime on the local Postgres. server.py starts it.

Rules and messages are those of https://github.com/supabase/realtime, unless a comment names another source.
"""
