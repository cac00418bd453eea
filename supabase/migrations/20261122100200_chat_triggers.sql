-- What the server decides whatever a client writes: clocks, roles, counters, and how much one person may write.

create function private.touch_updated_at() returns trigger
language plpgsql set search_path = '' as $$
begin
  new.updated_at := clock_timestamp();
  return new;
end $$;
comment on function private.touch_updated_at() is 'updated_at, by the server''s clock.';

create trigger touch_updated_at before update on public.chat_messages
  for each row execute function private.touch_updated_at();
create trigger touch_updated_at before update on public.user_devices
  for each row execute function private.touch_updated_at();

-- Bounds are kept by triggers, and only for what a statement changes: a check would refuse every update of a row that is
-- older than the bound. Bytes, because that is what a longer value costs.
create function private.limit_bytes(p_field text, p_value text, p_limit integer) returns void
language plpgsql immutable set search_path = '' as $$
begin
  if octet_length(p_value) > p_limit then
    raise string_data_right_truncation using
      message = format('%s is too long: %s bytes, at most %s', p_field, octet_length(p_value), p_limit),
      hint = format('Shorten %s. In UTF-8 a character takes 1 to 4 bytes.', p_field);
  end if;
end $$;
comment on function private.limit_bytes(text, text, integer) is
  'Refuses a value that is too long, by the name of its field: 22001, HTTP 400.';

-- Profiles --------------------------------------------------------------------------------------

create function private.limit_profile() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  max_bytes constant integer := (select profile_bytes_limit from private.chat_settings);
begin
  -- As text, since an app that was there before may have chosen other types.
  if tg_op = 'INSERT' or new.display_name is distinct from old.display_name then
    perform private.limit_bytes('display_name', new.display_name::text, max_bytes);
  end if;
  if tg_op = 'INSERT' or new.avatar_url is distinct from old.avatar_url then
    perform private.limit_bytes('avatar_url', new.avatar_url::text, max_bytes);
  end if;
  if tg_op = 'INSERT' or new.locale is distinct from old.locale then
    perform private.limit_bytes('locale', new.locale::text, max_bytes);
  end if;
  return new;
end $$;
comment on function private.limit_profile() is 'A name is the title of every push of its owner.';

create trigger limit_profile before insert or update of display_name, avatar_url, locale on public.users
  for each row execute function private.limit_profile();

-- Conversations ---------------------------------------------------------------------------------

create function private.prepare_room() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  -- Before anything else: whether two others have a conversation, or are people at all, is nobody's business.
  if auth.uid() is not null and auth.uid() is distinct from new.user1_id and auth.uid() is distinct from new.user2_id
  then
    raise insufficient_privilege using
      message = 'neither user1_id nor user2_id is the signed-in user',
      hint = 'Pass the id of the session''s own user as one of them.';
  end if;
  if auth.uid() is not null then
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
  -- Not a unique index: databases from before may hold several rooms of the same two people.
  perform pg_advisory_xact_lock(hashtextextended(
    least(new.user1_id, new.user2_id)::text || greatest(new.user1_id, new.user2_id)::text, 0));
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
  'One conversation for two people, even when both open it at once; roles come from their profiles. What apps from before '
  'Chat Push name beside the two is accepted and not taken.';

create trigger prepare_room before insert on public.chat_rooms
  for each row execute function private.prepare_room();

create function private.stamp_room() returns trigger
language plpgsql set search_path = '' as $$
begin
  -- A person, not a trigger that counts. No trigger of its own: each insert of a message would pay for its condition.
  if current_user = 'authenticated' then
    if (new.archived_by_user1 is distinct from old.archived_by_user1 and old.user1_id is distinct from auth.uid())
      or (new.archived_by_user2 is distinct from old.archived_by_user2 and old.user2_id is distinct from auth.uid())
    then
      raise insufficient_privilege using message = 'each person archives a conversation only for themselves';
    end if;
    -- Apps from before Chat Push keep these themselves. Triggers do it now, so what a person writes is not taken.
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
  'updated_at, by the server''s clock; whoever lists conversations reads a preview of each, not whole messages; and what a '
  'person may change of a conversation, as a row policy cannot compare old and new values.';

