-- Results: what a worker reports after sending. For each job: record the answer for each device (push.record_delivery), then
-- end the job for now or set its next attempt (push.record_result). push.retry_at is the only place that computes a retry delay.

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

create function push.record_delivery(p_job_id bigint, p_claimed_at timestamptz, p_reported jsonb) returns push.deliveries
language plpgsql set search_path = '' as $$
declare
  reported record;
  is_fault boolean;
  delivery push.deliveries;
begin
  select * into strict reported from jsonb_to_record(p_reported)
    r (delivery_id bigint, status text, error text, ticket_id text, retry_after_seconds double precision);
  is_fault := reported.status = 'configuration_fault';
  update push.deliveries
  set status = case when is_fault then 'retry' else reported.status end, error = reported.error,
    ticket_id = reported.ticket_id, sent_at = p_claimed_at, attempts = attempts - is_fault::integer,
    configuration_faults = configuration_faults + is_fault::integer,
    unanswered = unanswered + (reported.status = 'maybe_sent')::integer,
    answered_at = clock_timestamp(), updated_at = clock_timestamp()
  where id = reported.delivery_id and job_id = p_job_id and not is_accepted
  returning * into delivery;
  if delivery.status in ('retry', 'maybe_sent') then
    update push.deliveries
    set retry_at = push.retry_at(delivery, is_fault, reported.retry_after_seconds)
    where id = delivery.id returning * into strict delivery;
  end if;
  return delivery;
end $$;
comment on function push.record_delivery(bigint, timestamptz, jsonb) is
  'Records the answer for one push to a device, and when it is sent again if at all. Returns the delivery; null if it was '
  'accepted before: then it stays.';

create function push.record_device_states(p_deliveries push.deliveries[]) returns void
language sql set search_path = '' as $$
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
$$;
comment on function push.record_device_states(push.deliveries[]) is
  'Records what devices were told by accepted pushes: the badge, and when they were sent dismissals. Dismissals of one claim are one push.';

create function push.record_result(p_lease_id uuid, p_claimed_at timestamptz, p_result jsonb, out recorded push.deliveries[], out is_lost boolean)
language plpgsql set search_path = '' as $$
declare
  job push.jobs;
  settings push.settings;
  next_at timestamptz;
  news_at timestamptz;
  has_follow_up boolean;
  is_unfinished boolean;
