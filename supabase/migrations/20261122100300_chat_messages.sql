-- Triggers of chat_messages. They decide which values only the server sets, what a person may change, what remains
-- of a deleted message, and in which order statements lock rows. Triggers of one kind run in the order of their names:
--   before a statement: lock_senders_of_marks, serialize_writes; before a row: guard_message_change, stamp_message (insert) or
--   stamp_message_change; after a statement: count_new_message, create_push_job, notify_webhook and send_new_messages
--   (insert), create_receipts, recount_after_change, send_changed_messages and set_push_jobs_due (update), recount_after_delete,
--   send_deleted_messages, set_push_jobs_due_after_delete and soft_delete_messages (delete); after a row: keep_deleted_message (update).

-- The copies are for operators: no role of an API has a right on them. A copy is deleted with the row of its message.
create table private.deleted_messages (
  message_id uuid primary key references public.chat_messages (id) on delete cascade,
  message text not null,
  attachments jsonb not null,
  deleted_at timestamptz not null default clock_timestamp()
);
create index idx_deleted_messages_deleted on private.deleted_messages (deleted_at);
comment on table private.deleted_messages is
  'Text and attachments of messages that were deleted by deleted_at, for private.chat_settings.deleted_message_kept_for.';

create function private.touch_updated_at() returns trigger
language plpgsql set search_path = '' as $$
begin
  new.updated_at := clock_timestamp();
  return new;
end $$;
comment on function private.touch_updated_at() is 'Sets updated_at by the server''s clock.';

create function private.stamp_message() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  me constant uuid := auth.uid();
  guide uuid;
  first_of_sender boolean;
  is_stranger boolean;
begin
  -- A person, not a backend. A trigger with this condition would cost time at each insert.
  if me is not null then
    -- Before the limit, whose answer would show how many messages another person sends.
    perform private.require_caller(new.sender_id, 'sender_id');
    perform private.require_not_suspended(me);
    perform private.limit_message_rate(me);
  end if;
  -- No setting can reject a smaller message, so most inserts do not read the settings.
  if octet_length(new.message) > 1024 or octet_length(new.client_msg_id) > 80 or octet_length(new.message_type) > 20
    or new.attachments <> '[]'
  then
    perform private.limit_message_size(new.message, new.attachments, new.client_msg_id, new.message_type);
  end if;
  -- The row lock makes timestamps within a conversation follow the order of commits. So a reader who has seen a message
  -- never misses an older one that commits later.
  select guide_id,
    (new.sender_id = user1_id and not accepted_by_user1) or (new.sender_id = user2_id and not accepted_by_user2),
    not case when new.sender_id = user1_id then accepted_by_user2 else accepted_by_user1 end
  into guide, first_of_sender, is_stranger
  from public.chat_rooms where id = new.room_id for no key update;
  if first_of_sender then
    if not is_stranger then
      -- It accepts what the other one wrote. For create_push_job, which locks jobs in its order.
      perform set_config('chat_push.accepted_rooms',
        concat_ws(',', nullif(current_setting('chat_push.accepted_rooms', true), ''), new.room_id), true);
    elsif me is not null then
      perform private.limit_new_contacts(me, new.room_id);
    end if;
    update public.chat_rooms
    -- One of the two may be null in an older database, when an account was deleted.
    set accepted_by_user1 = accepted_by_user1 or user1_id is not distinct from new.sender_id,
      accepted_by_user2 = accepted_by_user2 or user2_id is not distinct from new.sender_id
    where id = new.room_id;
  end if;
  new.server_timestamp := clock_timestamp();
  new.changed_at := new.server_timestamp;
  new.attachments := coalesce(new.attachments, '[]');
  if me is not null then
    -- Old apps send these columns; the values are replaced.
    new.created_at := new.server_timestamp;
    new.updated_at := new.server_timestamp;
    new.is_read := false;
    new.read_at := null;
    new.delivered_at := null;
    new.edited_at := null;
    new.deleted_at := null;
  elsif new.deleted_at is not null then
    new.message := '';
    new.attachments := '[]';
  end if;
  new.created_at := coalesce(new.created_at, new.server_timestamp);
  new.sender_role := case when new.sender_id = guide then 'guide' else 'tourist' end;
  return new;
end $$;
comment on function private.stamp_message() is
  'Applies the limits to a new message, and sets its order, times and role, which a client must not forge.';

create function private.stamp_message_change() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  now_at constant timestamptz := clock_timestamp();
  changed text;