create trigger stamp_room before update on public.chat_rooms
  for each row execute function private.stamp_room();

create function private.archive_deleted_room() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  update public.chat_rooms
  set archived_by_user1 = archived_by_user1 or user1_id = auth.uid(),
    archived_by_user2 = archived_by_user2 or user2_id = auth.uid()
  where id = old.id;
  return null;
end $$;
comment on function private.archive_deleted_room() is
  'A conversation is the other person''s as well: who deletes it, by a policy one of the two, archives it for themselves.';

create trigger archive_deleted_room before delete on public.chat_rooms
  for each row when (current_user = 'authenticated') execute function private.archive_deleted_room();

-- Messages --------------------------------------------------------------------------------------

create function private.limit_message_size(
  p_message text, p_attachments jsonb, p_client_msg_id text default null, p_message_type text default null
) returns void
language plpgsql set search_path = '' as $$
declare
  settings private.chat_settings;
begin
  select * into strict settings from private.chat_settings;
  perform private.limit_bytes('message', p_message, settings.message_bytes_limit),
    private.limit_bytes('client_msg_id', p_client_msg_id, 200),
    private.limit_bytes('message_type', p_message_type, 80),
    private.limit_bytes('attachments', p_attachments::text, settings.attachments_bytes_limit);
  if jsonb_typeof(p_attachments) <> 'array' then
    raise invalid_parameter_value using
      message = format('attachments must be an array, not of the type %s', jsonb_typeof(p_attachments)),
      hint = 'Pass [] for none, and [{…}] for one.';
  end if;
  if jsonb_array_length(p_attachments) > settings.attachment_limit then
    raise invalid_parameter_value using
      message = format('attachments are too many: %s, at most %s',
        jsonb_array_length(p_attachments), settings.attachment_limit),
      hint = 'Send them in several messages.';
  end if;
end $$;
comment on function private.limit_message_size(text, jsonb, text, text) is
  'Bounds of what a message holds: each claim reads a hundred of them. Null is never too long.';

create function private.limit_message_rate(p_sender_id uuid) returns void
language plpgsql set search_path = '' as $$
declare
  settings private.chat_settings;
  -- Of the statement under way: its start, how many messages it has, how many the window had before it, and since when
  -- this sender's others wait for it.
  batch text[] := string_to_array(current_setting('chat_push.message_batch', true), '|');
  place integer := 1;
  recent integer;
  began_at timestamptz;
  largest integer;
  silence interval;
  again_at timestamptz;
begin
  select * into strict settings from private.chat_settings;
  if batch[1] = statement_timestamp()::text then
    place := batch[2]::integer + 1;
    recent := batch[3]::integer;
    began_at := batch[4]::timestamptz;
  else
    -- One at a time for each sender, or parallel inserts would not see each other.
    perform pg_advisory_xact_lock(hashtextextended(p_sender_id::text, 1));
    began_at := clock_timestamp();
    select count(*) into recent from (
      select from public.chat_messages
      where sender_id = p_sender_id
        and server_timestamp > clock_timestamp() - settings.message_limit_window
      limit settings.message_limit
    ) newest;
  end if;
  perform set_config('chat_push.message_batch', concat_ws('|', statement_timestamp(), place, recent, began_at), true);
  if recent + place <= settings.message_limit then
    return;
  end if;
  largest := greatest(settings.message_batch_limit, settings.message_limit);
  if place > largest then
    -- Never to be sent: no "try again", which apps would do for ever.
    raise invalid_parameter_value using
      message = format('too many messages in one request: at most %s', largest),
      hint = 'Send them in several requests.';
  end if;
  if place = 1 then
    select server_timestamp + settings.message_limit_window into again_at from public.chat_messages
    where sender_id = p_sender_id
    order by server_timestamp desc offset settings.message_limit - 1 limit 1;
  else
    -- The largest statement after each such silence makes the same rate as message_limit in each window.
    silence := settings.message_limit_window * greatest(largest::float / settings.message_limit, 1);
    select max(server_timestamp) + silence into again_at from public.chat_messages
    where sender_id = p_sender_id and server_timestamp < began_at;
    if again_at is null or again_at <= clock_timestamp() then
      return;
    end if;
  end if;
  -- PostgREST turns PT429 into HTTP status 429.
  raise sqlstate 'PT429' using
    message = format('too many messages: at most %s in %s seconds',
      settings.message_limit, extract(epoch from settings.message_limit_window)::integer),
    detail = format('{"retry_after_seconds": %s}', greatest(ceil(extract(epoch from again_at - clock_timestamp())), 1)),
    hint = 'Wait so long and send the message again with the same client_msg_id.';
