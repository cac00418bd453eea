-- Checks that the triggers and functions of the chat call: the caller may act for themselves only, and each value, message
-- and rate has a limit. The limits are in private.chat_settings. They hold on every path, because triggers call them.
-- Triggers check only what a statement changes. A check constraint would reject each update of a row that is older than
-- the limit. Lengths are counted in bytes, because bytes are what a long value costs.

create function private.require_caller(p_user_id uuid, p_field text) returns void
language plpgsql stable set search_path = '' as $$
begin
  if auth.uid() is null or p_user_id is distinct from auth.uid() then
    raise insufficient_privilege using
      message = format('%s is not the signed-in user', p_field),
      hint = 'Pass the id of the session''s own user.';
  end if;
end $$;
comment on function private.require_caller(uuid, text) is
  'Rejects a user id that is not auth.uid(), and names its field: 42501, HTTP 403.';

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
  'Rejects a value of more than p_limit bytes, and names its field: 22001, HTTP 400. Null passes.';

-- Profiles --------------------------------------------------------------------------------------

create function private.limit_profile() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  max_bytes constant integer := (select profile_bytes_limit from private.chat_settings);
begin
  -- As text, because an existing app may have columns of other types.
  if tg_op = 'INSERT' or new.display_name::text is distinct from old.display_name::text then
    perform private.limit_bytes('display_name', new.display_name::text, max_bytes);
  end if;
  if tg_op = 'INSERT' or new.avatar_url::text is distinct from old.avatar_url::text then
    perform private.limit_bytes('avatar_url', new.avatar_url::text, max_bytes);
  end if;
  if tg_op = 'INSERT' or new.locale::text is distinct from old.locale::text then
    perform private.limit_bytes('locale', new.locale::text, max_bytes);
  end if;
  return new;
end $$;
comment on function private.limit_profile() is 'Limits the profile columns: display_name is the title of each push that the person sends.';

create trigger limit_profile before insert or update of display_name, avatar_url, locale on public.users
  for each row execute function private.limit_profile();

-- Conversations ---------------------------------------------------------------------------------

create function private.limit_new_rooms() returns void
language plpgsql set search_path = '' as $$
declare
  -- The current statement: its start, and its number of conversations so far.
  batch constant text[] := string_to_array(current_setting('chat_push.room_batch', true), '|');
  position constant integer := 1 + case when batch[1] = statement_timestamp()::text then batch[2]::integer else 0 end;
begin
  if position > 20 then
    raise invalid_parameter_value using
      message = 'too many conversations in one request: at most 20',
      hint = 'Open them in several requests.';
  end if;
  perform set_config('chat_push.room_batch', concat_ws('|', statement_timestamp(), position), true);
end $$;
comment on function private.limit_new_rooms() is
  'Limits the conversations that one statement of a person opens: 22023, HTTP 400. Each takes a lock, and the memory of locks is shared by all sessions.';

-- Messages --------------------------------------------------------------------------------------

create function private.attachment_fault(p_attachments jsonb, p_types text[]) returns text
language sql immutable set search_path = '' as $$
  select format('attachments[%s]', position - 1) || case
    when jsonb_typeof(item) <> 'object' then ' must be an object'
    when (item ->> 'type') <> all (p_types) then format('.type must be one of %s', array_to_string(p_types, ', '))
    else '.url must be an https URL'
  end
  from jsonb_array_elements(p_attachments) with ordinality listed (item, position)
  where jsonb_typeof(item) <> 'object' or (item ->> 'type') <> all (p_types)
    or item ->> 'url' !~* '^(https://|http://(127\.0\.0\.1|localhost)[:/])[^\u0001-\u0020\u007f]+$'
  order by position limit 1;
$$;
comment on function private.attachment_fault(jsonb, text[]) is
  'Returns what is wrong with the first wrong element of an array of attachments, or null. Type and url may be missing.';

create function private.limit_message_size(
  p_message text, p_attachments jsonb, p_client_msg_id text default null, p_message_type text default null
) returns void
language plpgsql set search_path = '' as $$
declare
  settings private.chat_settings;
  fault text;
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
  if settings.attachment_types is not null then
    fault := private.attachment_fault(p_attachments, settings.attachment_types);
    if fault is not null then
      raise invalid_parameter_value using
        message = fault,
        hint = 'Pass objects such as {"type": "image", "url": "https://…"}.';
    end if;
  end if;
end $$;
comment on function private.limit_message_size(text, jsonb, text, text) is
  'Rejects a message with a field that is too long (22001) or of a wrong form (22023), HTTP 400. A claim reads a hundred '
  'messages at once, so each has a bounded size. Null passes.';

-- An app whose messages have attachments of another form may still write them.
with changed as (
  update private.chat_settings set attachment_types = null
  from (
    select count(*) as messages from public.chat_messages
    where attachments <> '[]'
      and case when jsonb_typeof(attachments) <> 'array' then true
        else private.attachment_fault(attachments, (select attachment_types from private.chat_settings)) is not null end
  ) other
  where other.messages > 0
  returning other.messages
)
insert into push.migration_report (what, subject, affected_rows)
select 'attachments of another form found, none is rejected', 'chat_settings: attachment_types', messages from changed;

