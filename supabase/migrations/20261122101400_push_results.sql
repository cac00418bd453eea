-- Results: what a worker reports after sending. Record the answer for each device (push.record_answers), then end each job for now
-- or set its next attempt (push.end_leases). push.retry_at is the only place that computes a retry delay.
-- Both take all jobs of a report: one statement for a hundred jobs costs a tenth of a hundred.

create function push.retry_at(
  p_delivery push.deliveries, p_is_configuration_fault boolean, p_retry_after_seconds double precision default null
) returns timestamptz
language sql volatile set search_path = '' as $$
  -- after                      the delay is
  -- a temporary error          retry_base (1 s), doubled for each further attempt, at most retry_cap (15 min)
  -- a configuration fault      fault_retry_base (1 min), doubled for each further fault, at most fault_retry_cap (1 h)
  -- no readable answer         the next of unanswered_retry_delays (1 s, 1 min, 50 min)
  -- Each gets up to 15 % less, so that retries spread. Less, because a wake-up is delayed by whole seconds. The power is limited to 2^23, so that the interval cannot overflow.
  select clock_timestamp() + greatest(
    (1 - random() * 0.15) * case
      when p_is_configuration_fault
        then least(fault_retry_cap, fault_retry_base * power(2, least(p_delivery.configuration_faults, 24) - 1))
      when p_delivery.status = 'maybe_sent' then unanswered_retry_delays[p_delivery.unanswered]
      else least(retry_cap, retry_base * power(2, least(greatest(p_delivery.attempts, 1), 24) - 1))
    end,
    p_retry_after_seconds * interval '1 second')
  from push.settings;
$$;
comment on function push.retry_at(push.deliveries, boolean, double precision) is
  'Returns when a device is sent to again, by what ended the last attempt and how often that happened. The Retry-After of '
  'Expo, is a lower bound: https://docs.expo.dev/push-notifications/sending-notifications/#retry-on-failure';

create function push.record_answers(p_claimed_at timestamptz, p_results jsonb[]) returns push.deliveries[]
language plpgsql set search_path = '' as $$
declare
  -- Almost all deliveries are accepted. The plan must read by id, or the condition on that would look cheaper, and read them all.
  reported_ids constant bigint[] := array(
    select (reported ->> 'delivery_id')::bigint from unnest(p_results) result cross join jsonb_array_elements(result -> 'deliveries') reported);
  answered push.deliveries[];
  waiting jsonb;
begin
  with answer as (
    update push.deliveries delivery
    set status = case reported.status when 'configuration_fault' then 'retry' else reported.status end, error = reported.error,
      ticket_id = reported.ticket_id, sent_at = p_claimed_at,
      attempts = delivery.attempts - (reported.status = 'configuration_fault')::integer,
      configuration_faults = delivery.configuration_faults + (reported.status = 'configuration_fault')::integer,
      unanswered = delivery.unanswered + (reported.status = 'maybe_sent')::integer,
      answered_at = clock_timestamp(), updated_at = clock_timestamp()
    from unnest(p_results) result cross join jsonb_to_recordset(result -> 'deliveries')
      reported (delivery_id bigint, status text, error text, ticket_id text, retry_after_seconds double precision)
    where delivery.id = any(reported_ids) and delivery.id = reported.delivery_id
      and delivery.job_id = (result ->> 'job_id')::bigint and not delivery.is_accepted
    returning delivery, reported.status = 'configuration_fault' as is_fault, reported.retry_after_seconds
  )
  select coalesce(array_agg(delivery), '{}'), jsonb_object_agg((delivery).id, jsonb_build_object(
    'at', push.retry_at(delivery, is_fault, retry_after_seconds)
  )) filter (where (delivery).status in ('retry', 'maybe_sent'))
  into answered, waiting from answer;
  if waiting is null then
    return answered;
  end if;
  -- Devices that wait for the same reason get the same time, so that one request sends to all of them.
  update push.deliveries delivery set retry_at = alike.retry_at
  from (
    select id, max((waiting -> id::text ->> 'at')::timestamptz) over (
      partition by job_id, kind, digest, status, error, attempts, configuration_faults, unanswered) as retry_at
    from unnest(answered) where waiting ? id::text
  ) alike
  where delivery.id = alike.id;
  return array(select delivery from unnest(answered) answer join push.deliveries delivery on delivery.id = answer.id);
end $$;
comment on function push.record_answers(timestamptz, jsonb[]) is
  'Records the answer for each push of a report, and when it is sent again if at all. Returns these deliveries, without those that '
  'were accepted before: they stay.';

create function push.end_leases(p_lease_id uuid, p_claimed_at timestamptz, p_results jsonb[]) returns void
language plpgsql set search_path = '' as $$
declare
  providers constant text[] := push.configured_providers();
  settings push.settings;
