"""Rows as older databases hold them: beyond today's bounds, one of which the app's own message_preview fails for."""

from uuid import UUID

import psycopg

from local.cloud import LocalCloud
from local.supabase.postgres import SUPERUSER

_LONG_NAME = "update public.users set display_name = repeat('long ', 2400000) where id = %s"
_SCHEMA = """
alter table public.chat_messages drop constraint if exists chat_messages_attachments_check;
create or replace function push.message_preview(p_message public.chat_messages) returns text
language plpgsql immutable set search_path = '' as $$
begin
  if p_message.message = 'unreadable' then
    raise exception 'this app cannot read it';
  end if;
  return coalesce(nullif(btrim(p_message.message), ''), 'New message');
end $$;
"""
_MESSAGES = """
with old as (
  insert into public.chat_messages (id, room_id, sender_id, message, attachments, message_type, is_read, created_at,
    server_timestamp)
  select gen_random_uuid(), %(room)s, %(sender)s, text, attachments, type, null, null, clock_timestamp()
  from (values
    (repeat('long ', 240000), '[]'::jsonb, 'text'), ('not a list', '{"type": "image"}', null), ('a number', '7', ''),
    ('null', 'null', 'image'), ('many', (select jsonb_agg(number) from generate_series(1, 20000) number), 'file'),
    ('unreadable', '[]', '')
  ) rows (text, attachments, type)
  returning room_id, server_timestamp
)
insert into push.jobs as known (room_id, recipient_id, decided_up_to)
select room_id, %(recipient)s, min(server_timestamp) - interval '1 microsecond' from old group by room_id
on conflict (room_id, recipient_id) do update
  set revision = known.revision + 1, state = case known.state when 'leased' then known.state else 'pending' end,
    next_attempt_at = clock_timestamp()
"""


async def age_database(cloud: LocalCloud, user: UUID) -> None:
    """Drops the bound of attachments, replaces message_preview, and gives `user` a name of 12 MB."""
    async with await psycopg.AsyncConnection.connect(cloud.postgres.dsn(role=SUPERUSER)) as connection:
        await connection.execute(_SCHEMA)
        await connection.execute("set session_replication_role = replica")
        await connection.execute(_LONG_NAME, (user,))


async def insert_older_messages(cloud: LocalCloud, room: UUID, sender: UUID, recipient: UUID) -> None:
    """Inserts messages beyond the bounds, as the database owner and with triggers off, and their push jobs."""
    async with await psycopg.AsyncConnection.connect(cloud.postgres.dsn(role=SUPERUSER)) as connection:
        await connection.execute("set session_replication_role = replica")
        await connection.execute(_MESSAGES, {"room": room, "sender": sender, "recipient": recipient})
