-- The chat tables of the specification, section A, for an empty database and for an app that
-- already has users, chat_rooms and chat_messages: what is missing is added, nothing is dropped.

create table if not exists public.users (
  id uuid primary key references auth.users (id) on delete cascade
);
alter table public.users
  add column if not exists display_name text,
  add column if not exists role text default 'tourist' check (role in ('tourist', 'guide')),
  add column if not exists avatar_url text,
  add column if not exists locale text;
comment on table public.users is 'Profile of each person who chats.';

create table if not exists public.chat_rooms (
  id uuid primary key,
  user1_id uuid not null references public.users (id) on delete cascade,
  user2_id uuid not null references public.users (id) on delete cascade,
  last_message text,
  last_message_at timestamptz,
  created_at timestamptz,
  updated_at timestamptz
);
alter table public.chat_rooms
  alter column id set default gen_random_uuid(),
  alter column created_at set default now(),
  alter column updated_at set default now(),
  add column if not exists tourist_id uuid references public.users (id) on delete set null,
  add column if not exists guide_id uuid references public.users (id) on delete set null,
  add column if not exists unread_count_user1 integer not null default 0,
  add column if not exists unread_count_user2 integer not null default 0,
  add column if not exists archived_by_user1 boolean not null default false,
  add column if not exists archived_by_user2 boolean not null default false,
  add column if not exists accepted_by_user1 boolean not null default false,
  add column if not exists accepted_by_user2 boolean not null default false;
-- Each message updates its conversation: with room on the page, without a new entry in every index.
alter table public.chat_rooms set (fillfactor = 80);
comment on table public.chat_rooms is 'A conversation of two people.';
comment on column public.chat_rooms.last_message is 'The beginning of the newest message, 200 characters; kept by triggers.';
comment on column public.chat_rooms.unread_count_user1 is 'Messages that user1 has not read; kept by triggers.';
comment on column public.chat_rooms.accepted_by_user1 is
  'user1 has written in it. Whoever opens a conversation learns of the other person''s presence only when both have.';

create table if not exists public.chat_messages (
  id uuid primary key,
  room_id uuid not null references public.chat_rooms (id) on delete cascade,
  sender_id uuid not null references public.users (id) on delete cascade,
  message text not null,
  message_type varchar(20),
  is_read boolean,
  read_at timestamptz,
  created_at timestamptz,
  updated_at timestamptz
);
alter table public.chat_messages
  alter column id set default gen_random_uuid(),
  alter column message_type set default 'text',
  alter column is_read set default false,
  alter column created_at set default now(),
  alter column updated_at set default now(),
  add column if not exists client_msg_id text,
  add column if not exists sender_role varchar(20) default 'tourist'
    check (sender_role in ('tourist', 'guide')),
  add column if not exists attachments jsonb not null default '[]' check (jsonb_typeof(attachments) = 'array'),
  add column if not exists edited_at timestamptz,
  add column if not exists deleted_at timestamptz,
  add column if not exists delivered_at timestamptz,
  add column if not exists server_timestamp timestamptz;
comment on table public.chat_messages is 'Messages. A push job is written in the same transaction as each of them.';
comment on column public.chat_messages.client_msg_id is 'Made by the app; a message that is sent again is refused as a duplicate.';
comment on column public.chat_messages.server_timestamp is
  'Order of messages, by the server''s clock; within one conversation also the order of commits.';

-- One receipt per message and person: device_id is the first device that delivered the message.
create table if not exists public.message_receipts (
  id uuid primary key default gen_random_uuid(),
  message_id uuid not null references public.chat_messages (id) on delete cascade,
  user_id uuid not null references public.users (id) on delete cascade,
  device_id text,
  delivered_at timestamptz,
  read_at timestamptz,
  created_at timestamptz not null default now(),
  constraint unique_message_user_receipt unique (message_id, user_id)
);
comment on table public.message_receipts is 'When a message reached its recipient and when it was read.';
comment on column public.message_receipts.device_id is 'The first device that reported the delivery.';

