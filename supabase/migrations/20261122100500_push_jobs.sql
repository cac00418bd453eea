-- The durable record: one job for each message, written in the message's own transaction, and one delivery for
-- each message and device.

-- Types, because each insert of a message would pay for checks.
create type push.job_state as enum ('pending', 'leased', 'done');
create type push.job_outcome as enum ('accepted', 'maybe_sent', 'failed', 'skipped');

create table push.jobs (
  message_id uuid primary key,
  recipient_id uuid not null,
  state push.job_state not null default 'pending',
  outcome push.job_outcome,
  reason text,
  is_retry boolean not null default false,
  attempts integer not null default 0,
  expired_leases integer not null default 0,
  next_attempt_at timestamptz not null default clock_timestamp(),
  lease_id uuid,
  leased_until timestamptz,
  created_at timestamptz not null default clock_timestamp(),
  finished_at timestamptz,
  check ((state = 'done') = (outcome is not null and finished_at is not null)),
  check ((state = 'leased') = (lease_id is not null and leased_until is not null))
);
comment on table push.jobs is 'What is to be pushed. A worker owns a job only while its lease lasts.';
-- No foreign keys: each insert of a message would pay for them.
comment on column push.jobs.message_id is 'The message. The two are stored by one statement, and delete_push_jobs ends both.';
comment on column push.jobs.recipient_id is
  'The other person of the conversation. When the person goes, so do the conversation, the message and the job.';
comment on column push.jobs.outcome is
  'accepted: Expo took it for at least one device; maybe_sent: nobody knows; failed; skipped: not to be sent.';
comment on column push.jobs.reason is 'Why the job was skipped, deferred or given up.';
comment on column push.jobs.is_retry is 'Whether it was claimed for sending before: first attempts go before retries.';
comment on column push.jobs.attempts is 'Claims for sending so far; a fault of the configuration takes none.';
comment on column push.jobs.expired_leases is 'Leases that ran out without a report of their worker.';

-- The only question asked of many rows: what is due, of first attempts and of retries?
create index idx_push_jobs_due on push.jobs (is_retry, greatest(next_attempt_at, leased_until)) where state <> 'done';

create table push.deliveries (
  message_id uuid not null references push.jobs (message_id) on delete cascade,
  device_id uuid not null,
  push_token text not null,
  status text not null check (status in (
    'accepted', 'maybe_sent', 'retry', 'failed', 'handed_over', 'receipt_lost')),
  error text,
  ticket_id text,
  attempts integer not null default 1,
  unanswered integer not null default 0,
  configuration_faults integer not null default 0,
  retry_at timestamptz,
  sent_at timestamptz not null default clock_timestamp(),
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp(),
  primary key (message_id, device_id)
);
comment on table push.deliveries is 'What Expo said of each message and device.';
comment on column push.deliveries.device_id is 'user_devices.id; kept when the device goes.';
comment on column push.deliveries.push_token is 'The token as it was sent to.';
comment on column push.deliveries.attempts is 'Sends so far, but for those that a fault of the configuration ended.';
comment on column push.deliveries.unanswered is 'Sends that got no readable answer: each may have reached the phone.';
comment on column push.deliveries.configuration_faults is 'Sends that a fault of the configuration ended.';
comment on column push.deliveries.retry_at is 'When this device is sent to again at the earliest, if its status allows it.';
comment on column push.deliveries.sent_at is
  'When the message was claimed for the last attempt: what registered later is not judged by its outcome.';
comment on column push.deliveries.status is
  'accepted: ticket ok; maybe_sent: no readable answer; retry: refused for now; failed: refused for good; then by the receipt '
  'handed_over: APNs or FCM took it; receipt_lost: nobody will ever know.';

create function push.create_job() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off as $$
begin
  insert into push.jobs (message_id, recipient_id)
  select added.id, case when added.sender_id = room.user1_id then room.user2_id else room.user1_id end
  from new_messages added join public.chat_rooms room on room.id = added.room_id
  where added.is_read is not true and added.deleted_at is null and added.sender_id in (room.user1_id, room.user2_id);
  return null;
end $$;
comment on function push.create_job() is 'Messages and their pushes are stored together or not at all.';

create trigger create_push_job after insert on public.chat_messages
  referencing new table as new_messages
  for each statement execute function push.create_job();

create function push.delete_jobs() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off as $$
begin
  if tg_op = 'TRUNCATE' then
    truncate push.jobs cascade;
  else
    delete from push.jobs where message_id = any(array(select id from old_messages));
  end if;
  return null;
