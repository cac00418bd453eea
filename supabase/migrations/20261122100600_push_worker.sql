-- What the workers call: claim and record. In public because the Data API must reach them; only service_role may.
-- In plpgsql, which keeps a plan for as long as a connection lives: before PostgreSQL 18 a function in SQL makes its
-- plans anew with each call, which takes longer than the call.

create view push.sendable_devices with (security_invoker = true) as
  select job.message_id, device.id as device_id, device.push_token, device.platform
  from push.jobs job
  join public.user_devices device on device.user_id = job.recipient_id
  left join push.deliveries delivery
    on delivery.message_id = job.message_id and delivery.device_id = device.id
  where device.is_active and device.push_token is not null and device.push_provider = 'expo'
    and coalesce(delivery.status, 'retry') not in ('accepted', 'handed_over', 'receipt_lost')
    and (delivery.status, delivery.push_token) is distinct from ('failed', device.push_token);
comment on view push.sendable_devices is
  'Active devices of the recipient that have not accepted the message, nor was it refused for good for their present token.';

create function push.decide(p_message_ids uuid[], p_at timestamptz)
returns table (message_id uuid, verdict text, reason text, look_again_at timestamptz, is_leased boolean)
language plpgsql stable set search_path = '' as $$
#variable_conflict use_column -- the names of the result are columns, too
begin
  return query
  select job.message_id,
    case decided.reason when 'viewing' then 'defer' when 'send' then 'send' else 'finish' end,
    case when decided.reason = 'read' and job.reason = 'viewing' then 'viewing' else decided.reason end,
    presence.updated_at + settings.presence_fresh_for,
    job.state = 'leased'
  from push.jobs job
  cross join push.settings settings
  join public.chat_messages message on message.id = job.message_id
  -- Missing, stale or in the future: absent. When in doubt, push.
  left join public.user_presence presence
    on presence.user_id = job.recipient_id
    and presence.is_online
    and presence.current_conversation_id = message.room_id
    and presence.updated_at > p_at - settings.presence_fresh_for
    and presence.updated_at <= p_at
  cross join lateral (
    -- The decision table: the first line that applies wins. Presence is looked at before devices.
    select case
      when message.deleted_at is not null then 'deleted'
      when message.is_read or exists (
        select from public.message_receipts receipt
        where receipt.message_id = job.message_id and receipt.user_id = job.recipient_id
          and receipt.read_at is not null
      ) then 'read'
      when message.server_timestamp <= p_at - settings.time_to_live then 'expired'
      when presence.user_id is not null then 'viewing'
      when job.attempts >= settings.max_attempts then 'attempts_exhausted'
      when not exists (
        select from push.sendable_devices device where device.message_id = job.message_id
      ) then 'no_device'
      else 'send'
    end as reason
    -- Asked once for each job, and by its own rows. Without this, Postgres would ask for every use of the answer, and
    -- might go through all jobs for it, as it does while it has no statistics of them.
    offset 0
  ) decided
  where job.message_id = any(p_message_ids);
end $$;
comment on function push.decide(uuid[], timestamptz) is
  'The decision table for a batch of jobs: finish, defer (with when to look again) or send, and why; and whether one is leased.';

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
      when not delivered.none then 'failed'
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

create function push.due_jobs(p_message_ids uuid[], p_at timestamptz, p_limit integer) returns uuid[]
language plpgsql set search_path = '' as $$
begin
  -- Two statements, so that each has its own plan: by primary key, and by due time.
  if p_message_ids is not null then
    return array(
      select message_id from push.jobs
      where message_id = any(p_message_ids) and state <> 'done'
        and greatest(next_attempt_at, leased_until) <= p_at
      limit p_limit for update skip locked
    );
  end if;
  return array(
    select message_id from push.jobs
    where state <> 'done' and greatest(next_attempt_at, leased_until) <= p_at
    order by greatest(next_attempt_at, leased_until)
    limit p_limit for update skip locked
  );
end $$;
comment on function push.due_jobs(uuid[], timestamptz, integer) is
  'Locks jobs that are due, of the given messages or the longest waiting; those that another worker has are passed over.';

create table push.pace (
  only_row boolean primary key default true check (only_row),
  free_at timestamptz not null default clock_timestamp()
);
insert into push.pace default values;
comment on table push.pace is 'One row: when Expo may be sent the next notification, after all that were claimed.';

create table push.turns (
  send_at timestamptz primary key,
  notifications integer not null
);
comment on table push.turns is 'The turns of the last seconds, and those to come.';

create function public.take_push_turn(p_notifications integer) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  -- A second, and 4 % for requests that arrive late.
  span constant interval := interval '1 second' / 0.96;
  a_second integer;
  turn timestamptz;