begin
  if old.deleted_at is not null then
    changed := case
      when new.deleted_at is null then 'deleted_at'
      -- It is deleted again, perhaps with a text of the app's own such as "deleted": nothing changes.
      when new.deleted_at <> old.deleted_at then null
      when new.message is distinct from old.message then 'message'
      when new.attachments is distinct from old.attachments then 'attachments'
    end;
    if changed is not null then
      raise insufficient_privilege using
        message = format('%s cannot be changed: the message was deleted', changed),
        hint = 'Send a new message. A deleted message stays deleted and empty.';
    end if;
  elsif new.deleted_at is null and (new.message, new.attachments) is distinct from (old.message, old.attachments) then
    perform private.require_not_suspended(auth.uid());
    perform private.limit_message_size(
      case when new.message is distinct from old.message then new.message end,
      case when new.attachments is distinct from old.attachments then new.attachments end);
    new.edited_at := now_at;
  end if;
  if new.deleted_at is not null then
    new.deleted_at := coalesce(old.deleted_at, now_at);
    new.message := '';
    new.attachments := '[]';
  end if;
  new.updated_at := old.updated_at;
  new.changed_at := old.changed_at;
  -- The images of the rows, because an app's own column may be of a type without equality, such as json.
  if new operator(pg_catalog.*<>) old then
    new.changed_at := now_at;
  end if;
  new.updated_at := now_at;
  return new;
end $$;
comment on function private.stamp_message_change() is
  'Sets edited_at, deleted_at, changed_at and updated_at by the server''s clock. Applies the limits to an edit. Clears text and '
  'attachments of a deleted message, and rejects (42501) that it is edited or restored.';

create function private.keep_deleted_message() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  insert into private.deleted_messages (message_id, message, attachments)
  select old.id, old.message, old.attachments from private.chat_settings where deleted_message_kept_for > '0';
  return null;
end $$;
comment on function private.keep_deleted_message() is
  'Stores the text and attachments that a deleted message had, if private.chat_settings.deleted_message_kept_for says so.';

create function private.guard_message_change() returns trigger
language plpgsql set search_path = '' as $$
declare
  marks public.chat_messages;
  now_at constant timestamptz := clock_timestamp();
begin
  if old.sender_id = auth.uid() then
    -- The grants name what a person may update. Of that, the recipient and the server own these columns.
    new.is_read := old.is_read;
    new.read_at := old.read_at;
    new.delivered_at := old.delivered_at;
    new.created_at := old.created_at;
    new.edited_at := old.edited_at;
    return new;
  end if;
  if (new.message, new.attachments, new.deleted_at) is distinct from (old.message, old.attachments, old.deleted_at) then
    raise insufficient_privilege using
      message = 'only the sender may edit or delete a message',
      hint = 'A recipient may set is_read, read_at and delivered_at.';
  end if;
  -- All other columns keep their values, also those of the app. A read message never becomes unread again.
  marks := new;
  new := old;
  new.is_read := coalesce(old.is_read, false) or marks.is_read is true or marks.read_at is not null;
  if new.is_read then
    new.read_at := coalesce(old.read_at, now_at);
  end if;
  if new.is_read or marks.delivered_at is not null then
    new.delivered_at := coalesce(old.delivered_at, now_at);
  end if;
  return new;
end $$;
comment on function private.guard_message_change() is
  'Limits what a person may change in a message: the sender its content, the recipient its marks. Old apps mark messages as '
  'delivered and read by an update of the message.';

create function private.collect_deleted_message() returns trigger
language plpgsql set search_path = '' as $$
begin
  perform set_config('chat_push.deleted_messages',
    concat_ws(',', nullif(current_setting('chat_push.deleted_messages', true), ''), old.id), true);
  return null;
end $$;
comment on function private.collect_deleted_message() is
  'Prevents the delete, which still locks the row, and keeps its id for soft_delete_messages. That trigger runs once all '
  'messages are locked, because messages are locked before conversations.';

create function private.soft_delete_messages() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  noted constant uuid[] := string_to_array(nullif(current_setting('chat_push.deleted_messages', true), ''), ',');
begin
  perform set_config('chat_push.deleted_messages', '', true);
  update public.chat_messages set deleted_at = clock_timestamp()
  where id = any (noted) and sender_id = auth.uid() and deleted_at is null;
  return null;
end $$;
comment on function private.soft_delete_messages() is
  'Sets deleted_at where a person deleted the row, as old apps do: pushes and other apps read deleted_at.';

-- Locks ------------------------------------------------------------------------------------------
-- All statements take locks in one order (docs/decisions.md, "One order of locks"): the two advisory locks, messages by
-- id, receipts, conversations by id, push jobs. Only the insert of a message locks its conversation first: no other
-- statement can wait for a new row.

create function private.serialize_writes() returns trigger
language plpgsql set search_path = '' as $$
begin
  -- Not for a backend, and not for a trigger that changes messages for their reader: both have another role.
  if current_user = 'authenticated' then
    perform pg_advisory_xact_lock(hashtextextended(auth.uid()::text, tg_argv[0]::bigint));
  end if;
  return null;
