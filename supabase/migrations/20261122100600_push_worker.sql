-- What the workers call: claim and record. In public because the Data API must reach them; only service_role may.
-- In plpgsql, which keeps a plan for as long as a connection lives: before PostgreSQL 18 a function in SQL makes its
-- plans anew with each call, which takes longer than the call.

-- The cap on devices holds for rows that were there before it, too, or were written with triggers off.
create view push.sendable_devices with (security_invoker = true) as
  select job.message_id, device.id as device_id, device.push_token, device.platform,
    coalesce(delivery.retry_at, '-infinity') as due_at
  from push.jobs job
  cross join push.settings settings
  cross join lateral (
    select * from public.user_devices
    where user_id = job.recipient_id and is_active and push_token is not null and push_provider = 'expo'
    order by last_seen_at desc, id limit settings.device_limit
  ) device
  left join push.deliveries delivery
    on delivery.message_id = job.message_id and delivery.device_id = device.id
  where coalesce(delivery.status, 'retry') not in ('accepted', 'handed_over', 'receipt_lost')
    and (delivery.status, delivery.push_token) is distinct from ('failed', device.push_token)
    and (delivery.status is distinct from 'maybe_sent' or delivery.unanswered <= cardinality(settings.unanswered_retry_delays));
comment on view push.sendable_devices is
  'Active devices of the recipient that have not accepted the message, nor was it refused for good for their present token, '
  'nor was it sent too often without an answer; due_at: not before then.';

create function push.decide(p_message_ids uuid[], p_at timestamptz)
returns table (
  message_id uuid, recipient_id uuid, verdict text, reason text, decide_again_at timestamptz, devices integer
)
language plpgsql stable set search_path = '' as $$
#variable_conflict use_column -- the names of the result are columns, too
begin
  return query
  select job.message_id,
    job.recipient_id,
    case when decided.reason in ('viewing', 'waiting') then 'defer' when decided.reason = 'send' then 'send' else 'finish' end,
    case when decided.reason = 'read' and job.reason = 'viewing' then 'viewing' else decided.reason end,
    case decided.reason when 'waiting' then sendable.due_at else presence.updated_at + settings.presence_fresh_for end,
    sendable.due
  from unnest(p_message_ids) with ordinality asked (message_id, place)
  join push.jobs job on job.message_id = asked.message_id
  cross join push.settings settings
  left join public.chat_messages message on message.id = job.message_id
  -- Missing, stale or in the future: absent. When in doubt, push.
  left join public.user_presence presence
    on presence.user_id = job.recipient_id
    and presence.is_online
    and presence.current_conversation_id = message.room_id
    and presence.updated_at > p_at - settings.presence_fresh_for
    and presence.updated_at <= p_at
  cross join lateral (
    select count(*)::integer as known, (count(*) filter (where device.due_at <= p_at))::integer as due, min(device.due_at) as due_at
    from push.sendable_devices device where device.message_id = job.message_id
  ) sendable
  cross join lateral (
    -- The decision table: the first line that applies wins.
    select case
      -- Without a message: it was deleted around the triggers.
      when message.id is null or message.deleted_at is not null then 'deleted'
      when message.is_read or exists (
        select from public.message_receipts receipt
        where receipt.message_id = job.message_id and receipt.user_id = job.recipient_id
          and receipt.read_at is not null
      ) then 'read'
      when message.server_timestamp <= p_at - settings.time_to_live then 'expired'
      when presence.user_id is not null then 'viewing'
      when job.attempts >= settings.max_attempts then 'attempts_exhausted'
      when job.expired_leases >= settings.expired_lease_limit then 'leases_expired'
      when sendable.known = 0 then 'no_device'
      when sendable.due = 0 then 'waiting'
      else 'send'
    end as reason
    -- Asked once for each job, and by its own rows. Without this, Postgres would ask for every use of the answer, and
    -- might go through all jobs for it, as it does while it has no statistics of them.
    offset 0
  ) decided
  order by asked.place;
