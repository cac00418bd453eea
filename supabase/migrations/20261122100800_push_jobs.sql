-- The durable record: one job for each message, written in the transaction of the message, and one delivery for each
-- message and device. push.create_job alone decides whether a message gets a job.

-- Enums, because a check constraint would cost time at each insert of a message.
create type push.job_state as enum ('pending', 'leased', 'done');
comment on type push.job_state is
  'pending: waits until next_attempt_at; leased: a worker has it until leased_until; done: it has an outcome.';
create type push.job_outcome as enum ('accepted', 'maybe_sent', 'failed', 'skipped');
comment on type push.job_outcome is
  'accepted: Expo accepted it for at least one device; maybe_sent: it may have been sent, but no answer says so; failed: it '
  'was rejected for each device; skipped: it was not sent, because it must not be.';

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
comment on table push.jobs is 'The push of each message. A worker owns a job only while its lease lasts.';
-- No foreign keys: they would cost time at each insert of a message.
comment on column push.jobs.message_id is
  'The message. One statement stores both; delete_push_jobs deletes the job with its message.';
comment on column push.jobs.recipient_id is
  'The other person of the conversation. Deleting the person deletes the conversation, the message and the job.';
comment on column push.jobs.reason is 'Why the job was skipped, deferred or ended without success (push.decide); null: no special reason.';
comment on column push.jobs.is_retry is 'Whether a worker claimed it for sending before: first attempts go before retries.';
comment on column push.jobs.attempts is 'Claims for sending so far, without those that ended in a configuration fault.';
comment on column push.jobs.expired_leases is 'Leases that expired before their worker reported, since the last report.';

-- For push.lock_due_jobs, the only query over all jobs that are not done: what is due, of first attempts and of retries.
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
  is_accepted boolean not null generated always as (status in ('accepted', 'handed_over', 'receipt_lost')) stored,
  primary key (message_id, device_id)
);
comment on table push.deliveries is 'What Expo answered for each message and device.';
comment on column push.deliveries.device_id is 'user_devices.id; kept when the device is deleted.';
comment on column push.deliveries.push_token is 'The token that the push was sent to.';
comment on column push.deliveries.attempts is 'Sends so far, without those that ended in a configuration fault.';
comment on column push.deliveries.unanswered is 'Sends to this token without a readable answer: each may have reached the phone.';
comment on column push.deliveries.configuration_faults is 'Sends that ended in a configuration fault.';
comment on column push.deliveries.retry_at is 'The earliest time of the next send to this device, if its status allows one.';
comment on column push.deliveries.sent_at is
  'When the message was claimed for the last attempt. A dead token deactivates only a device that was last seen before.';
comment on column push.deliveries.status is
  'By the ticket: accepted; maybe_sent: no readable answer; retry: a temporary error; failed: a permanent error. By the '
  'receipt: handed_over: APNs or FCM accepted it; receipt_lost: Expo gives no receipt any more.';
comment on column push.deliveries.is_accepted is
  'Whether Expo accepted the push. Such a delivery is never sent again, nor replaced by another answer.';

create function push.time_to_live() returns interval
language plpgsql stable set search_path = '' as $$
begin
  return (select time_to_live from push.settings);
end $$;
comment on function push.time_to_live() is
  'Returns the setting. In plpgsql, so that a statement that seldom reads it does not prepare the query each time.';

create function push.create_job() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off as $$
begin
  insert into push.jobs (message_id, recipient_id, state, outcome, reason, finished_at)
  select added.id, case when added.sender_id = room.user1_id then room.user2_id else room.user1_id end,
    case when expired.at is null then 'pending' else 'done' end::push.job_state,
    case when expired.at is not null then 'skipped' end::push.job_outcome,
    case when expired.at is not null then 'expired' end, expired.at
  from new_messages added join public.chat_rooms room on room.id = added.room_id
  -- History that a backend imports. What is not a minute old is none, so most inserts do not read the settings.
  cross join lateral (
    select case when added.created_at < added.server_timestamp - interval '1 minute'
      and added.created_at <= added.server_timestamp - push.time_to_live()
      then added.server_timestamp end as at
  ) expired
  where added.is_read is not true and added.deleted_at is null and added.sender_id in (room.user1_id, room.user2_id);
  return null;
end $$;
comment on function push.create_job() is
  'Stores the job of each message that is unread and not deleted, in the transaction of the message: both are stored, or none. '
  'The job of a message whose created_at is older than time_to_live ends at once, as expired.';

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
comment on function push.delete_jobs() is 'Deletes the jobs of deleted messages, so that none is pushed.';

create trigger delete_push_jobs after delete on public.chat_messages
  referencing old table as old_messages
  for each statement execute function push.delete_jobs();
create trigger truncate_push_jobs after truncate on public.chat_messages
  for each statement execute function push.delete_jobs();

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
