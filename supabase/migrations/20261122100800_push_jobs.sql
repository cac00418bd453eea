-- The durable record. A notification shows the state of a conversation on a device. A job is the duty to keep both in step, for
-- one conversation and one recipient: each change of what the recipient should see makes it due, in the transaction of the
-- change. Decisions say what became of each message, deliveries what each device was sent.

create type push.job_state as enum ('idle', 'pending', 'leased');
comment on type push.job_state is
  'idle: nothing to do; pending: waits until next_attempt_at; leased: a worker has it until leased_until.';
-- In this order, the greatest outcome of the sends of a message is its outcome.
create type push.outcome as enum ('skipped', 'failed', 'maybe_sent', 'accepted');
comment on type push.outcome is
  'skipped: a message was not sent, because it must not be; failed: it was rejected for each device; maybe_sent: it may have '
  'been sent, but no answer says so; accepted: the push service accepted it for at least one device.';
create type push.kind as enum ('alert', 'update', 'dismiss', 'badge');
comment on type push.kind is
  'alert: shows new messages; update: replaces the text that is shown, without a sound; dismiss: removes the notification; '
  'badge: only sets the number on the icon of the app.';

-- The free space of each page takes new versions of its rows: most updates then change no index.
create table push.jobs (
  id bigint generated always as identity primary key,
  room_id uuid not null,
  recipient_id uuid not null,
  state push.job_state not null default 'pending',
  revision bigint not null default 1,
  decided_up_to timestamptz not null,
  next_attempt_at timestamptz default clock_timestamp(),
  again_at timestamptz,
  expires_at timestamptz,
  reason text,
  is_retry boolean not null default false,
  attempts integer not null default 0,
  expired_leases integer not null default 0,
  lease_id uuid,
  leased_until timestamptz,
  leased_revision bigint,
  changed_at timestamptz not null default clock_timestamp(),
  unique (room_id, recipient_id),
  check ((state = 'idle') = (next_attempt_at is null)),
  check ((state = 'leased') = (lease_id is not null and leased_until is not null and leased_revision is not null))
) with (fillfactor = 70);
comment on table push.jobs is
  'One row for each conversation and recipient. A worker owns a job only while its lease lasts.';
-- No foreign keys: they would cost time at each insert of a message. The job of a conversation that was deleted, or that its
-- recipient has left, dismisses what phones still show of it, then it is deleted.
comment on column push.jobs.revision is 'Grows with each change of the conversation: a change during a lease makes the job due again.';
comment on column push.jobs.decided_up_to is 'Each message of the conversation up to this server_timestamp has its row in push.decisions.';
comment on column push.jobs.again_at is
  'When a device is due that waits for a retry or its budget, or when the presence ends that defers the job; null: neither.';
comment on column push.jobs.expires_at is 'When the newest message that a device shows expires, so that it is dismissed; null: none shows any.';
comment on column push.jobs.reason is 'Why the job waits until next_attempt_at; null: no special reason.';
comment on column push.jobs.is_retry is 'Whether a worker claimed it since the last new message: first attempts go before retries.';
comment on column push.jobs.attempts is
  'Claims for sending since the last new message, without those that ended in a configuration fault.';
comment on column push.jobs.changed_at is 'When a worker settled it for the last time: old idle jobs are deleted.';
comment on column push.jobs.expired_leases is 'Leases that expired before their worker reported, since the last report.';
comment on column push.jobs.leased_revision is 'The revision that the worker has.';

-- For push.lock_due_jobs, the only query over all jobs: what is due, of first attempts and of retries.
create index idx_push_jobs_due on push.jobs (is_retry, greatest(next_attempt_at, leased_until)) where state <> 'idle';
create index idx_push_jobs_changed on push.jobs (changed_at) where state = 'idle';