begin
  if p_notifications > 0 then
    select notifications_per_second into strict a_second from push.settings;
    select free_at into strict turn from push.pace for update;  -- one worker after the other
    delete from push.turns where send_at < clock_timestamp() - 2 * span;
    -- All of a turn are sent at its beginning. So a turn also waits until, with it, no span has more than its share.
    select greatest(turn, clock_timestamp(), max(before.send_at) + span) into turn
    from (
      select send_at, sum(notifications) over (order by send_at desc) as since
      from push.turns where send_at > greatest(turn, clock_timestamp()) - span
    ) before
    where before.since + p_notifications > a_second * extract(epoch from span);
    insert into push.turns (send_at, notifications) values (turn, p_notifications);
    update push.pace set free_at = turn + p_notifications * interval '1 second' / a_second;
  end if;
  return jsonb_build_object('send_at', coalesce(turn, clock_timestamp()), 'told_at', clock_timestamp());
end $$;
comment on function public.take_push_turn(integer) is
  'When so many notifications may be sent (send_at), and the time of this answer by the same clock (told_at). Whoever asks next '
  'has its turn when they are through, at the pace of push.settings: so all workers together keep to Expo''s limit.';

create function public.claim_push_jobs(p_message_ids uuid[] default null, p_limit integer default 100)
returns jsonb
-- One plan whatever the ids are; otherwise, in databases of some sizes, planning takes a third of each claim.
language plpgsql security definer set search_path = '' set plan_cache_mode = force_generic_plan as $$
declare
  now_at constant timestamptz := clock_timestamp();
  lease constant uuid := gen_random_uuid();
  known constant uuid[] := array(select job.message_id from push.jobs job where job.message_id = any(p_message_ids));
  due constant uuid[] := push.due_jobs(p_message_ids, now_at, p_limit);
  decision record;
  to_send uuid[] := '{}';
  finished uuid[] := '{}';
  deferred uuid[] := '{}';
  expired_leases uuid[] := '{}';
  jobs jsonb;
begin
  -- By a clock read after the locks: a heartbeat of this very moment must not count as one of the future.
  for decision in select * from push.decide(due, clock_timestamp()) loop
    case decision.verdict
      when 'send' then
        to_send := to_send || decision.message_id;
      when 'defer' then
        deferred := deferred || decision.message_id;
        update push.jobs
        set state = 'pending', reason = decision.reason, next_attempt_at = decision.look_again_at,
          lease_id = null, leased_until = null
        where message_id = decision.message_id;
      when 'finish' then
        finished := finished || decision.message_id;
        perform push.finish_job(decision.message_id, decision.reason);
    end case;
    -- Due although leased: whoever had the lease has not reported in time.
    if decision.is_leased then
      expired_leases := expired_leases || decision.message_id;
    end if;
  end loop;

  update push.jobs job
  set state = 'leased', reason = null, attempts = job.attempts + 1,
    lease_id = lease, leased_until = now_at + settings.lease_for
  from push.settings settings
  where job.message_id = any(to_send);

  jobs := push.notifications(to_send);
  return jsonb_build_object(
    'lease_id', lease,
    'claimed_at', now_at,
    'jobs', jobs,
    'finished', (
      select coalesce(jsonb_agg(jsonb_build_object(
        'message_id', job.message_id, 'outcome', job.outcome, 'reason', job.reason)), '[]')
      from push.jobs job where job.message_id = any(finished)
    ),
    'deferred', to_jsonb(deferred),
    -- Being sent by another worker, waiting for their next attempt, or done already.
    'not_due', to_jsonb(array(select unnest(known) except select unnest(due))),
    'unknown', to_jsonb(array(select unnest(p_message_ids) except select unnest(known))),
    'expired_leases', to_jsonb(expired_leases),
    -- Last, because other claims wait for the row of push.pace until this one has committed.
    'turn', public.take_push_turn((
      select coalesce(sum(jsonb_array_length(job -> 'devices')), 0)::integer from jsonb_array_elements(jobs) job))
  );
end $$;
comment on function public.claim_push_jobs(uuid[], integer) is
  'Leases the jobs that are due, of the given messages or, without any, the longest waiting; decides each; returns what to send '
  '(jobs), what ended (finished), what waits because its recipient is looking at the conversation (deferred), and which of these '
  'a worker had leased and never reported (expired_leases).';

create function push.notifications(p_message_ids uuid[]) returns jsonb
language plpgsql stable set search_path = '' as $$
begin
  return (
    select coalesce(jsonb_agg(jsonb_build_object(
      'message_id', job.message_id,
      'room_id', sent.room_id,
      'sender_id', sent.sender_id,
      'recipient_id', job.recipient_id,
      'title', push.display_name(sent.sender_id),
      'body', left(push.message_preview(sent), 2000),
      'image_url', push.message_image(sent),
      'badge', unread.total,
      'sent_at', sent.server_timestamp,
      'attempt', job.attempts,
      'devices', device.list
    ) order by sent.server_timestamp), '[]')
    from push.jobs job
    join public.chat_messages sent on sent.id = job.message_id
    cross join lateral (
      -- The app's icon shows all conversations, not one.
      select coalesce(sum(case when room.user1_id = job.recipient_id
        then room.unread_count_user1 else room.unread_count_user2 end), 0) as total
      from public.chat_rooms room
      where room.user1_id = job.recipient_id or room.user2_id = job.recipient_id
    ) unread
    cross join lateral (
      -- None, if the last one left between the decision and this query.
      select coalesce(jsonb_agg(jsonb_build_object(
        'device_id', sendable.device_id, 'push_token', sendable.push_token)), '[]') as list
      from push.sendable_devices sendable where sendable.message_id = job.message_id
    ) device
    where job.message_id = any(p_message_ids)
  );