create function private.limit_message_rate(p_sender_id uuid) returns void
language plpgsql set search_path = '' as $$
declare
  settings private.chat_settings;
  -- The current statement: its start, its number of messages so far, the messages of the window before it, and the time
  -- at which it took the lock of its sender.
  batch text[] := string_to_array(current_setting('chat_push.message_batch', true), '|');
  position integer := 1;
  recent integer;
  began_at timestamptz;
  largest integer;
  pause interval;
  again_at timestamptz;
begin
  select * into strict settings from private.chat_settings;
  if batch[1] = statement_timestamp()::text then
    position := batch[2]::integer + 1;
    recent := batch[3]::integer;
    began_at := batch[4]::timestamptz;
  else
    -- One statement of a sender at a time: parallel inserts do not see each other's rows.
    perform pg_advisory_xact_lock(hashtextextended(p_sender_id::text, 1));
    began_at := clock_timestamp();
    select count(*) into recent from (
      select from public.chat_messages
      where sender_id = p_sender_id
        and server_timestamp > clock_timestamp() - settings.message_limit_window
      limit settings.message_limit
    ) newest;
  end if;
  perform set_config('chat_push.message_batch', concat_ws('|', statement_timestamp(), position, recent, began_at), true);
  if recent + position <= settings.message_limit then
    return;
  end if;
  largest := greatest(settings.message_batch_limit, settings.message_limit);
  if position > largest then
    -- Not 429: an app would repeat a statement that can never pass.
    raise invalid_parameter_value using
      message = format('too many messages in one request: at most %s', largest),
      hint = 'Send them in several requests.';
  end if;
  if position = 1 then
    select server_timestamp + settings.message_limit_window into again_at from public.chat_messages
    where sender_id = p_sender_id
    order by server_timestamp desc offset settings.message_limit - 1 limit 1;
  else
    -- The largest statement after each such pause gives the same rate as message_limit in each window.
    pause := settings.message_limit_window * greatest(largest::float / settings.message_limit, 1);
    select max(server_timestamp) + pause into again_at from public.chat_messages
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
    hint = 'Wait for retry_after_seconds, then send the message again with the same client_msg_id.';
end $$;
comment on function private.limit_message_rate(uuid) is
  'Anti-spam limit on the messages that one sender inserts. Rejects with PT429 (HTTP 429) and the seconds to wait, or with '
  '22023 (HTTP 400) a statement that can never pass.';

-- New conversations -----------------------------------------------------------------------------

create table private.new_contacts (
  sender_id uuid not null references public.users (id) on delete cascade,
  room_id uuid not null,
  began_at timestamptz not null default clock_timestamp(),
  primary key (sender_id, room_id)
);
create index idx_new_contacts_rate on private.new_contacts (sender_id, began_at);
create index idx_new_contacts_began on private.new_contacts (began_at);
comment on table private.new_contacts is
  'Conversations in which a person has begun to write to a stranger, for new_contact_limit. Rows are deleted after its window.';
comment on column private.new_contacts.room_id is 'No foreign key: a deleted conversation counts, too.';

create function private.limit_new_contacts(p_sender_id uuid, p_room_id uuid) returns void
language plpgsql set search_path = '' as $$
declare
  settings private.chat_settings;
  again_at timestamptz;
begin
  select * into strict settings from private.chat_settings;
  -- The sender holds the lock of limit_message_rate, so no other insert of theirs adds a row meanwhile.
  select began_at + settings.new_contact_limit_window into again_at from private.new_contacts
  where sender_id = p_sender_id order by began_at desc offset settings.new_contact_limit - 1 limit 1;
  if again_at > clock_timestamp() then
    raise sqlstate 'PT429' using
      message = format('too many new conversations: at most %s in %s seconds',
        settings.new_contact_limit, extract(epoch from settings.new_contact_limit_window)::integer),
      -- Apps tell it from the limit of messages: other conversations can go on.
      detail = format('{"retry_after_seconds": %s, "limit": "new_contact_limit"}',
        greatest(ceil(extract(epoch from again_at - clock_timestamp())), 1)),
      hint = 'Wait for retry_after_seconds, then send the message again with the same client_msg_id.';
  end if;
  insert into private.new_contacts (sender_id, room_id) values (p_sender_id, p_room_id)
  on conflict (sender_id, room_id) do update set began_at = excluded.began_at;
end $$;
comment on function private.limit_new_contacts(uuid, uuid) is
  'Anti-spam limit on the strangers to whom one person begins to write. Rejects with PT429 (HTTP 429) and the seconds to wait.';

revoke execute on function private.limit_new_contacts(uuid, uuid) from public;
revoke execute on function
  private.limit_bytes(text, text, integer), private.limit_profile(), private.attachment_fault(jsonb, text[]),
  private.limit_new_rooms(), private.limit_message_size(text, jsonb, text, text), private.limit_message_rate(uuid)
from public;
revoke execute on function private.require_caller(uuid, text) from public;
grant execute on function private.require_caller(uuid, text) to authenticated;