end $$;
comment on function private.limit_message_rate(uuid) is
  'Anti-spam limit on message inserts, per sender: 429 with the seconds to wait, or 400 for a statement that can never pass.';

create function private.stamp_message() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  me constant uuid := auth.uid();
  guide uuid;
  first_of_sender boolean;
begin
  -- A person, not a backend. No trigger of its own, which every insert would pay for.
  if me is not null then
    -- Before the limit, or its answer would tell how busy somebody else is.
    if new.sender_id is distinct from me then
      raise insufficient_privilege using
        message = 'sender_id is not the signed-in user',
        hint = 'Pass the id of the session''s own user.';
    end if;
    perform private.limit_message_rate(me);
  end if;
  -- What no setting forbids is told without reading the settings: nearly every message.
  if octet_length(new.message) > 1024 or octet_length(new.client_msg_id) > 80 or octet_length(new.message_type) > 20
    or new.attachments <> '[]'
  then
    perform private.limit_message_size(new.message, new.attachments, new.client_msg_id, new.message_type);
  end if;
  -- The row lock makes timestamps within a conversation follow the order of commits, so that a reader who has
  -- seen a message never misses an older one that commits later.
  select guide_id,
    (new.sender_id = user1_id and not accepted_by_user1) or (new.sender_id = user2_id and not accepted_by_user2)
  into guide, first_of_sender
  from public.chat_rooms where id = new.room_id for no key update;
  if first_of_sender then
    update public.chat_rooms
    set accepted_by_user1 = accepted_by_user1 or new.sender_id = user1_id,
      accepted_by_user2 = accepted_by_user2 or new.sender_id = user2_id
    where id = new.room_id;
  end if;
  new.server_timestamp := clock_timestamp();
  new.attachments := coalesce(new.attachments, '[]');
  if me is not null then
    -- Apps from before Chat Push name these: accepted, and not taken.
    new.created_at := new.server_timestamp;
    new.updated_at := new.server_timestamp;
    new.is_read := false;
    new.read_at := null;
    new.delivered_at := null;
    new.edited_at := null;
    new.deleted_at := null;
  end if;
  new.created_at := coalesce(new.created_at, new.server_timestamp);
  new.sender_role := case when new.sender_id = guide then 'guide' else 'tourist' end;
  return new;
end $$;
comment on function private.stamp_message() is 'Order and role of a message, which clients must not forge, and its limits.';

create function private.stamp_message_change() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  if (new.message, new.attachments) is distinct from (old.message, old.attachments) then
    perform private.limit_message_size(
      case when new.message is distinct from old.message then new.message end,
      case when new.attachments is distinct from old.attachments then new.attachments end);
    new.edited_at := clock_timestamp();
  end if;
  if new.deleted_at is not null then
    new.deleted_at := coalesce(old.deleted_at, clock_timestamp());
  end if;
  return new;
end $$;
comment on function private.stamp_message_change() is
  'When a message was edited or deleted, by the server''s clock; an edit has the bounds of a new message.';

create function private.guard_message_change() returns trigger
language plpgsql set search_path = '' as $$
declare
  marks public.chat_messages;
  now_at constant timestamptz := clock_timestamp();
