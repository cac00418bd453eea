-- Claims: how a worker gets its work. claim_push_jobs locks due jobs, deactivates devices whose session has ended, decides each
-- job (push.decide), reserves the share of each recipient, takes as many as one claim may send, composes them, reserves a send
-- slot, and leases the jobs.
-- It is in public because the Data API must reach it; only service_role may call it.
-- In plpgsql, which keeps a plan while a connection lasts: before PostgreSQL 18, a function in SQL plans again at each call.

create type push.send_candidate as (message_id uuid, recipient_id uuid, devices integer, position integer);
comment on type push.send_candidate is 'A job that push.decide wants to send, while a claim checks whether the rates allow it.';

create function push.lock_due_jobs(p_message_ids uuid[], p_at timestamptz, p_limit integer) returns uuid[]
language plpgsql set search_path = '' as $$
declare
  retries integer;
  due uuid[];
begin
  -- Two statements, so that each has its own plan: by primary key, and by due time.
  if p_message_ids is not null then
    return array(
      select job.message_id from unnest(p_message_ids) asked join push.jobs job on job.message_id = asked
      where job.state <> 'done' and greatest(job.next_attempt_at, job.leased_until) <= p_at
      limit p_limit for update of job skip locked
    );
  end if;
  -- First attempts go before retries, because retries may be many and may all fail. A quarter is kept for retries: otherwise
  -- they would wait as long as new messages arrive.
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
  'Locks due jobs and returns their message ids: those of the given messages, or with null all, first attempts before retries, '
  'the longest waiting first. It skips jobs that another transaction has locked.';

create function push.deactivate_ended_devices(p_message_ids uuid[]) returns uuid[]
language plpgsql set search_path = '' as $$
declare
  ended constant uuid[] := private.ended_devices(array(
    select device from public.user_devices device
    where device.is_active
      and device.user_id in (select job.recipient_id from push.jobs job where job.message_id = any(p_message_ids))
  ));
  locked public.user_devices[];
begin
  if ended = '{}' then
    return ended;
  end if;
  locked := array(
    select device from public.user_devices device where device.id = any(ended) and device.is_active
    order by device.id for no key update skip locked
  );
  -- Asked again, because the app may have registered a new session before the row was locked.
  update public.user_devices set is_active = false where id = any(private.ended_devices(locked));
  return array(
    select job.message_id from push.jobs job join public.user_devices device on device.user_id = job.recipient_id
    where job.message_id = any(p_message_ids) and device.id = any(ended) and device.is_active
  );
end $$;
comment on function push.deactivate_ended_devices(uuid[]) is
  'Deactivates the devices of the recipients of these messages whose session has ended. Returns the messages that must wait '
  'for the next claim, because another transaction has locked such a device.';

create function public.claim_push_jobs(
  p_message_ids uuid[] default null, p_limit integer default 100, p_wait_seconds double precision default 5,
  p_project_url text default null
) returns jsonb
-- One plan for all ids. Otherwise, in databases of some sizes, planning takes a third of each claim.
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
  left_due uuid[] := push.deactivate_ended_devices(due);
  expired_message_ids uuid[];
  notifications integer := 0;
  wait_until timestamptz;
  composed record;
  slot jsonb;
begin
  select * into strict settings from push.settings;
  -- A job that is leased and due: its worker has not reported in time.
  with expired as (
    update push.jobs job set expired_leases = job.expired_leases + 1
    where job.message_id = any(due) and job.state = 'leased' returning job.message_id
  )
  select coalesce(array_agg(message_id), '{}') into expired_message_ids from expired;

  -- The clock is read after the locks: a heartbeat that was committed meanwhile must not count as one in the future.
  for decision in
    select * from push.decide(array(
      select message_id from unnest(due) with ordinality asked (message_id, position)
      where message_id <> all(left_due) order by position
    ), clock_timestamp())
  loop
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

  -- In the order of the recipients, so that two claims never wait for each other.
  foreach candidate in array array(select one from unnest(candidates) one order by (one).recipient_id) loop
    wait_until := push.reserve_recipient_share(candidate.recipient_id, candidate.devices);
    if wait_until is null then
      allowed := allowed || candidate;
    else
      deferred := deferred || candidate.message_id;
      perform push.defer_job(candidate.message_id, 'recipient_rate_limited', wait_until);
    end if;
  end loop;

  foreach candidate in array array(select one from unnest(allowed) one order by (one).position) loop
    if notifications > 0 and notifications + candidate.devices > settings.notifications_per_claim then
      left_due := left_due || candidate.message_id;
    else
      notifications := notifications + candidate.devices;
      to_send := to_send || candidate.message_id;
    end if;
  end loop;

  select * into strict composed from push.compose_jobs(to_send, p_project_url, clock_timestamp());
  perform push.finish_job(message_id, 'unreadable') from unnest(composed.failed) message_id;
  finished := finished || composed.failed;
  left_due := left_due || composed.postponed;
  to_send := array(select unnest(to_send) except select unnest(composed.failed || composed.postponed));

  -- Last, because other claims wait for the row of push.rate_limiter until this one has committed.
  slot := public.reserve_send_slot(composed.devices, lease, p_wait_seconds * interval '1 second');
  if slot is null then
    left_due := left_due || to_send;
    composed.jobs := '[]';
  else
    update push.jobs job
    set state = 'leased', is_retry = true, reason = null, attempts = job.attempts + 1,
      lease_id = lease,
      -- Doubled for each expired lease, in case the job itself crashes its workers.
      leased_until = now_at + settings.lease_for * power(2, job.expired_leases)
    where job.message_id = any(to_send);
  end if;
  -- Jobs that are not sent now take nothing of the share of their recipient.
  update push.recipient_rates rate set free_at = rate.free_at - push.recipient_share_duration(unused.devices)
  from (
    select (one).recipient_id, sum((one).devices)::integer as devices
    from unnest(allowed) one where (one).message_id = any(left_due || composed.failed) group by 1
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
    -- Jobs that another worker has, that wait for their next attempt, or that are done.
    'not_due', to_jsonb(array(select unnest(known) except select unnest(due))),
    'unknown', to_jsonb(array(select unnest(p_message_ids) except select unnest(known))),
    'expired_leases', to_jsonb(expired_message_ids),
    'slot', slot
  );