end $$;
comment on function push.decide(uuid[], timestamptz) is
  'The decision table for a batch of jobs, in their order: finish, defer (with when to look again) or send (to how many devices), '
  'and why.';

create function push.finish_job(p_message_id uuid, p_reason text) returns void
language plpgsql set search_path = '' as $$
begin
  with delivered as (
    select coalesce(bool_or(status in ('accepted', 'handed_over', 'receipt_lost')), false) as accepted,
      coalesce(bool_or(status = 'maybe_sent'), false) as maybe_sent,
      count(*) = 0 as none
    from push.deliveries where message_id = p_message_id
  )
  update push.jobs job
  set state = 'done',
    outcome = (case
      when delivered.accepted then 'accepted'
      -- A worker took it and never reported: it may have been sent.
      when delivered.maybe_sent or (delivered.none and job.attempts > 0) then 'maybe_sent'
      when not delivered.none or p_reason = 'unreadable' then 'failed'
      else 'skipped'
    end)::push.job_outcome,
    reason = p_reason,
    lease_id = null,
    leased_until = null,
    finished_at = clock_timestamp()
  from delivered
  where job.message_id = p_message_id;
end $$;
comment on function push.finish_job(uuid, text) is
  'Ends a job; its outcome is the best of its deliveries, skipped if nothing was ever sent.';

create type push.send_candidate as (message_id uuid, recipient_id uuid, devices integer, place integer);
comment on type push.send_candidate is 'A job that may be sent, while a claim looks whether there is room for it.';

create function push.defer_job(p_message_id uuid, p_reason text, p_until timestamptz) returns void
language sql set search_path = '' as $$
  update push.jobs
  set state = 'pending', reason = p_reason, next_attempt_at = p_until, lease_id = null, leased_until = null
  where message_id = p_message_id;
$$;
comment on function push.defer_job(uuid, text, timestamptz) is 'Puts a job off; it is decided again when it is due.';

create function push.lock_due_jobs(p_message_ids uuid[], p_at timestamptz, p_limit integer) returns uuid[]
language plpgsql set search_path = '' as $$
declare
  retries integer;
  due uuid[];
begin
  -- Statements of their own, so that each has its own plan: by primary key, and by due time.
  if p_message_ids is not null then
    return array(
      select job.message_id from unnest(p_message_ids) asked join push.jobs job on job.message_id = asked
      where job.state <> 'done' and greatest(job.next_attempt_at, job.leased_until) <= p_at
      limit p_limit for update of job skip locked
    );
  end if;
  -- First attempts go first, because retries may be many and in vain; but a quarter is kept for retries, or these would
  -- wait for as long as new messages come.
  select count(*) into retries from (
    select from push.jobs
    where state <> 'done' and is_retry and greatest(next_attempt_at, leased_until) <= p_at
    limit p_limit / 4
  ) waiting;
  due := array(
    select message_id from push.jobs
    where state <> 'done' and not is_retry and greatest(next_attempt_at, leased_until) <= p_at
    order by greatest(next_attempt_at, leased_until)
    limit p_limit - retries for update skip locked
  );
  return due || array(
    select message_id from push.jobs
    where state <> 'done' and is_retry and greatest(next_attempt_at, leased_until) <= p_at
    order by greatest(next_attempt_at, leased_until)
    limit p_limit - cardinality(due) for update skip locked
  );
end $$;
comment on function push.lock_due_jobs(uuid[], timestamptz, integer) is
  'Locks jobs that are due: of the given messages; or first attempts before retries, each the longest waiting first. Those that '
  'another worker has are passed over.';

-- The rate limiter -------------------------------------------------------------------------------

create table push.rate_limiter (
  only_row boolean primary key default true check (only_row),
  free_at timestamptz not null default clock_timestamp()
);
insert into push.rate_limiter default values;
comment on table push.rate_limiter is 'One row: when Expo may be sent the next notification, after all for which slots are reserved.';

