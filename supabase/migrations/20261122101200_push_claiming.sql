-- Claims: how a worker gets its work. claim_push_jobs locks due jobs, deactivates devices whose session has ended, plans each job
-- (push.plan_job), reserves the share of each recipient, takes as many as one claim may send, leases these jobs
-- (push.lease_jobs), and reserves a send slot.
-- It is in public because the Data API must reach it; only service_role may call it.
-- In plpgsql, which keeps a plan while a connection lasts: before PostgreSQL 18, a function in SQL plans again at each call.

create function push.lock_due_jobs(p_job_ids bigint[], p_at timestamptz, p_limit integer) returns setof push.jobs
language plpgsql set search_path = '' as $$
declare
  retries integer;
  found integer;
begin
  -- Two statements, so that each has its own plan: by primary key, and by due time.
  if p_job_ids is not null then
    return query
      select job.* from unnest(p_job_ids) with ordinality asked (id, position) join push.jobs job on job.id = asked.id
      -- Not `state <> 'idle'`, as in the other conditions on jobs by id: the index on due jobs would fit, and be read as a whole.
      where greatest(job.next_attempt_at, job.leased_until) <= p_at
      order by asked.position limit p_limit for update of job skip locked;
    return;
  end if;
  -- First attempts go before retries, because retries may be many and may all fail. A quarter is kept for retries: otherwise
  -- they would wait as long as new messages arrive.
  select count(*) into retries from (
    select from push.jobs
    where state <> 'idle' and is_retry and greatest(next_attempt_at, leased_until) <= p_at
    limit p_limit / 4
  ) waiting;
  return query
    select * from push.jobs
    where state <> 'idle' and not is_retry and greatest(next_attempt_at, leased_until) <= p_at
    order by greatest(next_attempt_at, leased_until)
    limit p_limit - retries for update skip locked;
  get diagnostics found = row_count;
  return query
    select * from push.jobs
    where state <> 'idle' and is_retry and greatest(next_attempt_at, leased_until) <= p_at
    order by greatest(next_attempt_at, leased_until)
    limit p_limit - found for update skip locked;
end $$;
comment on function push.lock_due_jobs(bigint[], timestamptz, integer) is
  'Locks due jobs and returns them: those with these ids, or with null all, first attempts before retries, the longest waiting '
  'first. It skips jobs that another transaction has locked.';

create function push.jobs_of_messages(p_message_ids uuid[], out message_id uuid, out job_id bigint) returns setof record
language plpgsql stable set search_path = '' set enable_seqscan = off set jit = off as $$
begin
  return query
  select asked.id, found.job_id
  from unnest(p_message_ids) with ordinality asked (id, position)
  left join public.chat_messages message on message.id = asked.id
  left join push.jobs job on job.room_id = message.room_id and job.recipient_id <> message.sender_id
  cross join lateral (
    -- The row of a message is missing when it was deleted.
    select coalesce(job.id, (select decision.job_id from push.decisions decision where decision.message_id = asked.id)) as job_id
  ) found
  where found.job_id is not null
  order by asked.position;
end $$;
comment on function push.jobs_of_messages(uuid[]) is 'Returns the job of each of these messages that has one, in their order.';