end $$;
comment on function public.claim_push_jobs(uuid[], integer, double precision, text) is
  'Decides the due jobs of the given messages, or with null of any, and leases those to send. Returns jobs and slot (what to '
  'send, and when), finished (jobs that ended, with outcome and reason), deferred (jobs that are decided again later), left_due '
  '(jobs that are still due: more than one claim takes, no send slot within p_wait_seconds, or a locked device), not_due and unknown (given '
  'messages without a due job, or without a job), and expired_leases (jobs of all these whose last worker never reported). A '
  'push may show images of the storage of p_project_url.';

-- Wake-ups: sweeps that workers have planned for the moments when jobs become due.
create table push.wakeups (
  only_row boolean primary key default true check (only_row),
  planned_at timestamptz[] not null default '{}'
);
insert into push.wakeups default values;
comment on table push.wakeups is 'One row: when the next sweeps start that workers have planned. It coalesces their wake-ups.';

create function public.plan_wakeups(p_within_seconds double precision, p_spacing_seconds double precision)
returns integer[]
language plpgsql security definer set search_path = '' as $$
declare
  now_at timestamptz;
  planned timestamptz[];
  delays integer[] := '{}';
  due_at timestamptz;
  earliest timestamptz;
  wake_at timestamptz;
begin
  select planned_at into strict planned from push.wakeups for update;
  now_at := clock_timestamp();
  planned := array(select at from unnest(planned) at where at > now_at - interval '1 minute');
  -- Jobs may have become due while the calling invocation worked.
  wake_at := now_at - interval '5 seconds';
  loop
    select min(next.at) into due_at
    from (values (false), (true)) kind (is_retry)
    cross join lateral (
      select greatest(job.next_attempt_at, job.leased_until) as at from push.jobs job
      where job.state <> 'done' and job.is_retry = kind.is_retry
        and greatest(job.next_attempt_at, job.leased_until) > wake_at
      order by greatest(job.next_attempt_at, job.leased_until) limit 1
    ) next;
    exit when due_at is null or due_at > now_at + p_within_seconds * interval '1 second';
    due_at := greatest(due_at, now_at);
    earliest := greatest(due_at, p_spacing_seconds * interval '1 second' + (
      select at from unnest(planned) at where at < due_at order by at desc offset 1 limit 1));
    wake_at := (select min(at) from unnest(planned) at where at between due_at and earliest + interval '1 second');
    if wake_at is null then
      -- SQS delays by whole seconds.
      delays := delays || greatest(ceil(extract(epoch from earliest - now_at)), 1)::integer;
      wake_at := now_at + delays[cardinality(delays)] * interval '1 second';
      planned := planned || wake_at;
    end if;
  end loop;
  if delays <> '{}' then
    update push.wakeups set planned_at = planned;
  end if;
  return delays;
end $$;
comment on function public.plan_wakeups(double precision, double precision) is
  'Plans sweeps for the jobs that become due within p_within_seconds, and returns the delay of each new sweep in whole seconds. '
  'A sweep starts at most a second after its first job is due, unless two others start within p_spacing_seconds before. No '
  'sweep is planned for a job if any worker has planned one for its time. It reads two index entries for each sweep, however '
  'many jobs are due.';

revoke execute on all functions in schema push from public;
revoke execute on function
  public.claim_push_jobs(uuid[], integer, double precision, text),
  public.plan_wakeups(double precision, double precision)
from public, anon, authenticated;
grant execute on function
  public.claim_push_jobs(uuid[], integer, double precision, text),
  public.plan_wakeups(double precision, double precision)
to service_role;