create table push.decisions (
  message_id uuid primary key,
  job_id bigint not null references push.jobs (id) on delete cascade,
  outcome push.outcome,
  reason text,
  best push.outcome not null default 'skipped',
  created_at timestamptz not null default clock_timestamp(),
  finished_at timestamptz,
  check ((outcome is null) = (finished_at is null))
);
-- The open decisions of a job; and all of them, when the job is deleted.
create index idx_push_decisions_job on push.decisions (job_id, outcome);
comment on table push.decisions is 'What became of each message. The first claim that sees a message adds its row.';
comment on column push.decisions.outcome is 'Null: the message is not decided, or not on all devices yet.';
comment on column push.decisions.reason is 'Why the message was skipped, deferred or ended without success (push.decide); null: no special reason.';
comment on column push.decisions.best is 'The best that its sends came to so far; skipped: it was not sent.';

create table push.deliveries (
  id bigint generated always as identity primary key,
  job_id bigint not null references push.jobs (id) on delete cascade,
  device_id uuid not null,
  kind push.kind not null,
  digest text not null,
  message_ids uuid[] not null default '{}',
  line_ids uuid[] not null default '{}',
  message_at timestamptz,
  badge integer not null,
  sound boolean not null default false,
  silenced_by text,
  follow_up boolean not null default false,
  push_token text not null,
  status text not null default 'sending' check (status in (
    'sending', 'accepted', 'maybe_sent', 'retry', 'failed', 'handed_over', 'receipt_lost')),
  error text,
  ticket_id text,
  attempts integer not null default 1,
  unanswered integer not null default 0,
  configuration_faults integer not null default 0,
  retry_at timestamptz,
  sent_at timestamptz not null,
  answered_at timestamptz,
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp(),
  is_accepted boolean not null generated always as (status in ('accepted', 'handed_over', 'receipt_lost')) stored
) with (fillfactor = 80);
create index idx_push_deliveries_device on push.deliveries (job_id, device_id, id);
-- A claim looks for the last badge, of which most conversations have none.
create index idx_push_deliveries_badge on push.deliveries (job_id, device_id, id) where kind = 'badge';
comment on table push.deliveries is
  'Each push to a device, and what the push service answered. A claim adds it; a retry of the same content uses its row again.';
comment on column push.deliveries.device_id is 'user_devices.id; kept when the device is deleted.';
comment on column push.deliveries.digest is 'A hash of the content, dismiss, or the number of a badge: equal content is sent once.';
comment on column push.deliveries.message_ids is 'The messages that this push is the first to announce.';
comment on column push.deliveries.line_ids is 'The messages whose text it shows, the newest first.';
comment on column push.deliveries.message_at is 'server_timestamp of the newest message that it covers.';
comment on column push.deliveries.badge is 'The number that it sets on the icon of the app.';
comment on column push.deliveries.silenced_by is 'What the recipient chose, so that this alert makes no sound: snoozed, quiet_hours or no_sound; null: nothing.';
comment on column push.deliveries.follow_up is 'Whether another push to the device is due when this one is settled.';
comment on column push.deliveries.push_token is 'The token that the push was sent to.';
comment on column push.deliveries.ticket_id is
  'The id of the push at its provider: of Expo''s ticket, the name of FCM''s message, or the apns-id.';
comment on column push.deliveries.attempts is 'Sends so far, without those that ended in a configuration fault.';
comment on column push.deliveries.unanswered is 'Sends without a readable answer: each may have reached the phone.';
comment on column push.deliveries.configuration_faults is 'Sends that ended in a configuration fault.';
comment on column push.deliveries.retry_at is 'The earliest time of the next send, if its status allows one.';
comment on column push.deliveries.sent_at is
  'When the push was claimed for the last attempt. A dead token deactivates only a device that was last seen before.';
comment on column push.deliveries.answered_at is 'When the answer of the push service was recorded. A receipt does not change it.';
comment on column push.deliveries.status is
  'sending: a worker has it, or never reported. By the ticket: accepted; maybe_sent: no readable answer; retry: a temporary '
  'error; failed: a permanent error. By the receipt: handed_over: APNs or FCM accepted it; receipt_lost: Expo gives no receipt any more.';
comment on column push.deliveries.is_accepted is
  'Whether the push service accepted the push. Such a delivery is never sent again, nor replaced by another answer.';

create table push.device_states (
  device_id uuid primary key,
  badge integer,
  sounded_at timestamptz,
  dismissed_at timestamptz[] not null default '{}'
);
comment on table push.device_states is
  'What a device was told, over all conversations: the badge, the last sound, and the times of dismissals of the last hour.';
