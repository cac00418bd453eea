-- Triggers of chat_rooms, and the triggers of chat_messages that keep last_message and the unread counters of a room.
-- An insert prepares the room (roles, one room for two people); an update by a person may change only the archive flag of
-- that person; a delete by a person archives.

create function private.prepare_room() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  -- This check is first: the other errors would show whether two other people exist or have a conversation.
  if auth.uid() is not null and auth.uid() is distinct from new.user1_id and auth.uid() is distinct from new.user2_id
  then
    raise insufficient_privilege using
      message = 'neither user1_id nor user2_id is the signed-in user',
      hint = 'Pass the id of the session''s own user as one of them.';
  end if;
  if auth.uid() is not null then
    perform private.require_not_suspended(auth.uid());
    new.last_message := null;
    new.last_message_at := null;
    new.created_at := clock_timestamp();
    new.updated_at := new.created_at;
    new.tourist_id := null;
    new.guide_id := null;
    new.unread_count_user1 := 0;
    new.unread_count_user2 := 0;
    new.archived_by_user1 := false;
    new.archived_by_user2 := false;
  end if;
  if new.user1_id = new.user2_id then
    raise check_violation using message = 'user1_id and user2_id must be two people';
  end if;
  -- No unique index does this: an existing database may have several rooms of the same two people.
  if auth.uid() is null then
    -- A backend may import any number of rooms, and locks have a bounded memory that all sessions share.
    perform pg_advisory_xact_lock(hashtextextended('chat_rooms', 0));
  else
    perform private.limit_new_rooms(), pg_advisory_xact_lock_shared(hashtextextended('chat_rooms', 0)),
      pg_advisory_xact_lock(hashtextextended(
        least(new.user1_id, new.user2_id)::text || greatest(new.user1_id, new.user2_id)::text, 0));
  end if;
  if exists (
    select from public.chat_rooms room
    where (room.user1_id, room.user2_id) in ((new.user1_id, new.user2_id), (new.user2_id, new.user1_id))
  ) then
    raise unique_violation using message = 'these two people already have a conversation';
  end if;
  if new.tourist_id is null and new.guide_id is null then
    select tourist.id, guide.id into new.tourist_id, new.guide_id
    from public.users tourist, public.users guide
    where tourist.id in (new.user1_id, new.user2_id) and tourist.role::text = 'tourist'
      and guide.id in (new.user1_id, new.user2_id) and guide.role::text = 'guide';
  end if;
  new.last_message := left(new.last_message, 200);
  return new;
end $$;
comment on function private.prepare_room() is
  'Allows one conversation for two people, even when both open it at once, and takes their roles from their profiles. Old '
  'apps send other columns too: a person''s values for them are replaced.';

create trigger prepare_room before insert on public.chat_rooms
  for each row execute function private.prepare_room();

create function private.stamp_room() returns trigger
language plpgsql set search_path = '' as $$
begin
  -- The role of a person, not of a trigger that updates counters. A trigger with this condition would cost time at each
  -- insert of a message.
  if current_user = 'authenticated' then
    if (new.archived_by_user1 is distinct from old.archived_by_user1 and old.user1_id is distinct from auth.uid())
      or (new.archived_by_user2 is distinct from old.archived_by_user2 and old.user2_id is distinct from auth.uid())
    then
      raise insufficient_privilege using message = 'each person archives a conversation only for themselves';
    end if;
    -- Old apps write these columns themselves. Triggers keep them, so the values of a person are ignored.
    new.last_message := old.last_message;
    new.last_message_at := old.last_message_at;
    new.unread_count_user1 := old.unread_count_user1;
    new.unread_count_user2 := old.unread_count_user2;
  end if;
  new.last_message := left(new.last_message, 200);
  new.updated_at := clock_timestamp();
  return new;
end $$;
comment on function private.stamp_room() is
  'Sets updated_at by the server''s clock, shortens last_message to a preview of 200 characters, and limits what a person may '
  'change in a conversation. A policy cannot do that, because it cannot compare old and new values.';

create trigger stamp_room before update on public.chat_rooms
  for each row execute function private.stamp_room();

create function private.archive_deleted_room() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  update public.chat_rooms
  set archived_by_user1 = archived_by_user1 or user1_id is not distinct from auth.uid(),
    archived_by_user2 = archived_by_user2 or user2_id is not distinct from auth.uid()
  where id = old.id;
  return null;
end $$;
comment on function private.archive_deleted_room() is
  'Keeps the deleted conversation, which the other person still has, and archives it for the person who deleted it.';

create trigger archive_deleted_room before delete on public.chat_rooms
  for each row when (current_user = 'authenticated') execute function private.archive_deleted_room();

-- Counters ---------------------------------------------------------------------------------------