create function push.deactivate_ended_devices(p_recipient_ids uuid[]) returns uuid[]
language plpgsql set search_path = '' as $$
declare
  ended constant uuid[] := private.ended_devices(array(
    select device from public.user_devices device where device.is_active and device.user_id = any(p_recipient_ids)
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
  return array(select device.user_id from public.user_devices device where device.id = any(ended) and device.is_active);
end $$;
comment on function push.deactivate_ended_devices(uuid[]) is
  'Deactivates the devices of these people whose session has ended. Returns the people whose jobs must wait for the next claim, '
  'because another transaction has locked such a device.';

create function push.lock_device_states(p_device_ids uuid[]) returns void
language plpgsql set search_path = '' as $$
begin
  insert into push.device_states (device_id) select distinct id from unnest(p_device_ids) id order by id
  on conflict (device_id) do nothing;
  perform from push.device_states where device_id = any(p_device_ids) order by device_id for update;
end $$;
comment on function push.lock_device_states(uuid[]) is
  'Locks the rows of these devices, and adds missing ones, in the order of push.record_device_states, so that the two do not deadlock.';

create function push.lease_jobs(p_plans push.plan[], p_lease_id uuid, p_at timestamptz, p_settings push.settings) returns jsonb
language plpgsql set search_path = '' as $$
declare
  leased jsonb;
begin
  with planned as (
    select plan.position, (plan.job).id as job_id, push, (push ->> 'device_id')::uuid as device_id, push ->> 'digest' as digest,
      (push ->> 'kind')::push.kind as kind, push ->> 'retried' is not null as is_retry,
      coalesce((push ->> 'retried')::bigint, nextval('push.deliveries_id_seq')) as delivery_id, plan.badge, plan.newest_at,
      case when push ->> 'kind' = 'alert' then plan.silenced_by end as silenced_by,
      -- An update announces messages whose alert had no answer. A viewer sees new messages in the app.
      case when push ->> 'kind' in ('alert', 'update') and plan.viewing_until is null then plan.open_ids else '{}' end as message_ids,
      case when push ->> 'kind' in ('alert', 'update') then plan.line_ids else '{}' end as line_ids,
      (push ->> 'sound')::boolean as wants_sound,
      -- In a backlog, a phone sounds once for all conversations. A send whose worker did not report is repeated as it was.
      (push ->> 'is_repeated')::boolean or coalesce(plan.open_until > p_at - p_settings.sound_interval, false) as sounds_always,
      coalesce(told.sounded_at > least(plan.open_until, p_at - p_settings.sound_interval), false) as has_sounded
    from unnest(p_plans) with ordinality plan (
      job, sender_id, silenced_by, sound_name, viewing_until, open_ids, open_from, open_until, devices, line_ids, newest_at, expires_at, unread, badge,
      content, digest, finished, pushes, read_on, again_at, position)
    cross join unnest(plan.pushes) push
    left join push.device_states told on told.device_id = (push ->> 'device_id')::uuid and (push ->> 'sound')::boolean
  ), sent as (
    select *, wants_sound and (sounds_always or not (has_sounded or coalesce(bool_or(wants_sound and (sounds_always or not has_sounded))
      over (partition by device_id order by position rows between unbounded preceding and 1 preceding), false))) as sound
    from planned
  ), sounded as (
    update push.device_states set sounded_at = p_at where device_id in (select device_id from sent where sound)
  ), repeated as (
    update push.deliveries delivery
    set status = 'sending', sent_at = p_at, badge = sent.badge, attempts = delivery.attempts + 1, sound = sent.sound, silenced_by = sent.silenced_by,
      message_ids = sent.message_ids
    from sent where sent.is_retry and delivery.id = sent.delivery_id
  ), added as (
    insert into push.deliveries (
      id, job_id, device_id, kind, digest, message_ids, line_ids, message_at, badge, sound, silenced_by, follow_up, push_token, sent_at)
    overriding system value
    select delivery_id, job_id, device_id, kind, digest, message_ids, line_ids, coalesce(newest_at, '-infinity'), badge, sound, silenced_by,
      (push ->> 'follow_up')::boolean, push ->> 'push_token', p_at
    from sent where not is_retry
  ), told as (
    select sent.job_id, min(sent.position) as position, bool_or(sent.digest = 'deleted') as is_neutral, jsonb_agg(
      sent.push - '{digest,follow_up,retried,is_repeated,due_at}'::text[]
        || jsonb_build_object('delivery_id', sent.delivery_id, 'sound', sent.sound) order by sent.delivery_id) as devices
    from sent group by sent.job_id
  ), leased as (
    update push.jobs job
    set state = 'leased', is_retry = true, reason = null, attempts = job.attempts + 1, lease_id = p_lease_id,
      leased_revision = job.revision, again_at = plan.again_at, expires_at = plan.expires_at,
      leased_until = p_at + p_settings.lease_for,
      -- Doubled for each expired lease, in case the job itself crashes its workers. A new message does not wait for that.
      next_attempt_at = p_at + p_settings.lease_for * power(2, job.expired_leases)
    from unnest(p_plans) plan where job.id = (plan.job).id
  )
  select coalesce(jsonb_agg(coalesce(plan.content, jsonb_build_object(
    'title', case when told.is_neutral then push.neutral_title(plan.sender_id) end,
    'body', case when told.is_neutral then 'Message deleted' else '' end, 'fixed_lines', jsonb_build_array(0), 'image_url', null
  )) || jsonb_build_object(
    'job_id', (plan.job).id,
    'message_id', plan.line_ids[1],
    'room_id', (plan.job).room_id,
    'sender_id', plan.sender_id,
    'recipient_id', (plan.job).recipient_id,
    'sound_name', plan.sound_name,
    'unread', plan.unread,
    'badge', plan.badge,
    'expires_at', coalesce(plan.expires_at, p_at + interval '1 hour'),
    'sent_at', plan.open_from,
    'attempt', (plan.job).attempts + 1,
    'devices', told.devices
  ) order by told.position), '[]') into leased
  from unnest(p_plans) plan join told on told.job_id = (plan.job).id;
  return leased;
end $$;
comment on function push.lease_jobs(push.plan[], uuid, timestamptz, push.settings) is
  'Leases planned jobs to a worker, and adds their deliveries. Returns what the worker needs to send them.';

create function public.claim_push_jobs(
  p_message_ids uuid[] default null, p_limit integer default 100, p_wait_seconds double precision default 5,
  p_project_url text default null, p_providers text[] default '{expo}'
) returns jsonb
-- One plan for all ids. Otherwise, in databases of some sizes, planning takes a third of each claim.
-- And one that reads each row by an index, also while the tables are small or have no statistics: a session keeps its plans.
language plpgsql security definer set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off set jit = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  now_at constant timestamptz := clock_timestamp();
  planned_at timestamptz;
  lease constant uuid := gen_random_uuid();
  settings push.settings;
  paused jsonb;
  asked jsonb := '{}';  -- the job of each given message
  asked_jobs bigint[];
  due push.jobs[];
  due_ids bigint[];
  locked_people uuid[];
  restrictions push.restriction[];
  job push.jobs;
  plan push.plan;
  plans push.plan[] := '{}';
  taken push.plan[] := '{}';
  waits jsonb;  -- until when the recipient of a job gets no more
  finished uuid[] := '{}';
  read_on jsonb := '{}';  -- the badge that each device has set that a conversation was read on
  deferred uuid[] := '{}';
  left_due uuid[] := '{}';
  expired_ids bigint[];
  notifications integer := 0;
  wait_until timestamptz;
  slot jsonb;
  jobs jsonb;
  more_due boolean := false;
begin
  select * into strict settings from push.settings;
  perform push.note_providers(p_providers);
  paused := push.paused_providers(p_providers);
  if p_message_ids is not null then
    select coalesce(jsonb_object_agg(message_id, job_id), '{}'), array_agg(distinct job_id) into asked, asked_jobs
    from push.jobs_of_messages(p_message_ids);
    asked_jobs := coalesce(asked_jobs, '{}');
  end if;
  due := array(select locked from push.lock_due_jobs(asked_jobs, now_at, p_limit) locked);
  due_ids := array(select id from unnest(due));
  -- A job that is leased and due: its worker has not reported in time, and may have sent it.
  expired_ids := array(select id from unnest(due) where lease_id is not null);
  if expired_ids <> '{}' then
    -- The lease ends, so that it counts once, also if this claim leaves the job.
    update push.jobs expired
    set expired_leases = expired.expired_leases + 1, state = 'pending',
      next_attempt_at = greatest(expired.next_attempt_at, expired.leased_until),
      lease_id = null, leased_until = null, leased_revision = null
    where expired.id = any(expired_ids);
    update push.decisions set best = greatest(best, 'maybe_sent')
    where job_id = any(expired_ids) and outcome is null
      and exists (
        select from push.deliveries delivery
        where delivery.job_id = decisions.job_id and delivery.status = 'sending' and decisions.message_id = any(delivery.message_ids)
      );
  end if;
  locked_people := push.deactivate_ended_devices(array(select recipient_id from unnest(due)));
  perform push.note_messages(due);
  -- The clock is read after the locks: a heartbeat that was committed meanwhile must not count as one in the future.
  planned_at := clock_timestamp();
  restrictions := push.restrictions(due, planned_at);
  finished := push.decide(restrictions, planned_at, settings);

  for plan in select * from push.situations(restrictions, planned_at, settings) loop
    job := plan.job;
    -- A function of the app may be slow, and the worker waits five seconds for its claim: a few jobs are better than none.
    if job.recipient_id = any(locked_people) or clock_timestamp() > now_at + interval '2 seconds' then
      more_due := true;
      left_due := left_due || plan.open_ids || array(select key::uuid from jsonb_each_text(asked) where value = job.id::text);
      continue;
    end if;
    begin
      plan := push.plan_job(plan, p_project_url, planned_at, settings, paused);
    exception when others or assert_failure then
      -- One job that cannot be planned must not stop the others. The error text is not logged: it may quote the message.
      raise warning 'Chat Push: job % cannot be composed: SQLSTATE %', job.id, sqlstate;
      -- A deadlock, a lock timeout, or a lack of memory or connections says nothing about the message.
      if left(sqlstate, 2) in ('40', '53', '55', '57', '58') then
        perform push.defer_job(job.id, 'database_error', planned_at + settings.retry_base);
        continue;
      end if;
      plan.finished := push.finish_unreadable(plan);
      finished := finished || plan.finished;
      if plan.finished = '{}' then
        -- Nothing new, so what devices show cannot be kept right for now. It is dismissed at the latest when it expires.
        perform push.defer_job(job.id, 'unreadable', planned_at + settings.retry_cap);
      else
        -- The next claim sends what is left of it.
        more_due := true;
      end if;
      continue;
    end;
    finished := finished || plan.finished;
    if plan.read_on <> '{}' then
      read_on := read_on || (select jsonb_object_agg(id, plan.badge) from unnest(plan.read_on) id);
    end if;
    if plan.pushes <> '{}' then
      plan.devices := null;
      plans := plans || plan;
    else
      perform push.settle_job(plan);
      if plan.again_at is not null then
        deferred := deferred || plan.open_ids;
      end if;
    end if;
  end loop;

  -- In the order of the recipients, so that two claims never wait for each other.
  waits := (
    select jsonb_object_agg(job_id, push.reserve_recipient_share(recipient_id, number, settings)) from (
      select (planned.job).id as job_id, (planned.job).recipient_id, cardinality(planned.pushes) as number
      from unnest(plans) planned order by 2
    ) share
  );
  foreach plan in array plans loop
    job := plan.job;
    wait_until := waits ->> job.id::text;
    if wait_until is not null then
      deferred := deferred || plan.open_ids;
      perform push.defer_job(job.id, 'recipient_rate_limited', wait_until);
    elsif notifications > 0 and notifications + cardinality(plan.pushes) > settings.notifications_per_claim then
      left_due := left_due || plan.open_ids;
      more_due := true;
      -- A job that is not sent now takes nothing of the share of its recipient.
      perform push.return_recipient_share(job.recipient_id, cardinality(plan.pushes), settings);
    else
      notifications := notifications + cardinality(plan.pushes);
      taken := taken || plan;
    end if;
  end loop;

  -- After the shares, by which two claims for one recipient wait for each other.
  perform push.lock_device_states(array(select jsonb_object_keys(read_on)::uuid) || array(
    select (planned ->> 'device_id')::uuid from unnest(taken) one cross join unnest((one).pushes) planned
    where (planned ->> 'sound')::boolean));
  if read_on <> '{}' then
    update push.device_states set badge = (read_on ->> device_id::text)::integer
    where device_id = any(array(select jsonb_object_keys(read_on)::uuid));
  end if;
  begin
    jobs := push.lease_jobs(taken, lease, now_at, settings);
    -- Last, because other claims wait for the row of push.rate_limiter until this one has committed.
    slot := public.reserve_send_slot((
      select count(*)::integer from unnest(taken) one cross join unnest((one).pushes) planned
      where planned ->> 'provider' = 'expo'
    ), lease, p_wait_seconds * interval '1 second');
    if slot is null then
      raise no_data_found using message = 'no send slot';
    end if;
  exception when no_data_found then
    -- All leases of the block are undone.
    jobs := '[]';
    more_due := true;
    foreach plan in array taken loop
      left_due := left_due || plan.open_ids;
      perform push.return_recipient_share((plan.job).recipient_id, cardinality(plan.pushes), settings);
    end loop;
  end;

  return jsonb_build_object(
    'lease_id', lease,
    'claimed_at', now_at,
    'jobs', jobs,
    'languages', push.texts_of(array(
      select distinct device ->> 'language' from jsonb_array_elements(jobs) sent cross join jsonb_array_elements(sent -> 'devices') device)),
    'finished', (
      select coalesce(jsonb_agg(jsonb_build_object(
        'message_id', decision.message_id, 'outcome', decision.outcome, 'reason', decision.reason)), '[]')
      from push.decisions decision where decision.message_id = any(finished)
    ),
    'deferred', to_jsonb(deferred),
    'left_due', to_jsonb(array(select distinct unnest(left_due))),
    -- Jobs that another worker has, that wait for their next attempt, or that have nothing to do.
    'not_due', (
      select coalesce(jsonb_agg(key), '[]') from jsonb_each_text(asked) where value::bigint <> all(due_ids)
    ),
    'unknown', to_jsonb(array(select distinct id from unnest(p_message_ids) id where not asked ? id::text)),
    'expired_leases', to_jsonb(expired_ids),
    'examined', cardinality(due),
    'more_due', more_due,
    'later', exists (
      select from push.jobs waiting
      where waiting.id = any(due_ids || asked_jobs) and waiting.lease_id is null
        and waiting.next_attempt_at < clock_timestamp() + interval '1 minute'
    ),
    'slot', slot
  );
end $$;
comment on function public.claim_push_jobs(uuid[], integer, double precision, text, text[]) is
  'Plans the due jobs of the given messages, or with null of any, and leases those with something to send. Returns jobs, languages and slot '
  '(what to send, the texts of the devices'' languages, and when); the messages that are finished (with outcome and reason), deferred (decided again later), left_due '
  '(still due), not_due and unknown (given messages whose job is not due, or that have none); expired_leases (ids of jobs whose '
  'last worker never reported), examined (how many jobs were due), more_due (jobs are left that could be sent now: more than one claim takes, '
  'no send slot within p_wait_seconds, or a locked device), and later (some are due within a minute). A push may show images '
  'of the storage of p_project_url. Devices are those of p_providers, for which the worker has credentials; the send slot is for '
  'those of Expo.';

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
      where job.state <> 'idle' and job.is_retry = kind.is_retry
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
  public.claim_push_jobs(uuid[], integer, double precision, text, text[]),
  public.plan_wakeups(double precision, double precision)
from public, anon, authenticated;
grant execute on function
  public.claim_push_jobs(uuid[], integer, double precision, text, text[]),
  public.plan_wakeups(double precision, double precision)
to service_role;
