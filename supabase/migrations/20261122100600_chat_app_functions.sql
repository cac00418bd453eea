-- The functions of the chat that apps call over the Data API. They run with the rights of the caller, under the policies
-- above. A user id that is passed must be that of the caller (private.require_caller).

create function private.conversation_of(p_user1_id uuid, p_user2_id uuid) returns uuid
language sql stable security definer set search_path = '' as $$
  select id from public.chat_rooms
  where auth.uid() in (p_user1_id, p_user2_id)
    and ((user1_id = p_user1_id and user2_id = p_user2_id) or (user1_id = p_user2_id and user2_id = p_user1_id))
  order by created_at, id limit 1;
$$;
comment on function private.conversation_of(uuid, uuid) is
  'Returns the conversation of the caller and another person, also while the caller blocks that person; null: there is none.';

create function public.get_or_create_conversation(p_user1_id uuid, p_user2_id uuid) returns uuid
language plpgsql set search_path = '' as $$
declare
  conversation uuid;
begin
  perform private.require_caller(case when p_user2_id = auth.uid() then p_user2_id else p_user1_id end, 'p_user_id');
  for attempt in 1..2 loop
    conversation := private.conversation_of(p_user1_id, p_user2_id);
    if conversation is not null then
      return conversation;
    end if;
    begin
      insert into public.chat_rooms (user1_id, user2_id) values (p_user1_id, p_user2_id)
      returning id into conversation;
      return conversation;
    exception
      when unique_violation then
        if attempt = 2 then
          raise;  -- It is a unique index of the app.
        end if;
        -- The other person created it at the same time: select it.
      when not_null_violation or foreign_key_violation then
        if sqlstate = '23502' and num_nulls(p_user1_id, p_user2_id) = 0 then
          raise;  -- It is a column of the app.
        end if;
        raise invalid_parameter_value using
          message = 'p_user1_id or p_user2_id is nobody', hint = 'Pass the ids of the signed-in user and of another person of this app.';
      when check_violation then
        if p_user1_id = p_user2_id then
          raise invalid_parameter_value using
            message = 'p_user1_id and p_user2_id are the same person', hint = 'Pass the id of another person.';
        end if;
        -- Existing apps may have a check such as user1_id < user2_id.
        insert into public.chat_rooms (user1_id, user2_id) values (p_user2_id, p_user1_id)
        returning id into conversation;
        return conversation;
    end;
  end loop;
end $$;
comment on function public.get_or_create_conversation(uuid, uuid) is
  'Returns the id of the conversation of the caller and another person; creates the conversation if there is none.';

create function public.get_messages_paginated(
  p_conversation_id uuid,
  p_limit integer default 30,
  p_cursor_timestamp timestamptz default null,
  p_cursor_id uuid default null
) returns setof public.chat_messages
language sql stable set search_path = '' as $$
  select * from public.chat_messages
  where room_id = p_conversation_id
    and server_timestamp <= coalesce(p_cursor_timestamp, 'infinity')
    and (p_cursor_timestamp is null or server_timestamp < p_cursor_timestamp or id > p_cursor_id)
  order by server_timestamp desc, id
  limit least(greatest(p_limit, 1), 200);
$$;
comment on function public.get_messages_paginated(uuid, integer, timestamptz, uuid) is
  'Returns a page of the messages of a conversation, newest first. The cursor is server_timestamp and id of the last message '
  'of the page before.';

create function private.messages_since(
  p_clock text, p_since timestamptz, p_after_id uuid, p_limit integer
) returns setof public.chat_messages
language plpgsql stable set search_path = '' as $$
declare
  page_size constant integer := least(greatest(p_limit, 1), 1000);
  since constant timestamptz := case
    -- What commits up to a minute after its timestamp is not missed.
    when p_after_id is null then coalesce(p_since, '-infinity') - interval '1 minute'
    else p_since
  end;
  rooms uuid[] := array(select private.my_rooms());
  deepest integer;
  -- The page ends here at the latest.
  until timestamptz := 'infinity';
  -- Messages that a round reads of each conversation.
  depth integer := 1;