begin
  select * into strict settings from push.settings;
  with answered as (
    select job.id, job.room_id, job.recipient_id, job.again_at, job.expires_at, job.revision <> job.leased_revision as has_changed,
      job.next_attempt_at, answer.*,
      result @? '$.deliveries[*] ? (@.status == "configuration_fault")' as has_fault
    from unnest(p_results) result
    cross join lateral (
      -- offset 0 keeps it apart, so that it is read by id: hardly any job has this lease. A job may have many deliveries.
      select * from push.jobs where id = (result ->> 'job_id')::bigint offset 0
    ) job
    cross join lateral (
      select min(attempt.due_at) as retry_at, bool_or(delivery.follow_up and attempt.due_at is null) as has_follow_up,
        max(delivery.message_at) filter (where delivery.kind = 'alert') as news_at,
        bool_or(delivery.status = 'maybe_sent') as is_unanswered
      from jsonb_to_recordset(result -> 'deliveries') reported (delivery_id bigint)
      cross join lateral (select * from push.deliveries where id = reported.delivery_id offset 0) delivery
      cross join lateral push.is_attempt_due(delivery, delivery.digest, delivery.push_token) attempt
      where delivery.job_id = job.id
    ) answer
    where job.lease_id = p_lease_id
  ), unfinished as (
    select *, least(retry_at, case when exists (
      select from push.sendable_devices(answered.recipient_id, providers) device
      left join lateral (
        select * from push.deliveries where job_id = answered.id and device_id = device.id and kind <> 'badge' order by id desc limit 1
      ) last on true
      -- A device that the worker did not report.
      where (last.status = 'sending' and last.sent_at = p_claimed_at)
        -- A device that registered since the claim, or that has another token now, gets the new messages of this claim, too.
        or (news_at is not null and (last.push_token is distinct from device.push_token or last.message_at < news_at))
    ) then clock_timestamp() + settings.retry_base end) as attempt_at
    from answered
  ), ended as materialized (
    select *, attempt_at is null and again_at is null as is_finished, least(attempt_at, again_at, expires_at, case
      when has_changed then next_attempt_at
      when has_follow_up then clock_timestamp() end) as next_at
    from unfinished
  ), finished as (
    update push.decisions decision
    set outcome = best, finished_at = clock_timestamp(),
      reason = case when best < 'accepted' and ended.is_unanswered then 'unanswered' end
    from ended where decision.job_id = ended.id and ended.is_finished and decision.outcome is null and decision.best <> 'skipped'
  )
  update push.jobs job
  set state = case when next_at is null then 'idle' else 'pending' end::push.job_state,
    next_attempt_at = next_at, expired_leases = 0, changed_at = clock_timestamp(),
    is_retry = job.is_retry and not is_finished,
    -- A configuration fault does not count as an attempt.
    attempts = case when is_finished then 0 else greatest(job.attempts - has_fault::integer, 0) end,
    lease_id = null, leased_until = null, leased_revision = null
  from ended where job.id = ended.id;
  delete from push.jobs job using unnest(p_results) result
  where job.id = (result ->> 'job_id')::bigint and job.next_attempt_at is null
    and not exists (select from public.chat_rooms where id = job.room_id and job.recipient_id in (user1_id, user2_id));
end $$;
comment on function push.end_leases(uuid, timestamptz, jsonb[]) is
  'Ends the jobs of a report for now, or sets their next attempt. Jobs whose lease the worker has lost stay as they are.';

create function push.record_device_states(p_deliveries push.deliveries[]) returns void
language plpgsql set search_path = '' as $$
begin
  insert into push.device_states as told (device_id, badge, sounded_at, dismissed_at)
  select device.id,
    -- The background task of the app sets it on a dismissal, which iOS may run much later.
    (array_agg(sent.badge order by sent.id desc)
      filter (where sent.is_accepted and (sent.kind <> 'dismiss' or device.platform <> 'ios')))[1],
    max(sent.sent_at) filter (where not sent.is_accepted),
    coalesce(array_agg(distinct sent.sent_at) filter (where sent.is_accepted and sent.kind = 'dismiss'), '{}')
  from unnest(p_deliveries) sent join public.user_devices device on device.id = sent.device_id
  where sent.is_accepted or sent.sound
  group by device.id order by device.id
  on conflict (device_id) do update
    set badge = coalesce(excluded.badge, told.badge),
      -- The claim has set it for a push that was rejected, or that may be lost.
      sounded_at = nullif(told.sounded_at, excluded.sounded_at),
      dismissed_at = array(
        select distinct at from unnest(told.dismissed_at || excluded.dismissed_at) at
        where at > clock_timestamp() - interval '1 hour'
      );