end $$;
comment on function private.serialize_writes() is
  'Makes the statements of one person run one after the other: each locks its rows in an order that only Postgres decides.';

create function private.lock_senders_of_marks() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  me constant uuid := auth.uid();
  person uuid;
begin
  perform pg_advisory_xact_lock(hashtextextended(me::text, 4));
  -- The policy lets the statement find unread messages and the caller's own messages.
  for person in
    select message.sender_id from public.chat_messages message
    where message.room_id = any (array(select private.my_rooms()))
      and message.is_read is not true and message.sender_id <> me
    union
    -- The snapshot of the statement is older than that of this query: a message that was unread then may be read now.
    -- Its conversation changed with it. A minute is longer than any statement of a person may take.
    select case when room.user1_id = me then room.user2_id else room.user1_id end from public.chat_rooms room
    where room.id = any (array(select private.my_rooms())) and room.updated_at > statement_timestamp() - interval '1 minute'
    union
    select me
    order by 1
  loop
    -- Exclusive: other recipients and backends lock the same messages in the order of their ids.
    perform pg_advisory_xact_lock(hashtextextended(person::text, 3));
  end loop;
  return null;
end $$;
comment on function private.lock_senders_of_marks() is
  'Takes the locks of lock_messages exclusively before a person marks messages by an update, which locks rows in any order.';

create function private.lock_messages(p_message_ids uuid[]) returns setof uuid
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  sender uuid;
begin
  -- A sender changes messages in any order, and holds this lock meanwhile (serialize_writes).
  for sender in
    select distinct sender_id from public.chat_messages where id = any(p_message_ids) order by sender_id
  loop
    perform pg_advisory_xact_lock_shared(hashtextextended(sender::text, 3));
  end loop;
  return query select id from public.chat_messages where id = any(p_message_ids) order by id for no key update;
end $$;
comment on function private.lock_messages(uuid[]) is
  'Locks messages before their receipts are written; returns the ids of those that still exist.';

create function private.create_receipts() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
begin
  insert into public.message_receipts (message_id, user_id, delivered_at, read_at)
  select id, auth.uid(), delivered_at, read_at from new_messages
  where sender_id <> auth.uid() and delivered_at is not null
  order by id
  on conflict (message_id, user_id) do update
    set delivered_at = excluded.delivered_at, read_at = coalesce(excluded.read_at, message_receipts.read_at)
    where message_receipts.delivered_at is null or (message_receipts.read_at is null and excluded.read_at is not null);
  return null;
end $$;
comment on function private.create_receipts() is
  'Writes the receipts for messages that a recipient marked by an update, as mark_messages_read does.';

create trigger stamp_message before insert on public.chat_messages
  for each row execute function private.stamp_message();
create trigger stamp_message_change before update on public.chat_messages
  for each row execute function private.stamp_message_change();
create trigger count_new_message after insert on public.chat_messages
  referencing new table as new_messages
  for each statement execute function private.count_new_message();
create trigger lock_senders_of_marks before update of is_read, read_at, delivered_at on public.chat_messages
  for each statement when (current_user = 'authenticated') execute function private.lock_senders_of_marks();
create trigger serialize_writes before update or delete on public.chat_messages
  for each statement execute function private.serialize_writes(3);
create trigger guard_message_change before update on public.chat_messages
  for each row when (current_user = 'authenticated') execute function private.guard_message_change();
create trigger collect_deleted_message before delete on public.chat_messages
  for each row when (current_user = 'authenticated') execute function private.collect_deleted_message();
create trigger soft_delete_messages after delete on public.chat_messages
  for each statement when (current_user = 'authenticated') execute function private.soft_delete_messages();
create trigger create_receipts after update on public.chat_messages
  referencing new table as new_messages
  for each statement when (current_user = 'authenticated') execute function private.create_receipts();
create trigger keep_deleted_message after update on public.chat_messages
  for each row when (old.deleted_at is null and new.deleted_at is not null) execute function private.keep_deleted_message();
create trigger recount_after_change after update on public.chat_messages
  referencing old table as old_messages new table as new_messages
  for each statement execute function private.recount_after_change();
create trigger recount_after_delete after delete on public.chat_messages
  referencing old table as old_messages
  for each statement execute function private.recount_after_delete();
create trigger recount_after_truncate after truncate on public.chat_messages
  for each statement execute function private.recount_after_delete();

revoke execute on function
  private.touch_updated_at(), private.stamp_message(), private.stamp_message_change(), private.keep_deleted_message(),
  private.guard_message_change(), private.collect_deleted_message(), private.soft_delete_messages(), private.serialize_writes(),
  private.lock_senders_of_marks(), private.lock_messages(uuid[]), private.create_receipts()
from public;