comment on column push.device_states.device_id is 'user_devices.id. No foreign key: a report of a device that is deleted meanwhile must not fail.';
comment on column push.device_states.badge is 'The last badge it was sent, or set itself when it read; null: none.';

create function push.time_to_live() returns interval
language plpgsql stable set search_path = '' as $$
begin
  return (select time_to_live from push.settings);
end $$;
comment on function push.time_to_live() is
  'Returns the setting. In plpgsql, so that a statement that seldom reads it does not prepare the query each time.';

-- What makes a job due ---------------------------------------------------------------------------

create function push.set_accepted_due(p_room_id uuid, p_recipient_id uuid) returns void
language plpgsql set search_path = '' set enable_seqscan = off set jit = off as $$
begin
  update push.jobs
  set revision = revision + 1, state = case state when 'leased' then state else 'pending' end,
    next_attempt_at = case state when 'pending' then least(next_attempt_at, clock_timestamp()) else clock_timestamp() end
  -- Of other conversations, no phone shows anything.
  where room_id = p_room_id and recipient_id = p_recipient_id and (expires_at is not null or state <> 'idle');
  if found then
    perform push.call_webhook('UPDATE', newest.id, p_room_id) from (
      select id from public.chat_messages where room_id = p_room_id and sender_id <> p_recipient_id
      order by server_timestamp desc limit 1
    ) newest;
  end if;
end $$;
comment on function push.set_accepted_due(uuid, uuid) is
  'Makes the job of a recipient due who has accepted a conversation: phones that show a message request show the messages instead.';

create function push.set_due_after_acceptance() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  perform push.set_accepted_due(new.id, case when new.accepted_by_user1 <> old.accepted_by_user1 then new.user1_id else new.user2_id end);
  return null;
end $$;
comment on function push.set_due_after_acceptance() is 'Makes the job of a conversation due that its recipient has accepted by accept_conversation.';

-- Who answers accepts, too: push.create_job. A trigger of the message's own trigger would lock the job before other conversations.
create trigger set_push_jobs_due after update of accepted_by_user1, accepted_by_user2 on public.chat_rooms
  for each row when (pg_trigger_depth() = 0
    and (old.accepted_by_user1, old.accepted_by_user2) is distinct from (new.accepted_by_user1, new.accepted_by_user2))
  execute function push.set_due_after_acceptance();

create function push.create_job() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  added record;
  accepted uuid[] := string_to_array(nullif(current_setting('chat_push.accepted_rooms', true), ''), ',');
begin
  if accepted is not null then
    perform set_config('chat_push.accepted_rooms', '', true);
    if (select message_requests from push.settings) = 'none' then
      accepted := null;
    end if;
  end if;
  for added in
    select room_id, sender_id, min(server_timestamp) as first_at from new_messages
    where is_read is not true and deleted_at is null
      -- History that a backend imports. What is not a minute old is none, so most inserts do not read the settings.
      and (created_at >= server_timestamp - interval '1 minute' or created_at > server_timestamp - push.time_to_live())
    group by room_id, sender_id
    -- In the order of rooms and recipients, so that no two statements wait for each other: the greater sender of a room writes to
    -- the smaller recipient.
    order by room_id, sender_id desc
  loop
    if added.room_id = any (accepted) then
      -- Who answers accepts. Both jobs of the conversation are locked in their order.
      perform from push.jobs where room_id = added.room_id order by recipient_id for update;
      perform push.set_accepted_due(added.room_id, added.sender_id);
    end if;
    update push.jobs
    set revision = revision + 1,
      state = case state when 'leased' then state else 'pending' end,
      -- A job that is due already keeps its place: a busy conversation must not wait behind its own messages.
      next_attempt_at = case state when 'pending' then least(next_attempt_at, clock_timestamp()) else clock_timestamp() end,
      is_retry = false, attempts = 0, reason = null
    where room_id = added.room_id and recipient_id <> added.sender_id;
    if not found then
      insert into push.jobs (room_id, recipient_id, decided_up_to)
      select id, case when added.sender_id = user1_id then user2_id else user1_id end, added.first_at - interval '1 microsecond'
      from public.chat_rooms where id = added.room_id and added.sender_id in (user1_id, user2_id) and user1_id <> user2_id;
    end if;
  end loop;
  return null;
