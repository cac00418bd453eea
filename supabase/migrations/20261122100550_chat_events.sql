-- Events for apps over Supabase Realtime, by private broadcast. Triggers write them to realtime.messages, in the transaction of
-- the change, for the private channel of each person, user:<user id>; Realtime sends them after the commit. An event is a hint: it may get
-- lost, and get_changed_messages is the truth. So a fault of Realtime is a warning, and never aborts a statement of the chat.
--
-- The functions insert rows themselves. realtime.send inserts one row at a call, with a block for exceptions each.
-- They set the time zone, because Realtime's times are in UTC, and so the times in events are, too.

create function private.message_event(p_operation text, p_record jsonb, p_with_content boolean default true) returns jsonb
language sql immutable set search_path = '' as $$
  select jsonb_build_object('operation', p_operation, 'record', case
    -- Realtime drops what has more than 256 KB (Free plan). In JSON, a byte takes six at most.
    when p_with_content and pg_column_size(p_record) <= 40000 then p_record
    else jsonb_build_object('id', p_record -> 'id', 'room_id', p_record -> 'room_id', 'changed_at', p_record -> 'changed_at')
  end);
$$;
comment on function private.message_event(text, jsonb, boolean) is
  'Returns the payload of the event of a message. One that is too large, or without content, has only id, room_id and changed_at: the app syncs.';

create function private.send_new_messages() returns trigger
language plpgsql security definer set search_path = '' set timezone = 'UTC' as $$
begin
  insert into realtime.messages (topic, extension, event, private, inserted_at, payload)
  select 'user:' || person.id, 'broadcast', 'message', true, added.server_timestamp, added.payload
  from (
    select room_id, sender_id, server_timestamp, private.message_event('INSERT', record) as payload
    from (
      select room_id, sender_id, server_timestamp, to_jsonb(new_messages) as record from new_messages
      -- Without history that a backend imports.
      where created_at >= server_timestamp - interval '1 minute'
      offset 0
    ) stored
    offset 0
  ) added
  join public.chat_rooms room on room.id = added.room_id
  cross join lateral (values (room.user1_id), (room.user2_id)) person (id)
  where person.id is not null and not exists (
    select from private.blocks block
    where block.blocker_id = person.id and block.blocked_id = added.sender_id and upper_inf(block.during)
  );
  return null;
exception when others then
  raise warning 'Chat Push: no event of a new message: %', sqlerrm;
  return null;
end $$;
comment on function private.send_new_messages() is
  'Sends each new message to both people of its conversation, except to one who blocks its sender. The event has the time of the message, by which forget_messages finds it.';