create table if not exists public.user_devices (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references public.users (id) on delete cascade,
  device_id text not null check (length(device_id) between 1 and 200),
  platform varchar(20) not null check (platform in ('ios', 'android', 'web')),
  push_token text,
  push_provider varchar(20) not null default 'expo' check (push_provider in ('fcm', 'apns', 'expo')),
  app_version text,
  is_active boolean not null default true,
  last_seen_at timestamptz not null default now(),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint unique_user_device unique (user_id, device_id),
  -- Expo's own check, and the bare UUID that its Node SDK accepts too.
  constraint expo_push_token_format check (
    push_provider <> 'expo'
    or push_token ~ '^(Exponent|Expo)PushToken\[[^][[:space:]]{1,80}\]$'
    or push_token ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
  )
);
comment on table public.user_devices is 'Installations that push notifications are sent to.';
alter table public.user_devices add column if not exists session_id uuid;
comment on column public.user_devices.session_id is 'The session (auth.sessions.id) that registered the device.';
comment on column public.user_devices.last_seen_at is
  'When the app last registered, by the server''s clock; an older answer of Expo cannot switch the device off.';

create table if not exists public.user_presence (
  user_id uuid primary key references public.users (id) on delete cascade,
  is_online boolean not null default false,
  last_seen_at timestamptz,
  current_conversation_id uuid,
  updated_at timestamptz not null default now()
);
comment on table public.user_presence is
  'Heartbeat of each person''s app and the conversation on its screen; counts only while it is fresh.';

-- Backfill of rows that were there before.
update public.chat_rooms room
set tourist_id = tourist.id, guide_id = guide.id
from public.users tourist, public.users guide
where room.tourist_id is null and room.guide_id is null
  and tourist.id in (room.user1_id, room.user2_id) and tourist.role::text = 'tourist'
  and guide.id in (room.user1_id, room.user2_id) and guide.role::text = 'guide';

update public.chat_messages message
set server_timestamp = coalesce(message.created_at, now()),
    sender_role = case when message.sender_id = room.guide_id then 'guide' else 'tourist' end,
    is_read = coalesce(message.is_read, false),
    message_type = coalesce(message.message_type, 'text')
from public.chat_rooms room
where room.id = message.room_id and message.server_timestamp is null;

alter table public.chat_messages
  alter column server_timestamp set default now(),
  alter column server_timestamp set not null;

update public.chat_rooms room
set unread_count_user1 = unread.user1, unread_count_user2 = unread.user2
from (
  select message.room_id,
    count(*) filter (where message.sender_id = room.user2_id) as user1,
    count(*) filter (where message.sender_id = room.user1_id) as user2
  from public.chat_messages message
  join public.chat_rooms room on room.id = message.room_id
  where message.is_read is not true and message.deleted_at is null
  group by message.room_id
) unread
where room.id = unread.room_id;

update public.chat_rooms room
set accepted_by_user1 = wrote.user1, accepted_by_user2 = wrote.user2
from (
  select message.room_id, bool_or(message.sender_id = room.user1_id) as user1,
    bool_or(message.sender_id = room.user2_id) as user2
  from public.chat_messages message
  join public.chat_rooms room on room.id = message.room_id
  group by message.room_id
) wrote
where room.id = wrote.room_id;

update public.chat_rooms room
set last_message = left(newest.message, 200), last_message_at = newest.server_timestamp
from (
  select distinct on (room_id) room_id, message, server_timestamp
  from public.chat_messages
  order by room_id, server_timestamp desc, id
) newest
where newest.room_id = room.id and room.last_message_at is null;

-- Pages of a conversation, newest first.
create index if not exists idx_messages_conversation_cursor
  on public.chat_messages (room_id, server_timestamp desc, id);
-- Messages that were missed while offline.
create index if not exists idx_messages_room_after_timestamp
  on public.chat_messages (room_id, server_timestamp);
-- A message that is sent again is not stored again.
create unique index if not exists idx_messages_client_msg_id_unique
  on public.chat_messages (sender_id, client_msg_id) where client_msg_id is not null;
-- The anti-spam limit counts a sender's newest messages.
create index if not exists idx_messages_sender_timestamp
  on public.chat_messages (sender_id, server_timestamp);
-- Unread counters and mark_messages_read.
create index if not exists idx_messages_unread
  on public.chat_messages (room_id, sender_id) where is_read is not true;
create index if not exists idx_devices_active
  on public.user_devices (user_id, is_active) where is_active = true;
-- A push token names one installation, so it belongs to one row. Expo's has two spellings.
create unique index if not exists idx_devices_push_token_unique
  on public.user_devices (replace(push_token, 'ExpoPushToken[', 'ExponentPushToken[')) where push_token is not null;
create index if not exists idx_receipts_user on public.message_receipts (user_id);
create index if not exists idx_rooms_user1 on public.chat_rooms (user1_id);
create index if not exists idx_rooms_user2 on public.chat_rooms (user2_id);
create index if not exists idx_rooms_tourist on public.chat_rooms (tourist_id);
create index if not exists idx_rooms_guide on public.chat_rooms (guide_id);