begin
  -- Finds the end of the page, and the conversations with messages before it. Reading a whole page of each of a thousand
  -- conversations would cost a thousand pages. Each round reads twice as many messages of the conversations that may have
  -- more before the end that is known so far.
  loop
    execute format($sql$
      with head as materialized (
        select candidate.room_id, message.at
        from unnest($1) candidate (room_id)
        cross join lateral (
          select %1$I as at from public.chat_messages
          where room_id = candidate.room_id and %1$I between $2 and $3 and ($4 is null or %1$I > $2 or id > $4)
          order by %1$I limit $5
        ) message
      ), page_end as (
        select coalesce((select at from head order by 1 offset $6 - 1 limit 1), $3) as at
      )
      select page_end.at, array_agg(reached.room_id), max(reached.messages)
      from page_end
      left join lateral (
        select room_id, count(*) as messages from head where at <= page_end.at group by room_id
      ) reached on true
      group by page_end.at$sql$, p_clock)
    into until, rooms, deepest
    using rooms, since, until, p_after_id, depth, page_size;
    -- No conversation is left, or none that may have more.
    exit when deepest is null or deepest < depth or depth >= page_size;
    depth := least(2 * depth, page_size);
  end loop;
  return query execute format($sql$
    select message.*
    from unnest($1) mine (room_id)
    -- Lateral, so that each conversation is read by its index. In a plain join, the planner may read all messages.
    cross join lateral (
      select * from public.chat_messages
      where room_id = mine.room_id and %1$I between $2 and $3 and ($4 is null or %1$I > $2 or id > $4)
      order by %1$I, id limit $5
    ) message
    order by message.%1$I, message.id
    limit $5$sql$, p_clock)
  using rooms, since, until, p_after_id, page_size;
end $$;
comment on function private.messages_since(text, timestamptz, uuid, integer) is
  'Returns a page of the messages of the caller''s conversations since a time of the column p_clock, in its order. The first '
  'page (p_after_id is null) begins a minute earlier.';

create function public.get_missed_messages(
  p_user_id uuid,
  p_since_timestamp timestamptz,
  p_after_id uuid default null,
  p_limit integer default 500
) returns setof public.chat_messages
language plpgsql stable set search_path = '' as $$
begin
  perform private.require_caller(p_user_id, 'p_user_id');
  -- Executed: a plan that a session keeps would know the columns from before an app added one.
  return query execute 'select * from private.messages_since($1, $2, $3, $4)'
  using 'server_timestamp', p_since_timestamp, p_after_id, p_limit;
end $$;
comment on function public.get_missed_messages(uuid, timestamptz, uuid, integer) is
  'Returns messages since a sync, oldest first. p_since_timestamp is the greatest server_timestamp that the app has (null: '
  'none), never the clock of the phone. The first page overlaps by a minute: deduplicate by id. For further pages, pass '
  'server_timestamp and id of the last row. It returns no edits, deletions and marks: get_changed_messages does.';

create function public.get_changed_messages(
  p_user_id uuid,
  p_since timestamptz default null,
  p_after_id uuid default null,
  p_limit integer default 500
) returns setof public.chat_messages
language plpgsql stable set search_path = '' as $$
begin
  perform private.require_caller(p_user_id, 'p_user_id');
  return query execute 'select * from private.messages_since($1, $2, $3, $4)' using 'changed_at', p_since, p_after_id, p_limit;
end $$;
comment on function public.get_changed_messages(uuid, timestamptz, uuid, integer) is
  'Returns the messages that were inserted, edited, deleted or marked since a sync, in the order of their last change. p_since '
  'is the greatest changed_at that the app has, or sync_cursor() of a new phone. The first page overlaps by a minute, because '
  'a change may commit after a later one: deduplicate by id and changed_at. For further pages, pass changed_at and id of the '
  'last row.';

create function public.sync_cursor() returns timestamptz
language sql volatile set search_path = '' as $$
  select clock_timestamp();