end $$;
comment on function push.notifications(uuid[]) is 'What a worker needs to compose and address the pushes.';

create function push.switch_off(p_device_id uuid, p_push_token text, p_sent_at timestamptz) returns boolean
language sql set search_path = '' as $$
  with switched_off as (
    update public.user_devices set is_active = false
    where id = p_device_id and is_active and push_token = p_push_token and last_seen_at <= p_sent_at
    returning id
  )
  select exists (select from switched_off);
$$;
comment on function push.switch_off(uuid, text, timestamptz) is
  'Switches a device off whose token is dead, unless it has another token by now or registered again after the send.';

create function push.backoff(p_attempts integer) returns interval
language sql volatile set search_path = '' as $$
  select least(retry_cap, retry_base * power(2, least(greatest(p_attempts, 1), 24) - 1)) * (1 + random() * 0.15)
  from push.settings;
$$;
comment on function push.backoff(integer) is 'Wait before the next attempt: doubling, capped, with up to 15 % jitter.';

create function public.record_push_results(p_lease_id uuid, p_claimed_at timestamptz, p_results jsonb[])
returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  result jsonb;
  job push.jobs;
  switched_off integer := 0;
  lost_leases uuid[] := '{}';
begin
  -- In one order, so that two workers that report the same messages never wait for each other.
  for result in select reported from unnest(p_results) reported order by reported ->> 'message_id' loop
    select * into job from push.jobs where message_id = (result ->> 'message_id')::uuid for update;
    continue when not found;  -- The message was erased meanwhile, and its job with it.

    -- Facts are recorded whoever holds the lease by now; a ticket is never replaced by less.
    insert into push.deliveries as known (message_id, device_id, push_token, status, error, ticket_id, sent_at)
    select job.message_id, d.device_id, d.push_token, d.status, d.error, d.ticket_id, p_claimed_at
    from jsonb_to_recordset(result -> 'deliveries')
      d (device_id uuid, push_token text, status text, error text, ticket_id text)
    on conflict (message_id, device_id) do update
      set push_token = excluded.push_token, status = excluded.status, error = excluded.error,
        ticket_id = excluded.ticket_id, sent_at = excluded.sent_at, attempts = known.attempts + 1,
        updated_at = clock_timestamp()
      where known.status not in ('accepted', 'handed_over', 'receipt_lost');

    switched_off := switched_off + (
      select count(*) filter (where push.switch_off(d.device_id, d.push_token, p_claimed_at))
      from jsonb_to_recordset(result -> 'deliveries')
        d (device_id uuid, push_token text, status text, error text)
      where d.error = 'DeviceNotRegistered'
    );

    if job.lease_id is distinct from p_lease_id then
      lost_leases := lost_leases || job.message_id;
    elsif exists (select from push.sendable_devices device where device.message_id = job.message_id) then
      update push.jobs
      set state = 'pending', lease_id = null, leased_until = null,
        attempts = attempts - coalesce((result ->> 'configuration_fault')::boolean, false)::integer,
        next_attempt_at = clock_timestamp() + greatest(
          push.backoff(attempts), (result ->> 'retry_after_seconds')::double precision * interval '1 second')
      where message_id = job.message_id;
    else
      perform push.finish_job(job.message_id, null);
    end if;
  end loop;
  return jsonb_build_object('switched_off', switched_off, 'lost_leases', to_jsonb(lost_leases));
end $$;
comment on function public.record_push_results(uuid, timestamptz, jsonb[]) is
  'Records what Expo said of each delivery, switches dead devices off, and finishes each job or sets its next attempt. An element: '
  '{message_id, deliveries: [{device_id, push_token, status, error, ticket_id}], retry_after_seconds, configuration_fault}.';

revoke execute on function
  push.decide(uuid[], timestamptz), push.finish_job(uuid, text), push.due_jobs(uuid[], timestamptz, integer),
  push.notifications(uuid[]), push.switch_off(uuid, text, timestamptz), push.backoff(integer)
from public;
revoke execute on function
  public.claim_push_jobs(uuid[], integer), public.take_push_turn(integer),
  public.record_push_results(uuid, timestamptz, jsonb[])
from public, anon, authenticated;
grant execute on function
  public.claim_push_jobs(uuid[], integer), public.take_push_turn(integer),
  public.record_push_results(uuid, timestamptz, jsonb[])
to service_role;
