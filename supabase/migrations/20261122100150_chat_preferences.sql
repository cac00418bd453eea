-- What people choose about their conversations. Claims read it, and decide by it; so no job is needed when a choice ends.
-- The tables are not exposed over the Data API: apps read and write them by the functions of chat_preference_functions.

create table private.conversation_preferences (
  user_id uuid not null references public.users (id) on delete cascade,
  room_id uuid not null references public.chat_rooms (id) on delete cascade,
  muted_until timestamptz,
  sound text check (sound ~ '^[a-z][a-z0-9_]{0,39}$'),
  primary key (user_id, room_id)
);
create index idx_conversation_preferences_room on private.conversation_preferences (room_id);
comment on table private.conversation_preferences is 'What a person chose for a conversation. No row: nothing.';
comment on column private.conversation_preferences.muted_until is
  'Until then the conversation is muted; infinity: until the person ends it; null: it is not muted.';
comment on column private.conversation_preferences.sound is
  'The name of a sound of the app, or none; null: the default sound.';

create table private.notification_preferences (
  user_id uuid primary key references public.users (id) on delete cascade,
  snoozed_until timestamptz,
  quiet_zone text,
  quiet_from time,
  quiet_until time,
  quiet_days smallint[],
  while_quiet text not null default 'silent' check (while_quiet in ('silent', 'none')),
  preview text not null default 'full' check (preview in ('full', 'name', 'none')),
  check (num_nulls(quiet_zone, quiet_from, quiet_until, quiet_days) in (0, 4)),
  check (quiet_from <> quiet_until)
);
comment on table private.notification_preferences is 'What a person chose for all conversations. No row: the defaults.';
comment on column private.notification_preferences.snoozed_until is 'Until then all conversations are quiet.';
comment on column private.notification_preferences.quiet_zone is
  'The IANA time zone of the quiet hours, which begin at quiet_from on each of quiet_days (1: Monday) and end before quiet_until, on the '
  'next day if that is not later. Nulls: no quiet hours.';
comment on column private.notification_preferences.while_quiet is
  'What a new message makes while the person has snoozed, or in the quiet hours: silent, a notification without a sound; none, none at all.';
comment on column private.notification_preferences.preview is
  'What notifications show of a message: full; name, that of the sender only; none, neither name nor text nor image.';

create table private.device_previews (
  user_id uuid not null,
  device_id text not null,
  preview text not null check (preview in ('full', 'name', 'none')),
  primary key (user_id, device_id),
  foreign key (user_id, device_id) references public.user_devices (user_id, device_id) on delete cascade
);
comment on table private.device_previews is 'Devices that show another preview than private.notification_preferences says.';

-- Blocks -----------------------------------------------------------------------------------------
-- A message is hidden from the person who blocked its sender if it was sent or edited while the block lasted, also afterwards. Nothing is
-- written for such a message, so its sender cannot find out: not by its row, not by the time that the insert takes. A block is
-- changed under the locks of the conversations, whose messages get their times under the same locks.

create table private.blocks (
  blocker_id uuid not null references public.users (id) on delete cascade,
  blocked_id uuid not null references public.users (id) on delete cascade,
  during tstzrange not null,
  primary key (blocker_id, blocked_id, during)
);
create unique index idx_blocks_current on private.blocks (blocker_id, blocked_id) where upper_inf(during);
create index idx_blocks_blocked on private.blocks (blocked_id);
comment on table private.blocks is 'Who has blocked whom, and when: now if during has no end. Ended blocks are kept while they hide a message.';

-- Policies call these functions: they run with the rights of their owner, and know the caller only.
create function private.my_blocks(out blocked_id uuid, out during tstzrange) returns setof record
language sql stable security definer rows 5 set search_path = '' as $$
  select block.blocked_id, block.during from private.blocks block where block.blocker_id = (select auth.uid());
$$;
comment on function private.my_blocks() is 'Returns whom the caller has blocked, and when; also blocks that have ended.';

create function private.my_blocked_rooms() returns setof uuid
language sql stable security definer rows 5 set search_path = '' as $$
  select room.id
  from private.blocks block
  join public.chat_rooms room
    on (room.user1_id, room.user2_id) in ((block.blocker_id, block.blocked_id), (block.blocked_id, block.blocker_id))
  where block.blocker_id = (select auth.uid()) and upper_inf(block.during);
$$;
comment on function private.my_blocked_rooms() is 'Returns the conversations of the caller with people whom the caller blocks now.';

revoke execute on function private.my_blocks(), private.my_blocked_rooms() from public;
grant execute on function private.my_blocks(), private.my_blocked_rooms() to authenticated;