begin
  if old.sender_id = auth.uid() then
    -- What the sender may change is what the grants name; of that, these are the recipient's and the server's.
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
  -- Nothing else, whatever columns an app has added. A message is never unread or undelivered again.
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
  'What a person may change of a message. Apps from before Chat Push mark what they received by an update of it.';

create function private.collect_deleted_message() returns trigger
language plpgsql set search_path = '' as $$
begin
  perform set_config('chat_push.deleted_messages',
    concat_ws(',', nullif(current_setting('chat_push.deleted_messages', true), ''), old.id), true);
  return null;
end $$;
comment on function private.collect_deleted_message() is
  'Keeps the row, and its lock: messages before conversations, so soft_delete_messages begins when all are locked.';

create function private.soft_delete_messages() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off as $$
declare
  noted constant uuid[] := string_to_array(nullif(current_setting('chat_push.deleted_messages', true), ''), ',');
begin
  perform set_config('chat_push.deleted_messages', '', true);
  update public.chat_messages set deleted_at = clock_timestamp()
  where id = any (noted) and sender_id = auth.uid() and deleted_at is null;
  return null;
end $$;
comment on function private.soft_delete_messages() is
  'Apps from before Chat Push delete the row; what is meant is deleted_at, by which pushes and other apps learn of it.';

create function private.count_new_message() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  if exists (select from new_messages offset 1) then
    -- Added row by row, each new version of the conversation's row would be searched behind all before it.
    perform private.recount_rooms(array(select distinct room_id from new_messages));
  else
    update public.chat_rooms room
    set last_message = added.message,
      last_message_at = added.server_timestamp,
      unread_count_user1 = unread_count_user1 + (added.sender_id = user2_id and added.is_read is not true)::integer,
      unread_count_user2 = unread_count_user2 + (added.sender_id = user1_id and added.is_read is not true)::integer
    from new_messages added
    where room.id = added.room_id and added.deleted_at is null;
  end if;
  return null;
end $$;
comment on function private.count_new_message() is
  'last_message and the recipient''s unread counter. A single message does not count the conversation''s others.';

-- Functions that meet many rows read tables by index alone (enable_seqscan). A session keeps their plans, and one made
-- while a table was small would go through the whole of it for each row.
create function private.recount_rooms(p_room_ids uuid[]) returns void
language plpgsql security definer set search_path = '' set enable_seqscan = off as $$
begin
  -- The lock first: the counting statement after it sees every message that was committed by then.
  perform from public.chat_rooms where id = any(p_room_ids) order by id for no key update;
  update public.chat_rooms room
  set last_message = newest.message,
    last_message_at = newest.server_timestamp,
    unread_count_user1 = unread.user1,
    unread_count_user2 = unread.user2
  from public.chat_rooms counted
  left join lateral (
    select message.message, message.server_timestamp from public.chat_messages message
    where message.room_id = counted.id and message.deleted_at is null
    order by message.server_timestamp desc, message.id limit 1
  ) newest on true
  cross join lateral (
    select count(*) filter (where message.sender_id = counted.user2_id) as user1,
      count(*) filter (where message.sender_id = counted.user1_id) as user2
    from public.chat_messages message
    where message.room_id = counted.id and message.is_read is not true and message.deleted_at is null
  ) unread
  where counted.id = any(p_room_ids) and room.id = counted.id;
end $$;
comment on function private.recount_rooms(uuid[]) is
  'Counters and newest message from the messages themselves, after reads, edits and deletions.';

create function private.recount_after_change() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  -- No join: a session keeps its plan, and one that was made for a single row compares each row with each.
  perform private.recount_rooms(array(
    select distinct room_id from (
      select id, room_id, is_read, deleted_at, message from new_messages
      except
      select id, room_id, is_read, deleted_at, message from old_messages
    ) changed
  ));
  return null;
end $$;
comment on function private.recount_after_change() is 'Recounts conversations whose messages look otherwise than before.';

create function private.recount_after_delete() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  perform private.recount_rooms(array(select distinct room_id from old_messages));
  return null;
end $$;
comment on function private.recount_after_delete() is 'Recounts conversations that messages were erased from.';