end $$;
comment on function push.create_job() is
  'Makes the job of each conversation with a new message due, in the transaction of the message: both are stored, or none. A '
  'message whose created_at is older than time_to_live is history, and makes nothing due.';

create trigger create_push_job after insert on public.chat_messages
  referencing new table as new_messages
  for each statement execute function push.create_job();

create type push.changed_message as (room_id uuid, sender_id uuid, message_id uuid);
comment on type push.changed_message is 'A message whose change its recipient should see.';

create function push.set_due(p_changed push.changed_message[], p_delay interval, p_are_read boolean) returns void
language plpgsql set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  due_at constant timestamptz := clock_timestamp() + p_delay;
  providers text[];
  jobs bigint[];
  to_wake push.changed_message[];
begin
  if p_changed = '{}' then
    return;
  end if;
  providers := push.configured_providers();
  -- Locked in one order, so that no two statements wait for each other.
  select array_agg(job.id), array_agg(row(job.room_id, job.sender_id, job.message_id)::push.changed_message) filter (
    where job.state = 'idle' or (job.state = 'pending' and job.next_attempt_at > due_at
      -- What only a viewer saw in the app is on no phone.
      and (job.reason is distinct from 'viewing' or job.expires_at is not null))
    -- The app has changed the only phone itself. The next sweep settles the job.
    and not (p_are_read and not exists (
      select from push.sendable_devices(job.recipient_id, providers) device
      where device.device_id is distinct from (
        select read_device_id from public.message_receipts receipt
        where receipt.message_id = job.message_id and receipt.user_id = job.recipient_id
      )
    )))
  into jobs, to_wake
  from (
    select job.*, changed.sender_id, changed.message_id from push.jobs job
    join (
      -- One message of each conversation is enough: it names the job.
      select room_id, sender_id, (array_agg(message_id))[1] as message_id from unnest(p_changed) group by room_id, sender_id
    ) changed on changed.room_id = job.room_id and changed.sender_id <> job.recipient_id
    -- Without a push and a badge, no phone shows anything that could be wrong.
    where job.state <> 'idle' or exists (
      select from public.user_devices device join push.device_states told on told.device_id = device.id
      where device.user_id = job.recipient_id and told.badge > 0
    )
    order by job.room_id, job.recipient_id for update of job
  ) job;
  update push.jobs job
  set revision = job.revision + 1,
    state = case job.state when 'leased' then job.state else 'pending' end,
    next_attempt_at = case job.state when 'pending' then least(job.next_attempt_at, due_at) else due_at end
  where job.id = any(jobs);
  perform push.call_webhook('UPDATE', message_id, room_id) from unnest(to_wake);
end $$;
comment on function push.set_due(push.changed_message[], interval, boolean) is
  'Makes the jobs of the recipients of these messages due after the delay, and calls the webhook for those that would have waited longer, '
  'except of messages that were read on the only phone that shows them.';

create function push.set_rooms_due(p_recipient_id uuid, p_room_ids uuid[], p_webhooks integer default 10) returns void
language plpgsql set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  now_at constant timestamptz := clock_timestamp();
begin
  -- Messages that are there already make no alert because of a choice: a new job begins after them.
  insert into push.jobs as job (room_id, recipient_id, decided_up_to)
  select id, p_recipient_id, now_at from unnest(p_room_ids) id order by id
  on conflict (room_id, recipient_id) do update
    set revision = job.revision + 1,
      state = case job.state when 'leased' then job.state else 'pending' end,
      next_attempt_at = case job.state when 'pending' then least(job.next_attempt_at, now_at) else now_at end;
  perform push.call_webhook('UPDATE', newest.id, room.id)
  -- The next sweep takes the others.
  from unnest(p_room_ids[:p_webhooks]) room (id)
  cross join lateral (
    select id from public.chat_messages where room_id = room.id and sender_id <> p_recipient_id
    order by server_timestamp desc limit 1
  ) newest;