end $$;
comment on function push.record_device_states(push.deliveries[]) is
  'Records what devices were told by accepted pushes: the badge, and when they were sent dismissals. Dismissals of one claim are one push.';

create function push.record_results(
  p_lease_id uuid, p_claimed_at timestamptz, p_results jsonb[], out recorded push.deliveries[], out lost_leases bigint[])
language plpgsql set search_path = '' as $$
begin
  -- In one order, so that two workers that report the same jobs do not deadlock. Inserts of messages lock in this order, too.
  -- A job is missing if its conversation was deleted meanwhile.
  select coalesce(array_agg(id) filter (where lease_id is distinct from p_lease_id), '{}') into lost_leases from (
    select job.id, job.lease_id from unnest(p_results) result join push.jobs job on job.id = (result ->> 'job_id')::bigint
    order by job.room_id, job.recipient_id for update of job
  ) locked;
  recorded := push.record_answers(p_claimed_at, p_results);
  update push.decisions decision set best = greatest(decision.best, sent.best)
  from (
    select message_id, max(case when is_accepted then 'accepted' when unanswered > 0 then 'maybe_sent' else 'failed' end::push.outcome) as best
    from unnest(recorded) delivery cross join unnest(delivery.message_ids) message_id
    group by message_id
  ) sent
  where decision.message_id = sent.message_id;
  perform push.end_leases(p_lease_id, p_claimed_at, p_results);
end $$;
comment on function push.record_results(uuid, timestamptz, jsonb[]) is
  'Records the deliveries of jobs, then ends the jobs for now or sets their next attempt. Returns the deliveries that it recorded, and '
  'the jobs whose lease the worker has lost: of these it records the deliveries only.';

create function public.record_push_results(
  p_lease_id uuid, p_claimed_at timestamptz, p_results jsonb[], p_unused_notifications integer default 0,
  p_provider_reports jsonb[] default '{}'
) returns jsonb
language plpgsql security definer set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off set jit = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  result jsonb;
  answer record;
  recorded push.deliveries[] := '{}';
  lost_leases bigint[] := '{}';
  unrecorded bigint[] := '{}';
  reviewed jsonb;
begin
  begin
    select * into strict answer from push.record_results(p_lease_id, p_claimed_at, p_results);
    recorded := answer.recorded;
    lost_leases := answer.lost_leases;
  exception when others then
    -- One result that cannot be recorded must not prevent the others: again, each in a subtransaction.
    for result in
      select reported from unnest(p_results) reported left join push.jobs job on job.id = (reported ->> 'job_id')::bigint
      order by job.room_id, job.recipient_id
    loop
      begin
        select * into strict answer from push.record_results(p_lease_id, p_claimed_at, array[result]);
        recorded := recorded || answer.recorded;
        lost_leases := lost_leases || answer.lost_leases;
      exception when others then
        raise warning 'Chat Push: the result of job % cannot be recorded: SQLSTATE %', result ->> 'job_id', sqlstate;
        unrecorded := unrecorded || (result ->> 'job_id')::bigint;
      end;
    end loop;
  end;
  perform push.note_provider_report(report) from unnest(p_provider_reports) report order by report ->> 'provider';
  -- Devices before their states, as a deletion of a device locks them.
  reviewed := push.review_tickets(p_claimed_at, recorded);
  perform push.record_device_states(recorded);
  -- Last, because every claim waits for the row of push.rate_limiter until this has committed.
  if p_unused_notifications > 0 then
    perform push.release_send_slot(p_lease_id, p_unused_notifications);
  end if;
  return jsonb_build_object('lost_leases', to_jsonb(lost_leases), 'unrecorded', to_jsonb(unrecorded), 'later', exists (
    select from unnest(p_results) reported join push.jobs job on job.id = (reported ->> 'job_id')::bigint
    where job.lease_id is null and job.next_attempt_at < clock_timestamp() + interval '1 minute'
  )) || reviewed;
end $$;
comment on function public.record_push_results(uuid, timestamptz, jsonb[], integer, jsonb[]) is
  'Records the answers of the push service, and ends each job for now or sets its next attempt. An element of p_results: {job_id, '
  'deliveries: [{delivery_id, status, error, ticket_id, retry_after_seconds}]}. p_unused_notifications: how many of '
  'the send slot were not sent. p_provider_reports: what the worker knows of FCM and APNs as a whole (push.note_provider_report). Returns lost_leases and unrecorded (job ids), later (a job is due within a minute), deactivated '
  'and held (numbers of devices). Safe to repeat.';

revoke execute on all functions in schema push from public;
revoke execute on function
  public.record_push_results(uuid, timestamptz, jsonb[], integer, jsonb[])
from public, anon, authenticated;
grant execute on function
  public.record_push_results(uuid, timestamptz, jsonb[], integer, jsonb[])
to service_role;