-- Functions that work on many rows read tables by index only (enable_seqscan = off). A session keeps a plan. A plan from
-- the time when a table was small would read the whole table for each row. Before PostgreSQL 18, what is off costs 10^10, and for
-- such a cost Postgres compiles the plan at each call (jit), which takes seconds.
create function private.count_new_message() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  comes_back uuid;
begin
  if exists (select from new_messages offset 1) then
    -- One update for each room. One for each message would leave a row version each, and each update searches them all.
    perform private.recount_rooms(array(select distinct room_id from new_messages));
    update public.chat_rooms room
    set archived_by_user1 = archived_by_user1 and received.by_user1 = 0,
      archived_by_user2 = archived_by_user2 and received.by_user2 = 0
    from (
      select added.room_id, count(*) filter (where added.sender_id = addressed.user2_id) as by_user1,
        count(*) filter (where added.sender_id = addressed.user1_id) as by_user2
      from new_messages added join public.chat_rooms addressed on addressed.id = added.room_id
      where added.deleted_at is null and added.is_read is not true group by 1
    ) received
    where room.id = received.room_id and (archived_by_user1 or archived_by_user2);
  else
    update public.chat_rooms room
    -- A short line of ASCII is what message_line would return, without the time of two function calls.
    set last_message = case when length(added.message) <= 200 and added.message ~ '^[!-~]+( [!-~]+)*$' then added.message
        else private.message_line(added.message, added.attachments, added.message_type, 200) end,
      last_message_at = added.server_timestamp,
      unread_count_user1 = unread_count_user1
        + coalesce(added.sender_id = user2_id and added.sender_id <> user1_id and added.is_read is not true, false)::integer,
      unread_count_user2 = unread_count_user2
        + coalesce(added.sender_id = user1_id and added.sender_id <> user2_id and added.is_read is not true, false)::integer
    from new_messages added
    where room.id = added.room_id and added.deleted_at is null
    returning case when added.is_read is not true and
      ((archived_by_user1 and added.sender_id = user2_id) or (archived_by_user2 and added.sender_id = user1_id))
      then added.sender_id end into comes_back;
    -- A new message brings an archived conversation back for its recipient. It is an update of its own, because an update of
    -- these columns is an event for apps (send_changed_room).
    if comes_back is not null then
      update public.chat_rooms
      set archived_by_user1 = archived_by_user1 and user2_id <> comes_back,
        archived_by_user2 = archived_by_user2 and user1_id <> comes_back
      where id = (select room_id from new_messages);
    end if;
  end if;
  return null;
end $$;
comment on function private.count_new_message() is
  'Keeps last_message and the recipient''s unread counter at an insert. For a single message it adds one and reads no others.';

create function private.recount_rooms(p_room_ids uuid[]) returns void
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
begin
  -- The lock is a statement before the count, so the count sees each message that was committed before the lock was taken.
  perform from public.chat_rooms where id = any(p_room_ids) order by id for no key update;
  update public.chat_rooms room
  set last_message = newest.line,
    last_message_at = newest.server_timestamp,
    unread_count_user1 = unread.user1,
    unread_count_user2 = unread.user2
  from public.chat_rooms counted
  left join lateral (
    select private.message_line(message.message, message.attachments, message.message_type, 200) as line,
      message.server_timestamp
    from public.chat_messages message
    where message.room_id = counted.id and message.deleted_at is null
      and not exists (
        select from private.blocks block
        where block.blocked_id = message.sender_id and not upper_inf(block.during)
          and block.blocker_id = case when message.sender_id = counted.user1_id then counted.user2_id else counted.user1_id end
          and (message.server_timestamp <@ block.during or message.edited_at::timestamptz <@ block.during)
      )
    order by message.server_timestamp desc, message.id limit 1
  ) newest on true
  cross join lateral (
    select count(*) filter (where message.sender_id = counted.user2_id and message.sender_id <> counted.user1_id) as user1,
      count(*) filter (where message.sender_id = counted.user1_id and message.sender_id <> counted.user2_id) as user2
    from public.chat_messages message
    where message.room_id = counted.id and message.is_read is not true and message.deleted_at is null
      and not exists (
        select from private.blocks block
        where block.blocked_id = message.sender_id and not upper_inf(block.during)
          and block.blocker_id = case when message.sender_id = counted.user1_id then counted.user2_id else counted.user1_id end
          and (message.server_timestamp <@ block.during or message.edited_at::timestamptz <@ block.during)
      )
  ) unread
  where counted.id = any(p_room_ids) and room.id = counted.id;
end $$;
comment on function private.recount_rooms(uuid[]) is
  'Computes the unread counters and last_message of these rooms from their messages. While a block lasts, the person who is blocked sees '
  'them as if there was none, and the other one does not see the room. Afterwards both see what the block did not hide.';

create function private.recount_after_change() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  -- `except`, not a join: the session keeps the plan, and a join plan made for one row compares each row with each.
  perform private.recount_rooms(array(
    select room_id from (
      select id, room_id, sender_id, is_read, deleted_at, message, attachments, message_type from new_messages
      except
      select id, room_id, sender_id, is_read, deleted_at, message, attachments, message_type from old_messages
    ) changed
    union
    -- A backend that merges two conversations moves their messages.
    (select room_id from old_messages except select room_id from new_messages)
  ));
  return null;
end $$;
comment on function private.recount_after_change() is
  'Recounts the rooms of messages whose content, read state or deletion changed, or that a backend moved.';

create function private.recount_after_delete() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  if tg_op = 'TRUNCATE' then
    update public.chat_rooms set last_message = null, last_message_at = null, unread_count_user1 = 0, unread_count_user2 = 0;
  else
    perform private.recount_rooms(array(select distinct room_id from old_messages));
  end if;
  return null;
end $$;
comment on function private.recount_after_delete() is 'Recounts the rooms of messages whose rows were deleted.';

revoke execute on function
  private.prepare_room(), private.stamp_room(), private.archive_deleted_room(), private.count_new_message(),
  private.recount_rooms(uuid[]), private.recount_after_change(), private.recount_after_delete()
from public;