end $$;
comment on function push.delete_jobs() is 'No push outlives its message.';

create trigger delete_push_jobs after delete on public.chat_messages
  referencing old table as old_messages
  for each statement execute function push.delete_jobs();
create trigger truncate_push_jobs after truncate on public.chat_messages
  for each statement execute function push.delete_jobs();

-- What an app may say differently: replace these two functions with your own.

create function push.display_name(p_user_id uuid) returns text
language sql stable set search_path = '' as $$
  -- What a phone draws nothing for is no name: spaces, control characters, Unicode's Default_Ignorable_Code_Point, and the
  -- blank of Braille. Spelled out, because what counts as a space depends on the database's locale.
  select btrim(candidate.name)
  -- A column that users does not have is found here instead. So only names are read, whatever else a profile holds.
  from (select null::text as full_name, null::text as name, null::text as first_name, null::text as last_name,
    null::text as nickname, null::text as username) absent
  cross join lateral (
    -- A name that is older than its bound may have megabytes.
    select array[left(display_name::text, 1000), left(full_name::text, 1000),
      case when pg_typeof(name) <> all ('{json,jsonb}'::regtype[]) then left(name::text, 1000) end,
      concat_ws(' ', left(first_name::text, 500), left(last_name::text, 500)),
      left(nickname::text, 1000), left(username::text, 1000)] as names
    from (select * from public.users where id = p_user_id) person
  ) found
  cross join lateral unnest(found.names) with ordinality candidate (name, place)
  where candidate.name ~ ('[^\u0001-\u0020\u007f-\u00a0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f'
    '\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8'
    '\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]')
  order by candidate.place limit 1;
$$;
comment on function push.display_name(uuid) is
  'Title of a push: the sender''s name, by the first usual column of users that has one of which something can be seen; or '
  'null for a neutral title.';

create function push.message_preview(p_message public.chat_messages) returns text
language sql immutable set search_path = '' as $$
  select coalesce(
    nullif(btrim(p_message.message), ''),
    case coalesce(p_message.attachments -> 0 ->> 'type', p_message.message_type)
      when 'image' then '📷 Photo'
      when 'photo' then '📷 Photo'
      when 'video' then '🎥 Video'
      when 'audio' then '🎤 Voice message'
      when 'voice' then '🎤 Voice message'
      when 'location' then '📍 Location'
      when 'file' then '📎 File'
      else 'New message'
    end
  );
$$;
comment on function push.message_preview(public.chat_messages) is 'Body of a push, before it is cut to length.';

create function push.message_image(p_message public.chat_messages, p_project_url text) returns text
language sql stable set search_path = '' as $$
  -- A path, because it takes whatever an older row holds, and no more of it than this.
  select found ->> 'url'
  from jsonb_path_query(p_message.attachments, 'lax $[0 to 99] ? (@.type == "image" || @.type == "photo")')
    with ordinality as listed (found, place)
  where found ->> 'url' ~ '^[!-~]+$' and octet_length(found ->> 'url') <= 2048
    -- Nothing that leads out of the path again.
    and found ->> 'url' !~* '(\.\.|\\|%2e|%2f|%5c)'
    and exists (
      select from push.settings, unnest(image_url_prefixes || (p_project_url || '/storage/v1/')) prefix
      where starts_with(found ->> 'url', prefix)
    )
  order by place limit 1;
$$;
comment on function push.message_image(public.chat_messages, text) is
  'Address of the first image that a push may show, or null: in the project''s own storage, or by push.settings.image_url_prefixes.';

-- An app that never marked messages as read has thousands that are unread.
create function push.mark_existing_messages_read() returns bigint
language plpgsql set search_path = '' as $$
declare
  marked bigint;
  installed_at constant timestamptz := (select at from push.migration_report where what = 'installed');
begin
  -- Against everybody who writes or marks: the order in which an update finds its rows is not ours.
  lock table public.chat_messages in exclusive mode;
  update public.chat_messages set is_read = true where is_read is not true and server_timestamp <= installed_at;
  get diagnostics marked = row_count;
  insert into push.migration_report (what, subject, affected_rows)
  values ('marked as read by mark_existing_messages_read', 'chat_messages: is_read', marked);
  return marked;
end $$;
comment on function push.mark_existing_messages_read() is
  'Marks what is older than the installation as read, so that badges begin at zero. Without read_at: nobody has read it.';

revoke execute on function push.mark_existing_messages_read(), push.create_job(), push.delete_jobs(), push.display_name(uuid),
  push.message_preview(public.chat_messages), push.message_image(public.chat_messages, text) from public;