begin
  select * into strict settings from push.settings;
  is_lost := false;
  recorded := '{}';
  select * into job from push.jobs where id = (p_result ->> 'job_id')::bigint for update;
  if not found then
    return;  -- The conversation was deleted meanwhile, and its job with it.
  end if;
  -- Answers are recorded, even if another worker holds the lease now.
  recorded := array(
    select answered from jsonb_array_elements(p_result -> 'deliveries') reported
    cross join lateral push.record_delivery(job.id, p_claimed_at, reported) answered where answered.id is not null
  );
  -- Devices that wait for the same reason get the same time, so that one request sends to all of them.
  update push.deliveries delivery set retry_at = alike.retry_at
  from (
    select kind, digest, status, error, attempts, configuration_faults, unanswered, max(retry_at) as retry_at, array_agg(id) as ids
    from unnest(recorded) where retry_at > clock_timestamp() and status in ('retry', 'maybe_sent')
    group by 1, 2, 3, 4, 5, 6, 7 having count(*) > 1
  ) alike
  where delivery.id = any(alike.ids);
  update push.decisions decision set best = greatest(decision.best, sent.best)
  from (
    select message_id, max(case when is_accepted then 'accepted' when unanswered > 0 then 'maybe_sent' else 'failed' end::push.outcome) as best
    from unnest(recorded) delivery cross join unnest(delivery.message_ids) message_id
    group by message_id
  ) sent
  where decision.message_id = sent.message_id;
  if job.lease_id is distinct from p_lease_id then
    is_lost := true;
    return;
  end if;

  recorded := array(select delivery from push.deliveries delivery where delivery.id = any(array(select id from unnest(recorded))));
  select min(attempt.due_at), bool_or(delivery.follow_up and attempt.due_at is null),
    max(delivery.message_at) filter (where delivery.kind = 'alert')
  into next_at, has_follow_up, news_at
  from unnest(recorded) delivery
  cross join lateral push.is_attempt_due(delivery, delivery.digest, delivery.push_token) attempt;
  if exists (
    select from push.sendable_devices(job.recipient_id) device
    cross join lateral push.last_delivery(job.id, device.id, false) last
    -- A device that the worker did not report.
    where (last.status = 'sending' and last.sent_at = p_claimed_at)
      -- A device that registered since the claim, or that has another token now, gets the new messages of this claim, too.
      or (news_at is not null and (last.push_token is distinct from device.push_token or last.message_at < news_at))
  ) then
    next_at := least(next_at, clock_timestamp() + settings.retry_base);
  end if;
  is_unfinished := next_at is not null or job.again_at is not null;
  if not is_unfinished then
    update push.decisions
    set outcome = best, finished_at = clock_timestamp(),
      reason = case when best < 'accepted' and exists (
        select from unnest(recorded) where status = 'maybe_sent') then 'unanswered' end
    where job_id = job.id and outcome is null and best <> 'skipped';
  end if;
  next_at := least(next_at, job.again_at, job.expires_at, case
    when job.revision <> job.leased_revision then job.next_attempt_at
    when has_follow_up then clock_timestamp() end);
  if next_at is null and not exists (select from public.chat_rooms where id = job.room_id) then
    delete from push.jobs where id = job.id;
    return;
  end if;
  update push.jobs
  set state = case when next_at is null then 'idle' else 'pending' end::push.job_state,
    next_attempt_at = next_at, expired_leases = 0, changed_at = clock_timestamp(),
    is_retry = is_unfinished and is_retry,
    -- A configuration fault does not count as an attempt.
    attempts = case when is_unfinished
      then greatest(attempts - (p_result @? '$.deliveries[*] ? (@.status == "configuration_fault")')::integer, 0) else 0 end,
    lease_id = null, leased_until = null, leased_revision = null
  where id = job.id;
end $$;
comment on function push.record_result(uuid, timestamptz, jsonb) is
  'Records the deliveries of one job, then ends it for now or sets its next attempt. Returns the deliveries that it recorded, and '
  'whether the worker has lost the lease: then it records the deliveries only.';

create function public.record_push_results(
  p_lease_id uuid, p_claimed_at timestamptz, p_results jsonb[], p_unused_notifications integer default 0,
  p_provider_reports jsonb[] default '{}'
) returns jsonb
language plpgsql security definer set search_path = ''
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  -- In one order, so that two workers that report the same jobs do not deadlock. Inserts of messages lock in this order, too.
  results constant jsonb[] := array(
    select reported from unnest(p_results) reported left join push.jobs job on job.id = (reported ->> 'job_id')::bigint
    order by job.room_id, job.recipient_id
  );
  result jsonb;
  answer record;
  recorded push.deliveries[] := '{}';
  lost_leases bigint[] := '{}';
  unrecorded bigint[] := '{}';
  reviewed jsonb;
begin
  begin
    foreach result in array results loop
      select * into strict answer from push.record_result(p_lease_id, p_claimed_at, result);
      recorded := recorded || answer.recorded;
      lost_leases := lost_leases || case when answer.is_lost then array[(result ->> 'job_id')::bigint] else '{}' end;
    end loop;
  exception when others then
    -- One result that cannot be recorded must not prevent the others: again, each in a subtransaction.
    recorded := '{}';
    lost_leases := '{}';
    foreach result in array results loop
      begin
        select * into strict answer from push.record_result(p_lease_id, p_claimed_at, result);
        recorded := recorded || answer.recorded;
        lost_leases := lost_leases || case when answer.is_lost then array[(result ->> 'job_id')::bigint] else '{}' end;
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
    select from unnest(results) reported join push.jobs job on job.id = (reported ->> 'job_id')::bigint
    where job.state = 'pending' and job.next_attempt_at < clock_timestamp() + interval '1 minute'
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