create function private.forget_messages(p_times timestamptz[]) returns void
language plpgsql set search_path = '' set enable_seqscan = off set jit = off as $$
begin
  update realtime.messages
  set payload = jsonb_build_object('operation', payload -> 'operation',
    'record', jsonb_build_object('id', payload #> '{record,id}', 'room_id', payload #> '{record,room_id}'))
  where inserted_at = any (p_times) and extension = 'broadcast' and private is true
    and event = 'message' and topic like 'user:%' and payload #> '{record,message}' is not null;
end $$;
comment on function private.forget_messages(timestamptz[]) is
  'Removes text and attachments from the events of these times. Realtime keeps events for days, and sends them again to a client that '
  'asks for a replay. If the event of another message has the same microsecond, its app syncs.';

create function private.send_edited_messages(p_messages public.chat_messages[]) returns void
language plpgsql set search_path = '' set enable_seqscan = off set jit = off set enable_nestloop = on as $$
begin
  insert into realtime.messages (topic, extension, event, private, inserted_at, payload)
  select 'user:' || person.id, 'broadcast', 'message', true, edited.changed_at, edited.payload
  from (
    select room_id, sender_id, changed_at, server_timestamp, edited_at, private.message_event('UPDATE', record, is_found_again) as payload
    from (
      select room_id, sender_id, changed_at, server_timestamp, edited_at, to_jsonb(changed) as record,
        -- forget_messages finds the event by edited_at. A backend may change message_type alone.
        deleted_at is not null or coalesce(edited_at::timestamptz = changed_at, false) as is_found_again
      from unnest(p_messages) changed
      offset 0
    ) stored
    offset 0
  ) edited
  join public.chat_rooms room on room.id = edited.room_id
  cross join lateral (values (room.user1_id), (room.user2_id)) person (id)
  where person.id is not null and not exists (
    select from private.blocks block
    where block.blocker_id = person.id and block.blocked_id = edited.sender_id
      and (edited.server_timestamp <@ block.during or edited.edited_at::timestamptz <@ block.during)
  );
end $$;
comment on function private.send_edited_messages(public.chat_messages[]) is
  'Sends messages that were edited or deleted to both people of their conversation, except to one from whom a block hides them.';

create function private.send_marks(p_messages public.chat_messages[]) returns void
language plpgsql set search_path = '' set enable_seqscan = off set jit = off set enable_nestloop = on as $$
begin
  insert into realtime.messages (topic, extension, event, private, inserted_at, payload)
  select 'user:' || person.id, 'broadcast', 'receipts', true, clock_timestamp(), marked.payload
  from (
    select room_id, jsonb_build_object('room_id', room_id, 'message_ids', jsonb_agg(id), 'is_read', is_read,
      'delivered_at', max(delivered_at), 'read_at', max(read_at), 'changed_at', max(changed_at)) as payload
    -- A thousand ids are 40 KB.
    from (
      select *, (row_number() over (partition by room_id, is_read) - 1) / 1000 as part from unnest(p_messages)
    ) numbered
    group by room_id, is_read, part
    offset 0
  ) marked
  join public.chat_rooms room on room.id = marked.room_id
  cross join lateral (values (room.user1_id), (room.user2_id)) person (id)
  where person.id is not null and not exists (
    select from private.blocks block
    where block.blocker_id = person.id and block.blocked_id in (room.user1_id, room.user2_id) and upper_inf(block.during)
  );
end $$;
comment on function private.send_marks(public.chat_messages[]) is
  'Sends which messages were marked to both people of their conversation, except to one who blocks the other: one event for each '
  'conversation and state.';

create function private.send_changed_messages() returns trigger
-- A session keeps the plan. A plan from the time of a single row would compare each old row with each new one.
language plpgsql security definer set search_path = '' set timezone = 'UTC' set enable_nestloop = off set jit = off as $$
declare
  edited public.chat_messages[];
  marked public.chat_messages[];
  forgotten timestamptz[];
begin
  select array_agg(message) filter (where is_edited), array_agg(message) filter (where is_marked),
    array_agg(sent_at) filter (where is_edited) || array_agg(edited_at) filter (where is_edited or is_redated)
  into edited, marked, forgotten
  from (
    select changed::public.chat_messages as message, before.server_timestamp as sent_at, before.edited_at,
      (changed.message, changed.attachments, changed.message_type, changed.deleted_at)
        is distinct from (before.message, before.attachments, before.message_type, before.deleted_at) as is_edited,
      (changed.is_read, changed.read_at, changed.delivered_at)
        is distinct from (before.is_read, before.read_at, before.delivered_at) as is_marked,
      -- By a backend: the event of the last edit could not be found later.
      changed.edited_at is distinct from before.edited_at as is_redated
    from new_messages changed join old_messages before on before.id = changed.id
    where changed.changed_at <> before.changed_at
  ) compared;
  if forgotten is not null then
    perform private.forget_messages(forgotten);
  end if;
  if edited is not null then
    perform private.send_edited_messages(edited);
  end if;
  if marked is not null then
    perform private.send_marks(marked);
  end if;
  return null;
exception when others then
  raise warning 'Chat Push: no event of a changed message: %', sqlerrm;
  return null;
end $$;
comment on function private.send_changed_messages() is
  'Sends edits, deletions by deleted_at and marks to both people of the conversation.';

create function private.send_deleted_messages() returns trigger
language plpgsql security definer set search_path = '' set timezone = 'UTC' set enable_seqscan = off set jit = off as $$
begin
  perform private.forget_messages(
    array(select server_timestamp from old_messages) || array(select edited_at from old_messages where edited_at is not null));
  insert into realtime.messages (topic, extension, event, private, inserted_at, payload)
  select 'user:' || person.id, 'broadcast', 'message', true, clock_timestamp(), deleted.payload
  from (
    select room_id, private.message_event('DELETE', jsonb_build_object('id', id, 'room_id', room_id)) as payload
    from old_messages offset 0
  ) deleted
  -- Not found if the conversation is deleted, too: its own event says so.
  join public.chat_rooms room on room.id = deleted.room_id
  cross join lateral (values (room.user1_id), (room.user2_id)) person (id)
  where person.id is not null;
  return null;
exception when others then
  raise warning 'Chat Push: no event of a deleted message: %', sqlerrm;
  return null;
end $$;
comment on function private.send_deleted_messages() is
  'Sends the ids of messages whose rows were deleted to both people of the conversation.';

-- Conversations ----------------------------------------------------------------------------------

create function private.send_rooms(p_operation text, p_rooms public.chat_rooms[]) returns void
language plpgsql set search_path = '' as $$
begin
  insert into realtime.messages (topic, extension, event, private, inserted_at, payload)
  select 'user:' || person.id, 'broadcast', 'conversation', true, clock_timestamp(), jsonb_build_object('operation', p_operation, 'record',
    -- Without the text: it may be edited or deleted, and Realtime keeps the event.
    case when p_operation = 'DELETE' then jsonb_build_object('id', room.id) else to_jsonb(room) - 'last_message' end)
  from unnest(p_rooms) room
  cross join lateral (values (room.user1_id), (room.user2_id)) person (id)
  where person.id is not null and not exists (
    select from private.blocks block
    where block.blocker_id = person.id and block.blocked_id in (room.user1_id, room.user2_id) and upper_inf(block.during)
  );
exception when others then
  raise warning 'Chat Push: no event of a conversation: %', sqlerrm;
end $$;
comment on function private.send_rooms(text, public.chat_rooms[]) is
  'Sends conversations to both of their people, except to one who blocks the other.';

create function private.send_new_rooms() returns trigger
language plpgsql security definer set search_path = '' set timezone = 'UTC' as $$
begin
  perform private.send_rooms('INSERT', array(select room::public.chat_rooms from new_rooms room));
  return null;
end $$;
comment on function private.send_new_rooms() is 'Sends new conversations to both people.';

create function private.send_changed_room() returns trigger
language plpgsql security definer set search_path = '' set timezone = 'UTC' as $$
begin
  perform private.send_rooms('UPDATE', array[new]);
  return null;
end $$;
comment on function private.send_changed_room() is 'Sends a conversation that was archived or accepted to both people.';

create function private.send_deleted_rooms() returns trigger
language plpgsql security definer set search_path = '' set timezone = 'UTC' as $$
begin
  perform private.send_rooms('DELETE', array(select room::public.chat_rooms from old_rooms room));
  return null;
end $$;
comment on function private.send_deleted_rooms() is 'Sends the ids of deleted conversations to both people.';

-- Who may join a channel -------------------------------------------------------------------------

create function private.topic_right(p_topic text) returns text
language sql stable security definer set search_path = '' as $$
  select case
    when p_topic = 'user:' || auth.uid() then 'receive'
    when p_topic ~ '^user:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then 'none'
    when p_topic ~ '^room:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then (
      -- Who blocks the other person neither shows nor sees there who types.
      select case when auth.uid() in (user1_id, user2_id) and not exists (
        select from private.blocks block
        where block.blocker_id = auth.uid() and block.blocked_id in (user1_id, user2_id) and upper_inf(block.during)
      ) then 'send' else 'none' end
      from public.chat_rooms where id = substr(p_topic, 6)::uuid)
  end;
$$;
comment on function private.topic_right(text) is
  'Returns what the caller may do on a channel of the chat: receive (own events), send (and receive: typing and presence in an own '
  'conversation) or none. Null: the channel is not of the chat.';

create function private.enable_events() returns boolean
language plpgsql set search_path = '' as $$
begin
  if (
    select count(*) from pg_catalog.pg_attribute
    where attrelid = to_regclass('realtime.messages') and not attisdropped
      and attname in ('topic', 'extension', 'event', 'private', 'inserted_at', 'payload')
  ) < 6 then
    return false;
  end if;
  drop policy if exists chat_receive on realtime.messages;
  drop policy if exists chat_send on realtime.messages;
  drop policy if exists chat_receive_own on realtime.messages;
  drop policy if exists chat_send_own on realtime.messages;
  drop policy if exists chat_not_for_anon on realtime.messages;
  create policy chat_receive on realtime.messages for select to authenticated
    using ((select private.topic_right(realtime.topic())) in ('receive', 'send'));
  -- Not for the extension persistence, by which Realtime stores for three days what an app sends.
  create policy chat_send on realtime.messages for insert to authenticated
    with check ((select private.topic_right(realtime.topic())) = 'send' and extension in ('broadcast', 'presence'));
  -- Permissive policies add up. An app's own policy may allow all channels, and must not open these.
  create policy chat_receive_own on realtime.messages as restrictive for select to authenticated
    using ((select private.topic_right(realtime.topic())) is distinct from 'none');
  create policy chat_send_own on realtime.messages as restrictive for insert to authenticated
    with check (
      case (select private.topic_right(realtime.topic()))
        when 'send' then extension in ('broadcast', 'presence')
        when 'receive' then false
        when 'none' then false
        else true
      end);
  create policy chat_not_for_anon on realtime.messages as restrictive to anon
    using (realtime.topic() !~ '^(user|room):[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$');

  create or replace trigger send_new_messages after insert on public.chat_messages
    referencing new table as new_messages
    for each statement execute function private.send_new_messages();
  create or replace trigger send_changed_messages after update on public.chat_messages
    referencing old table as old_messages new table as new_messages
    for each statement execute function private.send_changed_messages();
  create or replace trigger send_deleted_messages after delete on public.chat_messages
    referencing old table as old_messages
    for each statement execute function private.send_deleted_messages();
  create or replace trigger send_new_rooms after insert on public.chat_rooms
    referencing new table as new_rooms
    for each statement execute function private.send_new_rooms();
  -- Not for each message: count_new_message sets none of these columns.
  create or replace trigger send_changed_room
    after update of user1_id, user2_id, archived_by_user1, archived_by_user2, accepted_by_user1, accepted_by_user2
    on public.chat_rooms for each row
    when ((old.user1_id, old.user2_id, old.archived_by_user1, old.archived_by_user2, old.accepted_by_user1, old.accepted_by_user2)
      is distinct from
      (new.user1_id, new.user2_id, new.archived_by_user1, new.archived_by_user2, new.accepted_by_user1, new.accepted_by_user2))
    execute function private.send_changed_room();
  create or replace trigger send_deleted_rooms after delete on public.chat_rooms
    referencing old table as old_rooms
    for each statement execute function private.send_deleted_rooms();
  return true;
end $$;
comment on function private.enable_events() is
  'Creates the triggers that send events and the policies of their channels; returns false, and changes nothing, without Supabase '
  'Realtime. The migrations call it. Call it again when Realtime was added later.';

do $$
begin
  if private.enable_events() then
    insert into push.migration_report (what, subject)
    select 'policy of Realtime no longer applies to user:<id> and room:<id> of the chat', policyname
    from pg_catalog.pg_policies
    where schemaname = 'realtime' and tablename = 'messages' and permissive = 'PERMISSIVE' and policyname !~ '^chat_(receive|send)$';
  else
    insert into push.migration_report (what, subject)
    values ('no Realtime found, no events are sent', 'call private.enable_events() when it was added');
  end if;
end $$;

revoke execute on function
  private.message_event(text, jsonb, boolean), private.send_new_messages(), private.forget_messages(timestamptz[]),
  private.send_edited_messages(public.chat_messages[]), private.send_marks(public.chat_messages[]),
  private.send_changed_messages(), private.send_deleted_messages(), private.send_rooms(text, public.chat_rooms[]),
  private.send_new_rooms(), private.send_changed_room(), private.send_deleted_rooms(), private.topic_right(text),
  private.enable_events()
from public;
-- Policies run with the rights of their caller.
grant execute on function private.topic_right(text) to authenticated;