$$;
comment on function public.sync_cursor() is
  'Returns where get_changed_messages of a new phone begins. The phone asks before it loads its conversations.';

create function public.mark_messages_delivered(
  p_user_id uuid,
  p_message_ids uuid[],
  p_device_id text default null
) returns integer
language plpgsql set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  marked integer;
begin
  perform private.require_caller(p_user_id, 'p_user_id');
  insert into public.message_receipts (message_id, user_id, device_id, delivered_at)
  select id, p_user_id, p_device_id, now()
  from private.lock_messages(array(
    select message.id from public.chat_messages message
    where message.id = any(p_message_ids) and message.sender_id <> p_user_id
  )) locked (id)
  on conflict (message_id, user_id) do update
    set delivered_at = excluded.delivered_at, device_id = excluded.device_id
    where message_receipts.delivered_at is null;
  get diagnostics marked = row_count;
  return marked;
end $$;
comment on function public.mark_messages_delivered(uuid, uuid[], text) is
  'Marks messages as delivered to the caller''s device; returns how many were not marked before.';

create function public.mark_messages_read(
  p_user_id uuid,
  p_conversation_id uuid,
  p_up_to_message_id uuid default null,
  p_device_id text default null
) returns integer
language plpgsql set search_path = '' as $$
declare
  newest_at timestamptz := 'infinity';
  marked integer;
begin
  perform private.require_caller(p_user_id, 'p_user_id');
  if p_up_to_message_id is not null then
    select server_timestamp into newest_at from public.chat_messages
    where id = p_up_to_message_id and room_id = p_conversation_id;
    if not found then
      raise invalid_parameter_value using
        message = 'p_up_to_message_id is not a message of p_conversation_id',
        hint = 'Pass the id of the newest message on the screen, or null to mark the whole conversation.';
    end if;
  end if;
  insert into public.message_receipts (message_id, user_id, device_id, read_at, read_device_id)
  select id, p_user_id, p_device_id, now(), p_device_id
  from private.lock_messages(array(
    select message.id from public.chat_messages message
    where message.room_id = p_conversation_id and message.sender_id <> p_user_id and message.is_read is not true
      -- The order of get_messages_paginated: of two messages with one timestamp, the one with the smaller id is newer.
      and message.server_timestamp <= newest_at
      and (message.server_timestamp < newest_at or message.id >= p_up_to_message_id)
  )) locked (id)
  on conflict (message_id, user_id) do update
    set read_at = excluded.read_at, read_device_id = excluded.read_device_id
    where message_receipts.read_at is null;
  get diagnostics marked = row_count;
  return marked;
end $$;
comment on function public.mark_messages_read(uuid, uuid, uuid, text) is
  'Marks the messages as read that the caller received in a conversation, up to and including p_up_to_message_id (null: all), '
  'on the device p_device_id. Returns how many were not marked before.';

revoke execute on function private.conversation_of(uuid, uuid), private.messages_since(text, timestamptz, uuid, integer) from public;
grant execute on function private.conversation_of(uuid, uuid), private.lock_messages(uuid[]), private.messages_since(text, timestamptz, uuid, integer) to authenticated;
revoke execute on function
  public.get_or_create_conversation(uuid, uuid),
  public.get_messages_paginated(uuid, integer, timestamptz, uuid),
  public.get_missed_messages(uuid, timestamptz, uuid, integer),
  public.get_changed_messages(uuid, timestamptz, uuid, integer),
  public.sync_cursor(),
  public.mark_messages_delivered(uuid, uuid[], text),
  public.mark_messages_read(uuid, uuid, uuid, text)
from public, anon, service_role;
grant execute on function
  public.get_or_create_conversation(uuid, uuid),
  public.get_messages_paginated(uuid, integer, timestamptz, uuid),
  public.get_missed_messages(uuid, timestamptz, uuid, integer),
  public.get_changed_messages(uuid, timestamptz, uuid, integer),
  public.sync_cursor(),
  public.mark_messages_delivered(uuid, uuid[], text),
  public.mark_messages_read(uuid, uuid, uuid, text)
to authenticated;