-- Locks ------------------------------------------------------------------------------------------
-- One order for all (docs/decisions.md, "One order of locks"): the two advisory locks, messages by id, receipts,
-- conversations by id, push jobs. The insert of a message begins with its conversation: nobody waits for a new row.

create function private.serialize_writes() returns trigger
language plpgsql set search_path = '' as $$
begin
  -- Not a backend, and not a trigger that changes messages in the name of somebody who read them.
  if current_user = 'authenticated' then
    perform pg_advisory_xact_lock(hashtextextended(auth.uid()::text, tg_argv[0]::bigint));
  end if;
  return null;
end $$;
comment on function private.serialize_writes() is
  'A person''s changes run one after the other: the order in which a statement of theirs finds its rows is not ours.';

create function private.lock_senders_of_marks() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  me constant uuid := auth.uid();
  person uuid;
begin
  perform pg_advisory_xact_lock(hashtextextended(me::text, 4));
  -- The policy lets the statement find messages that are unread, and one's own.
  for person in
    select message.sender_id from public.chat_messages message
    where message.room_id = any (array(select private.my_rooms()))
      and message.is_read is not true and message.sender_id <> me
    union
    -- The statement's snapshot is older than this query's: what was unread then may have been read since, which changed
    -- its conversation. A minute is longer than any statement of a person may take.
    select case when room.user1_id = me then room.user2_id else room.user1_id end from public.chat_rooms room
    where room.id = any (array(select private.my_rooms())) and room.updated_at > statement_timestamp() - interval '1 minute'
    union
    select me
    order by 1
  loop
    -- Alone, not shared: others who mark, or a backend, lock the same messages in the order of their ids.
    perform pg_advisory_xact_lock(hashtextextended(person::text, 3));
  end loop;
  return null;
end $$;
comment on function private.lock_senders_of_marks() is
  'Before a person marks messages by an update of them, which locks them in any order: what lock_messages would take, but for itself alone.';

create function private.create_receipts() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off as $$
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
comment on function private.create_receipts() is 'A recipient''s update of messages becomes what mark_messages_read writes.';

create function private.lock_messages(p_message_ids uuid[]) returns setof uuid
language plpgsql security definer set search_path = '' set enable_seqscan = off as $$
declare
  sender uuid;
begin
  -- Their senders change them in any order, under this lock (serialize_writes).
  for sender in
    select distinct sender_id from public.chat_messages where id = any(p_message_ids) order by sender_id
  loop
    perform pg_advisory_xact_lock_shared(hashtextextended(sender::text, 3));
  end loop;
  return query select id from public.chat_messages where id = any(p_message_ids) order by id for no key update;
end $$;
comment on function private.lock_messages(uuid[]) is
  'Locks messages for whoever marks them, before their receipts; returns those that are still there.';

create trigger stamp_message before insert on public.chat_messages
  for each row execute function private.stamp_message();
create trigger stamp_message_change before update on public.chat_messages
  for each row execute function private.stamp_message_change();
create trigger count_new_message after insert on public.chat_messages
  referencing new table as new_messages
  for each statement execute function private.count_new_message();
-- Triggers of one kind run in the order of their names: the locks of a marker before the writer's, receipts before
-- conversations.
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
create trigger recount_after_change after update on public.chat_messages
  referencing old table as old_messages new table as new_messages
  for each statement execute function private.recount_after_change();
create trigger recount_after_delete after delete on public.chat_messages
  referencing old table as old_messages
  for each statement execute function private.recount_after_delete();

-- Receipts --------------------------------------------------------------------------------------

create function private.stamp_receipt() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  before public.message_receipts;
  now_at constant timestamptz := clock_timestamp();
begin
  if tg_op = 'UPDATE' then
    before := old;
  else
    perform private.lock_messages(array[new.message_id]);
  end if;
  -- The first time counts, and a message that was read has been delivered.
  new.read_at := coalesce(before.read_at, case when new.read_at is not null then now_at end);
  new.delivered_at := coalesce(before.delivered_at,
    case when coalesce(new.delivered_at, new.read_at) is not null then now_at end);
  new.device_id := coalesce(before.device_id, new.device_id);
  return new;