end $$;
comment on function push.set_rooms_due(uuid, uuid[], integer) is
  'Makes the jobs of a recipient in these conversations due, because of a choice of the recipient, and calls the webhook for the first p_webhooks. The '
  'conversations are locked before.';

create function push.set_due_after_preference() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  perform push.set_rooms_due(new.user_id, array[new.room_id]);
  return null;
end $$;
comment on function push.set_due_after_preference() is 'Makes the job of a conversation due for which its recipient chose something.';

create function push.set_due_after_block() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  perform push.set_rooms_due(new.blocker_id, array(
    select id from public.chat_rooms
    where (user1_id, user2_id) in ((new.blocker_id, new.blocked_id), (new.blocked_id, new.blocker_id))));
  return null;
end $$;
comment on function push.set_due_after_block() is 'Makes the jobs of a person due in the conversations with a person whom they block, or unblock.';

create function push.set_due_after_preview() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  person constant uuid := case tg_op when 'DELETE' then old.user_id else new.user_id end;
begin
  perform push.set_rooms_due(person, array(
    select job.room_id from public.chat_rooms room join push.jobs job on job.room_id = room.id and job.recipient_id = person
    -- Of the other conversations, no phone shows anything.
    where person in (room.user1_id, room.user2_id) and (job.expires_at is not null or job.state = 'leased')));
  return null;
end $$;
comment on function push.set_due_after_preview() is 'Makes the jobs of a person due whose notifications show another preview now.';

create function push.set_due_after_locale() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
begin
  -- Elsewhere jobs are locked before devices. So one that a worker has is skipped: it keeps the old language until its next change.
  update push.jobs
  set revision = revision + 1, state = 'pending', next_attempt_at = clock_timestamp()
  where id = any (array(
    select job.id from public.chat_rooms room join push.jobs job on job.room_id = room.id and job.recipient_id = new.user_id
    where new.user_id in (room.user1_id, room.user2_id) and job.expires_at is not null and job.state <> 'leased'
    for no key update of job skip locked));
  return null;
end $$;
comment on function push.set_due_after_locale() is 'Makes the jobs of a person due whose device has another language now: its notifications are replaced.';

create function push.set_due_after_handover() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  -- A backend may hand over thousands of conversations, so the next sweep takes them. Not for people whose account is being deleted.
  perform push.set_rooms_due(person.id, array[new.id], 0) from public.users person
  where person.id in (old.user1_id, old.user2_id, new.user1_id, new.user2_id) order by person.id;
  return null;
end $$;
comment on function push.set_due_after_handover() is
  'Makes the jobs of a conversation due whose people were exchanged: phones of the former ones stop showing it.';

create trigger set_push_jobs_due_of_people after update of user1_id, user2_id on public.chat_rooms
  for each row when ((old.user1_id, old.user2_id) is distinct from (new.user1_id, new.user2_id))
  execute function push.set_due_after_handover();

create trigger set_push_jobs_due after update of locale on public.user_devices
  for each row when (old.locale is distinct from new.locale and new.is_active and old.locale is not null)
  execute function push.set_due_after_locale();
create trigger set_push_jobs_due after update on private.notification_preferences
  for each row when (old.preview <> new.preview) execute function push.set_due_after_preview();
create trigger set_push_jobs_due after insert or update or delete on private.device_previews
  for each row execute function push.set_due_after_preview();
create trigger set_push_jobs_due after insert or update of muted_until on private.conversation_preferences
  for each row execute function push.set_due_after_preference();
create trigger set_push_jobs_due after insert or update on private.blocks
  for each row execute function push.set_due_after_block();

create function push.set_due_after_update() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  settings push.settings;
begin
  select * into strict settings from push.settings;
  -- `except`, not a join: the session keeps the plan, and a join plan made for one row compares each row with each.
  perform push.set_due(array(
    select row(room_id, sender_id, id)::push.changed_message from (
      select id, room_id, sender_id, message, attachments, message_type, deleted_at from new_messages
      except
      select id, room_id, sender_id, message, attachments, message_type, deleted_at from old_messages
    ) changed
    union all
    -- What was moved to another conversation is like deleted in the old one.
    select row(room_id, sender_id, id)::push.changed_message from (
      select id, room_id, sender_id from old_messages except select id, room_id, sender_id from new_messages
    ) moved
  ), settings.edit_delay, false);
  perform push.set_due(array(
    select row(room_id, sender_id, id)::push.changed_message from (
      select id, room_id, sender_id, is_read from new_messages
      except
      select id, room_id, sender_id, is_read from old_messages
    ) changed
  ), settings.read_delay, true);
  return null;