create table push.rate_limit_reservations (
  id bigint generated always as identity primary key,
  send_at timestamptz not null,
  notifications integer not null,
  lease_id uuid
);
comment on table push.rate_limit_reservations is 'Send slots of the last seconds, and those to come.';
comment on column push.rate_limit_reservations.lease_id is 'The claim that reserved the slot, which may give it back.';

-- Unlogged: it says what happened in the last seconds, and after a crash of the database nothing has.
create unlogged table push.recipient_rates (
  recipient_id uuid primary key,
  free_at timestamptz not null,
  queued_until timestamptz not null default '-infinity'
);
comment on table push.recipient_rates is
  'When all notifications that a recipient was given would have been sent at the recipient''s share of the rate.';

create function public.reserve_send_slot(
  p_notifications integer, p_lease_id uuid default null, p_wait interval default '1 hour'
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  -- A second, and 4 % for requests that arrive late.
  span constant interval := interval '1 second' / 0.96;
  a_second integer;
  slot timestamptz;
begin
  if p_notifications > 0 then
    select notifications_per_second into strict a_second from push.settings;
    select free_at into strict slot from push.rate_limiter for update;  -- one worker after the other
    delete from push.rate_limit_reservations where send_at < clock_timestamp() - 2 * span;
    -- All of a slot are sent at its beginning. So a slot also waits until, with it, no span has more than its share.
    select greatest(slot, clock_timestamp(), max(before.send_at) + span) into slot
    from (
      select send_at, sum(notifications) over (order by send_at desc, id desc) as since
      from push.rate_limit_reservations where send_at > greatest(slot, clock_timestamp()) - span
    ) before
    where before.since + p_notifications > a_second * extract(epoch from span);
    if slot > clock_timestamp() + p_wait then
      return null;
    end if;
    insert into push.rate_limit_reservations (send_at, notifications, lease_id) values (slot, p_notifications, p_lease_id);
    update push.rate_limiter set free_at = slot + p_notifications * interval '1 second' / a_second;
  end if;
  return jsonb_build_object('send_at', coalesce(slot, clock_timestamp()), 'answered_at', clock_timestamp());
end $$;
comment on function public.reserve_send_slot(integer, uuid, interval) is
  'When so many notifications may be sent (send_at), and the time of this answer by the same clock (answered_at); null if that is '
  'longer than p_wait from now. The next slot begins when these are through, at the rate of push.settings: so all workers together '
  'keep to Expo''s limit.';

create function push.release_send_slot(p_lease_id uuid, p_notifications integer) returns void
language plpgsql set search_path = '' as $$
begin
  perform from push.rate_limiter for update;
  -- Once for each claim, because a report may be repeated.
  update push.rate_limit_reservations set notifications = notifications - p_notifications, lease_id = null
  where lease_id = p_lease_id;
  if found then
    update push.rate_limiter
    set free_at = free_at - p_notifications * interval '1 second' / (select notifications_per_second from push.settings);
  end if;
end $$;
comment on function push.release_send_slot(uuid, integer) is
  'Frees the part of a claim''s send slot that its worker did not use, so that nobody waits for it.';

create function push.recipient_share_duration(p_notifications integer) returns interval
language sql stable set search_path = '' as $$
  select p_notifications * interval '1 second' / (notifications_per_second * recipient_share)::double precision
  from push.settings;
$$;
comment on function push.recipient_share_duration(integer) is 'How long so many notifications take at one recipient''s share of the rate.';

create function push.reserve_recipient_share(p_recipient_id uuid, p_notifications integer) returns timestamptz
language plpgsql set search_path = '' as $$
declare
  burst constant interval := interval '2 seconds';
  cost constant interval := push.recipient_share_duration(p_notifications);
  recipient_free_at timestamptz;
begin
  insert into push.recipient_rates as known (recipient_id, free_at)
  values (p_recipient_id, clock_timestamp() + cost)
  on conflict (recipient_id) do update set free_at = greatest(known.free_at, clock_timestamp()) + cost
    where known.free_at <= clock_timestamp() + burst
  returning free_at into recipient_free_at;
  if found then
    return null;
  end if;
  -- Behind those that wait already, or all of a flood would come due at once, again and again.
  update push.recipient_rates
  set queued_until = greatest(queued_until, free_at - burst) + cost
  where recipient_id = p_recipient_id
  returning queued_until - cost into strict recipient_free_at;
  return recipient_free_at;
end $$;
comment on function push.reserve_recipient_share(uuid, integer) is
  'Takes so many notifications of the recipient''s share of the rate: null; or, when the share is used up, when to ask again.';
comment on column push.recipient_rates.queued_until is
  'When all notifications that wait for the recipient''s share would have been sent at that rate.';

-- Claim ------------------------------------------------------------------------------------------

create function push.compose(p_message_id uuid, p_project_url text) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  sent public.chat_messages;
begin
  select * into strict sent from public.chat_messages where id = p_message_id;
  -- What an older row or a backend stored may be of any size and shape; a push shows 200 characters.
  sent.message := left(sent.message, 2000);
  if pg_column_size(sent.attachments) > 65536 or jsonb_typeof(sent.attachments) is distinct from 'array' then
    sent.attachments := '[]';
  end if;
  return jsonb_build_object(
    'title', left(push.display_name(sent.sender_id), 1000),
    'body', coalesce(left(push.message_preview(sent), 2000), 'New message'),
    'image_url', (select url from push.message_image(sent, p_project_url) url where length(url) <= 2048)
  );
end $$;
comment on function push.compose(uuid, text) is
  'Title, body and image of a push, each bounded. It calls functions that an app may replace, so it may fail in any way.';

create function push.compose_jobs(
  p_message_ids uuid[], p_project_url text, p_at timestamptz,
  out jobs jsonb, out unreadable uuid[], out untried uuid[], out devices integer
)
language plpgsql set search_path = '' as $$
declare
  began_at constant timestamptz := clock_timestamp();
  job record;
  composed jsonb[] := '{}';
begin
  unreadable := '{}';
  untried := '{}';
  devices := 0;
  for job in
    select jsonb_build_object(
      'message_id', due.message_id,
      'room_id', sent.room_id,
      'sender_id', sent.sender_id,
      'recipient_id', due.recipient_id,
      'badge', unread.total,
      'sent_at', sent.server_timestamp,
      'attempt', due.attempts + 1,
      'devices', device.list
    ) as fields, due.message_id
    from push.jobs due
    join public.chat_messages sent on sent.id = due.message_id
    cross join lateral (
      -- The app's icon shows all conversations, not one.
      select coalesce(sum(case when room.user1_id = due.recipient_id
        then room.unread_count_user1 else room.unread_count_user2 end), 0) as total
      from public.chat_rooms room
      where room.user1_id = due.recipient_id or room.user2_id = due.recipient_id
    ) unread
    cross join lateral (
      -- None, if the last one left between the decision and this query.
      select coalesce(jsonb_agg(jsonb_build_object(
        'device_id', sendable.device_id, 'push_token', sendable.push_token)), '[]') as list
      from push.sendable_devices sendable where sendable.message_id = due.message_id and sendable.due_at <= p_at
    ) device
    where due.message_id = any(p_message_ids)
    order by sent.server_timestamp
  loop
    -- An app's own function may be slow: the worker waits for five seconds, and an answer with a few is better than none.
    if clock_timestamp() > began_at + interval '2 seconds' then
      untried := untried || job.message_id;
      continue;
    end if;
    begin
      composed := composed || (job.fields || push.compose(job.message_id, p_project_url));
      devices := devices + jsonb_array_length(job.fields -> 'devices');
    exception when others or assert_failure then
      -- One message that cannot be composed must not stop those beside it. The text of the error may quote it.
      raise warning 'Chat Push: message % cannot be composed: SQLSTATE %', job.message_id, sqlstate;
      unreadable := unreadable || job.message_id;
    end;
  end loop;
  jobs := to_jsonb(composed);
end $$;
comment on function push.compose_jobs(uuid[], text, timestamptz) is
  'What a worker needs to compose and address the pushes, to how many devices; the messages for which that failed, and those for '
  'which there was no time.';

create function public.claim_push_jobs(
  p_message_ids uuid[] default null, p_limit integer default 100, p_wait_seconds double precision default 5,
  p_project_url text default null
) returns jsonb
-- One plan whatever the ids are; otherwise, in databases of some sizes, planning takes a third of each claim.
language plpgsql security definer set search_path = '' set plan_cache_mode = force_generic_plan as $$
declare
  now_at constant timestamptz := clock_timestamp();
  lease constant uuid := gen_random_uuid();
  known constant uuid[] := array(select job.message_id from push.jobs job where job.message_id = any(p_message_ids));
  due constant uuid[] := push.lock_due_jobs(p_message_ids, now_at, p_limit);
  settings push.settings;
  decision record;
  candidates push.send_candidate[] := '{}';
  allowed push.send_candidate[] := '{}';
  candidate push.send_candidate;
  to_send uuid[] := '{}';
  finished uuid[] := '{}';
  deferred uuid[] := '{}';
  left_due uuid[] := '{}';
  expired_message_ids uuid[];
  notifications integer := 0;
  wait_until timestamptz;
  composed record;
  slot jsonb;
begin
  select * into strict settings from push.settings;
  -- Due although leased: their worker has not reported in time.
  with expired as (
    update push.jobs job set expired_leases = job.expired_leases + 1
    where job.message_id = any(due) and job.state = 'leased' returning job.message_id
  )
  select coalesce(array_agg(message_id), '{}') into expired_message_ids from expired;

  -- By a clock read after the locks: a heartbeat of this very moment must not count as one of the future.
  for decision in select * from push.decide(due, clock_timestamp()) loop
    case
      when decision.verdict = 'defer' then
        deferred := deferred || decision.message_id;
        perform push.defer_job(decision.message_id, decision.reason, decision.decide_again_at);
      when decision.verdict = 'finish' then
        finished := finished || decision.message_id;
        perform push.finish_job(decision.message_id, decision.reason);
      else
        candidates := candidates || row(decision.message_id, decision.recipient_id, decision.devices,
          cardinality(candidates))::push.send_candidate;
    end case;
  end loop;

  -- By recipient, so that two claims never wait for each other.
  foreach candidate in array array(select one from unnest(candidates) one order by (one).recipient_id) loop
    wait_until := push.reserve_recipient_share(candidate.recipient_id, candidate.devices);
    if wait_until is null then
      allowed := allowed || candidate;
    else
      deferred := deferred || candidate.message_id;
      perform push.defer_job(candidate.message_id, 'recipient_rate_limited', wait_until);
    end if;
  end loop;

  foreach candidate in array array(select one from unnest(allowed) one order by (one).place) loop
    if notifications > 0 and notifications + candidate.devices > settings.notifications_per_claim then
      left_due := left_due || candidate.message_id;
    else
      notifications := notifications + candidate.devices;
      to_send := to_send || candidate.message_id;
    end if;
  end loop;

  select * into strict composed from push.compose_jobs(to_send, p_project_url, clock_timestamp());
  perform push.finish_job(message_id, 'unreadable') from unnest(composed.unreadable) message_id;
  finished := finished || composed.unreadable;
  left_due := left_due || composed.untried;
  to_send := array(select unnest(to_send) except select unnest(composed.unreadable || composed.untried));

  -- Last, because other claims wait for the row of push.rate_limiter until this one has committed.
  slot := public.reserve_send_slot(composed.devices, lease, p_wait_seconds * interval '1 second');
  if slot is null then
    left_due := left_due || to_send;
    composed.jobs := '[]';
  else
    update push.jobs job
    set state = 'leased', is_retry = true, reason = null, attempts = job.attempts + 1,
      lease_id = lease,
      -- Twice as long each time that nobody reported, in case it is the job that ends its workers.
      leased_until = now_at + settings.lease_for * power(2, job.expired_leases)
    where job.message_id = any(to_send);
  end if;
  -- What is left due or could not be composed takes nothing of its recipient's share.
  update push.recipient_rates rate set free_at = rate.free_at - push.recipient_share_duration(unused.devices)
  from (
    select (one).recipient_id, sum((one).devices)::integer as devices
    from unnest(allowed) one where (one).message_id = any(left_due || composed.unreadable) group by 1
  ) unused
  where rate.recipient_id = unused.recipient_id;

  return jsonb_build_object(
    'lease_id', lease,
    'claimed_at', now_at,
    'jobs', composed.jobs,
    'finished', (
      select coalesce(jsonb_agg(jsonb_build_object(
        'message_id', job.message_id, 'outcome', job.outcome, 'reason', job.reason)), '[]')
      from push.jobs job where job.message_id = any(finished)
    ),
    'deferred', to_jsonb(deferred),
    'left_due', to_jsonb(left_due),
    -- Being sent by another worker, waiting for their next attempt, or done already.
    'not_due', to_jsonb(array(select unnest(known) except select unnest(due))),
    'unknown', to_jsonb(array(select unnest(p_message_ids) except select unnest(known))),
    'expired_leases', to_jsonb(expired_message_ids),
    'slot', slot
  );
end $$;
comment on function public.claim_push_jobs(uuid[], integer, double precision, text) is
  'Leases the jobs that are due, of the given messages or, without any, first attempts before retries; decides each; returns what to '
  'send (jobs) and when (slot), what ended (finished), what waits (deferred: its recipient is looking at the conversation, or is '
  'sent so much that the rest waits), what is still due (left_due: more than one claim takes, or no slot within p_wait_seconds), '
  'and which of these a worker had leased and never reported (expired_leases). p_project_url: images of its storage may be shown.';

create function push.deactivate_device(p_device_id uuid, p_push_token text, p_sent_at timestamptz) returns boolean
language sql set search_path = '' as $$
  with deactivated as (
    update public.user_devices set is_active = false
    -- A row that somebody holds is passed over: its person changes it, and must not make the workers wait.
    where id = (
      select id from public.user_devices
      where id = p_device_id and is_active and push_token = p_push_token and last_seen_at <= p_sent_at
      for no key update skip locked
    )
    returning id
  )
  select exists (select from deactivated);
$$;
comment on function push.deactivate_device(uuid, text, timestamptz) is
  'Switches a device off whose token is dead, unless it has another token by now or registered again after the send; not if its '
  'row is locked: a later dead ticket or receipt finds it again.';

create function push.backoff(p_base interval, p_cap interval, p_times integer) returns interval
language sql volatile set search_path = '' as $$
  select least(p_cap, p_base * power(2, least(greatest(p_times, 1), 24) - 1)) * (1 + random() * 0.15);
$$;
comment on function push.backoff(interval, interval, integer) is
  'Wait after so many failures: doubling, capped, with up to 15 % jitter.';

create function push.retry_delay(p_delivery push.deliveries, p_is_configuration_fault boolean) returns interval
language sql volatile set search_path = '' as $$
  select case
    when p_is_configuration_fault then push.backoff(fault_retry_base, fault_retry_cap, p_delivery.configuration_faults)
    when p_delivery.status = 'maybe_sent' then unanswered_retry_delays[p_delivery.unanswered] * (1 + random() * 0.15)
    else push.backoff(retry_base, retry_cap, p_delivery.attempts)
  end
  from push.settings;
$$;
comment on function push.retry_delay(push.deliveries, boolean) is
  'How long a device waits for its next attempt, by what ended the last one and how often that happened.';

create function push.record_delivery(p_message_id uuid, p_claimed_at timestamptz, p_reported jsonb) returns void
language plpgsql set search_path = '' as $$
declare
  reported record;
  is_fault boolean;
  delivery push.deliveries;
begin
  select * into strict reported from jsonb_to_record(p_reported)
    r (device_id uuid, push_token text, status text, error text, ticket_id text, retry_after_seconds double precision);
  is_fault := reported.status = 'configuration_fault';
  insert into push.deliveries as known
    (message_id, device_id, push_token, status, error, ticket_id, sent_at, attempts, configuration_faults, unanswered)
  values (p_message_id, reported.device_id, reported.push_token, case when is_fault then 'retry' else reported.status end,
    reported.error, reported.ticket_id, p_claimed_at, (not is_fault)::integer, is_fault::integer,
    (reported.status = 'maybe_sent')::integer)
  on conflict (message_id, device_id) do update
    set push_token = excluded.push_token, status = excluded.status, error = excluded.error,
      ticket_id = excluded.ticket_id, sent_at = excluded.sent_at,
      attempts = known.attempts + excluded.attempts, configuration_faults = known.configuration_faults + excluded.configuration_faults,
      -- Another token has not been sent to yet.
      unanswered = case when known.push_token = excluded.push_token then known.unanswered else 0 end + excluded.unanswered,
      updated_at = clock_timestamp()
    -- A ticket is never replaced by less.
    where known.status not in ('accepted', 'handed_over', 'receipt_lost')
  returning * into delivery;
  if delivery.status in ('retry', 'maybe_sent') then
    update push.deliveries
    set retry_at = clock_timestamp() + greatest(
      push.retry_delay(delivery, is_fault), reported.retry_after_seconds * interval '1 second')
    where message_id = delivery.message_id and device_id = delivery.device_id;
  end if;
end $$;
comment on function push.record_delivery(uuid, timestamptz, jsonb) is 'Records what Expo said of one message and device.';

create function push.record_result(p_lease_id uuid, p_claimed_at timestamptz, p_result jsonb) returns boolean
language plpgsql set search_path = '' as $$
declare
  job push.jobs;
  next_at timestamptz;
begin
  select * into job from push.jobs where message_id = (p_result ->> 'message_id')::uuid for update;
  if not found then
    return true;  -- The message was erased meanwhile, and its job with it.
  end if;
  -- Facts are recorded whoever holds the lease by now.
  perform push.record_delivery(job.message_id, p_claimed_at, reported)
  from jsonb_array_elements(p_result -> 'deliveries') reported;
  -- Devices that wait for the same reason go together again, in one request.
  update push.deliveries delivery set retry_at = alike.retry_at
  from (
    select status, error, attempts, configuration_faults, unanswered, max(retry_at) as retry_at from push.deliveries
    where message_id = job.message_id and retry_at > clock_timestamp() group by 1, 2, 3, 4, 5 having count(*) > 1
  ) alike
  where delivery.message_id = job.message_id
    and (delivery.status, delivery.attempts, delivery.configuration_faults, delivery.unanswered)
      = (alike.status, alike.attempts, alike.configuration_faults, alike.unanswered)
    and delivery.error is not distinct from alike.error and delivery.retry_at > clock_timestamp();
  if job.lease_id is distinct from p_lease_id then
    return false;
  end if;
  select min(due_at) into next_at from push.sendable_devices where message_id = job.message_id;
  if next_at is null then
    perform push.finish_job(job.message_id, case when exists (
      select from push.deliveries where message_id = job.message_id and status = 'maybe_sent') then 'unanswered' end);
  else
    update push.jobs
    set state = 'pending', lease_id = null, leased_until = null, expired_leases = 0,
      -- A fault of the configuration takes no attempt.
      attempts = attempts - (p_result @? '$.deliveries[*] ? (@.status == "configuration_fault")')::integer,
      next_attempt_at = greatest(next_at, clock_timestamp() + (select retry_base from push.settings))
    where message_id = job.message_id;
  end if;
  return true;
end $$;
comment on function push.record_result(uuid, timestamptz, jsonb) is
  'Records the deliveries of one job, then finishes it or sets its next attempt; false if its lease is lost.';

create function public.record_push_results(
  p_lease_id uuid, p_claimed_at timestamptz, p_results jsonb[], p_unused_notifications integer default 0
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  result jsonb;
  -- In one order, so that two workers that report the same messages never wait for each other.
  results constant jsonb[] := array(select reported from unnest(p_results) reported order by reported ->> 'message_id');
  lost_leases text[] := '{}';
  unrecorded text[] := '{}';
  reviewed jsonb;
begin
  begin
    foreach result in array results loop
      if not push.record_result(p_lease_id, p_claimed_at, result) then
        lost_leases := lost_leases || (result ->> 'message_id');
      end if;
    end loop;
  exception when others then
    -- One result that cannot be recorded must not take the others along: each for itself.
    lost_leases := '{}';
    foreach result in array results loop
      begin
        if not push.record_result(p_lease_id, p_claimed_at, result) then
          lost_leases := lost_leases || (result ->> 'message_id');
        end if;
      exception when others then
        raise warning 'Chat Push: the result of message % cannot be recorded: SQLSTATE %', result ->> 'message_id', sqlstate;
        unrecorded := unrecorded || (result ->> 'message_id');
      end;
    end loop;
  end;
  reviewed := push.review_tickets(
    p_claimed_at, array(select recorded from unnest(results) recorded where recorded ->> 'message_id' <> all(unrecorded)));
  -- Last, because every claim waits for the row of push.rate_limiter until this has committed.
  if p_unused_notifications > 0 then
    perform push.release_send_slot(p_lease_id, p_unused_notifications);
  end if;
  return jsonb_build_object('lost_leases', to_jsonb(lost_leases), 'unrecorded', to_jsonb(unrecorded)) || reviewed;
end $$;
comment on function public.record_push_results(uuid, timestamptz, jsonb[], integer) is
  'Records what Expo said of each delivery, and finishes each job or sets its next attempt. An element: {message_id, deliveries: '
  '[{device_id, push_token, status, error, ticket_id, retry_after_seconds}]}. p_unused_notifications: how many of the send slot '
  'were never tried.';

revoke execute on function
  push.decide(uuid[], timestamptz), push.finish_job(uuid, text), push.defer_job(uuid, text, timestamptz),
  push.lock_due_jobs(uuid[], timestamptz, integer), push.release_send_slot(uuid, integer), push.recipient_share_duration(integer),
  push.reserve_recipient_share(uuid, integer), push.compose(uuid, text), push.compose_jobs(uuid[], text, timestamptz),
  push.deactivate_device(uuid, text, timestamptz), push.backoff(interval, interval, integer),
  push.retry_delay(push.deliveries, boolean), push.record_delivery(uuid, timestamptz, jsonb),
  push.record_result(uuid, timestamptz, jsonb)
from public;
revoke execute on function
  public.claim_push_jobs(uuid[], integer, double precision, text), public.reserve_send_slot(integer, uuid, interval),
  public.record_push_results(uuid, timestamptz, jsonb[], integer)
from public, anon, authenticated;
grant execute on function
  public.claim_push_jobs(uuid[], integer, double precision, text), public.reserve_send_slot(integer, uuid, interval),
  public.record_push_results(uuid, timestamptz, jsonb[], integer)
to service_role;