end $$;
comment on function private.stamp_receipt() is
  'Times of a receipt by the server''s clock; they never move again. An upsert locks the message before the receipt.';

create function private.mark_messages_of_receipts() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off as $$
begin
  perform private.lock_messages(array(select message_id from new_receipts));
  update public.chat_messages message
  set delivered_at = coalesce(message.delivered_at, receipt.delivered_at),
    is_read = message.is_read is true or receipt.read_at is not null,
    read_at = coalesce(message.read_at, receipt.read_at)
  from new_receipts receipt
  where message.id = receipt.message_id and message.sender_id <> receipt.user_id
    and ((message.delivered_at is null and receipt.delivered_at is not null)
      or (message.is_read is not true and receipt.read_at is not null));
  return null;
end $$;
comment on function private.mark_messages_of_receipts() is 'chat_messages shows what the receipts say.';

create trigger stamp_receipt before insert or update on public.message_receipts
  for each row execute function private.stamp_receipt();
create trigger serialize_writes before insert or update on public.message_receipts
  for each statement execute function private.serialize_writes(4);

create function private.limit_receipt() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  if tg_op = 'INSERT' or new.device_id is distinct from old.device_id then
    perform private.limit_bytes('device_id', new.device_id, 800);
  end if;
  return new;
end $$;
comment on function private.limit_receipt() is 'A receipt names no longer device than user_devices can hold.';

create trigger limit_receipt before insert or update on public.message_receipts
  for each row when (octet_length(new.device_id) > 800) execute function private.limit_receipt();
create trigger mark_messages_after_insert after insert on public.message_receipts
  referencing new table as new_receipts
  for each statement execute function private.mark_messages_of_receipts();
create trigger mark_messages_after_update after update on public.message_receipts
  referencing new table as new_receipts
  for each statement execute function private.mark_messages_of_receipts();

-- Presence ---------------------------------------------------------------------------------------

create function private.stamp_presence() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  -- Whoever is set offline long after the last heartbeat was last seen at that heartbeat.
  if tg_op = 'UPDATE' and old.is_online and not new.is_online
    and old.updated_at < clock_timestamp() - (select presence_fresh_for from push.settings)
  then
    new.updated_at := old.updated_at;
  else
    new.updated_at := clock_timestamp();
  end if;
  new.last_seen_at := new.updated_at;
  -- Whoever is away looks at nothing; and of what is no conversation of the caller, nobody is told. Not refused: an app
  -- may have screens that are no conversations, and a refused heartbeat would leave the one before in place.
  if not new.is_online or (auth.uid() is not null and not exists (
    select from public.chat_rooms
    where id = new.current_conversation_id and auth.uid() in (user1_id, user2_id)
  )) then
    new.current_conversation_id := null;
  end if;
  return new;
end $$;
comment on function private.stamp_presence() is
  'A heartbeat counts from the server''s clock, as a phone''s may be hours off, and names a conversation of one''s own or none.';

create trigger stamp_presence before insert or update on public.user_presence
  for each row execute function private.stamp_presence();

revoke execute on function
  private.limit_profile(),
  private.touch_updated_at(), private.limit_bytes(text, text, integer), private.prepare_room(), private.stamp_room(),
  private.archive_deleted_room(), private.guard_message_change(),
  private.collect_deleted_message(), private.soft_delete_messages(), private.lock_senders_of_marks(), private.create_receipts(),
  private.limit_message_size(text, jsonb, text, text), private.limit_message_rate(uuid),
  private.stamp_message(), private.stamp_message_change(), private.count_new_message(),
  private.recount_rooms(uuid[]), private.recount_after_change(), private.recount_after_delete(),
  private.serialize_writes(), private.lock_messages(uuid[]),
  private.stamp_receipt(), private.limit_receipt(), private.mark_messages_of_receipts(), private.stamp_presence()
from public;