end $$;
comment on function push.set_due_after_update() is
  'Makes jobs due whose messages were edited, deleted by deleted_at, or read. Several changes in the delay cost one push.';

create function push.set_due_after_delete() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
begin
  if tg_op = 'TRUNCATE' then
    update push.jobs set revision = revision + 1, next_attempt_at = clock_timestamp() where state <> 'idle';
  else
    perform push.set_due(array(select row(room_id, sender_id, id)::push.changed_message from old_messages),
      (select edit_delay from push.settings), false);
  end if;
  return null;
end $$;
comment on function push.set_due_after_delete() is 'Makes the jobs of deleted messages due, so that phones stop showing them.';

-- Their names sort after those of recount_after_change and recount_after_delete, because conversations are locked before jobs.
create trigger set_push_jobs_due after update on public.chat_messages
  referencing old table as old_messages new table as new_messages
  for each statement execute function push.set_due_after_update();
create trigger set_push_jobs_due_after_delete after delete on public.chat_messages
  referencing old table as old_messages
  for each statement execute function push.set_due_after_delete();
create trigger set_push_jobs_due_after_truncate after truncate on public.chat_messages
  for each statement execute function push.set_due_after_delete();

create function push.delete_jobs_of_person() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  rooms constant uuid[] := array(select id from public.chat_rooms where user1_id = old.id or user2_id = old.id);
begin
  -- The deletion of the account deletes them in another order than that of the locks, so they are locked before.
  perform private.lock_messages(array(select id from public.chat_messages where room_id = any(rooms)));
  perform from public.chat_rooms where id = any(rooms) order by id for update;
  delete from push.jobs where recipient_id = old.id and room_id = any(rooms);
  return old;
end $$;
comment on function push.delete_jobs_of_person() is
  'Deletes the jobs of a recipient whose account is deleted, with the push tokens of their deliveries. Locks what the deletion deletes, in order.';

create trigger delete_push_jobs_of_person before delete on public.users
  for each row execute function push.delete_jobs_of_person();

create function push.delete_device_states() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  delete from push.device_states where device_id = any(array(select id from deleted));
  return null;
end $$;
comment on function push.delete_device_states() is 'Deletes what deleted devices were told.';

create trigger delete_device_states after delete on public.user_devices
  referencing old table as deleted
  for each statement execute function push.delete_device_states();

create function push.forget_device_presence() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  if tg_op = 'DELETE' or not new.is_active then
    delete from private.device_presence where user_id = old.user_id and device_id = old.device_id;
  end if;
  return null;
end $$;
comment on function push.forget_device_presence() is
  'Forgets the last heartbeat of a device that was logged out or deactivated, or that another account has now: it holds back no push to the '
  'person''s other devices.';

create trigger forget_device_presence after delete or update of push_token, is_active on public.user_devices
  for each row execute function push.forget_device_presence();

-- Existing apps ----------------------------------------------------------------------------------

create function push.mark_existing_messages_read() returns bigint
language plpgsql set search_path = '' as $$
declare
  marked bigint;
  installed_at constant timestamptz := (select at from push.migration_report where what = 'installed');
begin
  -- No other statement may change messages meanwhile: the update locks its rows in an order that only Postgres decides.
  lock table public.chat_messages in exclusive mode;
  update public.chat_messages set is_read = true where is_read is not true and server_timestamp <= installed_at;
  get diagnostics marked = row_count;
  insert into push.migration_report (what, subject, affected_rows)
  values ('marked as read by mark_existing_messages_read', 'chat_messages: is_read', marked);
  return marked;
end $$;
comment on function push.mark_existing_messages_read() is
  'Marks messages that are older than the installation as read, so that badges begin at zero in an app that never marked '
  'messages; returns how many. read_at stays null, because the recipients have not read them.';

revoke execute on all functions in schema push from public;
