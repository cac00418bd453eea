-- Results: what a worker reports after sending. For each job: record the answer for each device (push.record_delivery), then
-- finish the job or set its next attempt (push.record_result). push.retry_at is the only place that computes a retry delay.

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
      -- The count is for one token: another one may not have been sent to yet.
      unanswered = case when known.push_token = excluded.push_token then known.unanswered else 0 end + excluded.unanswered,
      updated_at = clock_timestamp()
    where not known.is_accepted
  returning * into delivery;
  if delivery.status in ('retry', 'maybe_sent') then
    update push.deliveries
    set retry_at = push.retry_at(delivery, is_fault, reported.retry_after_seconds)
    where message_id = delivery.message_id and device_id = delivery.device_id;
  end if;
end $$;
comment on function push.record_delivery(uuid, timestamptz, jsonb) is
  'Records the answer of Expo for one message and device, and when it is sent again if at all. An accepted delivery stays.';

create function push.record_result(p_lease_id uuid, p_claimed_at timestamptz, p_result jsonb) returns boolean
language plpgsql set search_path = '' as $$
declare
  job push.jobs;
  next_at timestamptz;
begin
  select * into job from push.jobs where message_id = (p_result ->> 'message_id')::uuid for update;
  if not found then
    return true;  -- The message was deleted meanwhile, and its job with it.
  end if;
  -- Answers of Expo are recorded, even if another worker holds the lease now.
  perform push.record_delivery(job.message_id, p_claimed_at, reported)
  from jsonb_array_elements(p_result -> 'deliveries') reported;
  -- Devices that wait for the same reason get the same time, so that one request sends to all of them.
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
      -- A configuration fault does not count as an attempt.
      attempts = attempts - (p_result @? '$.deliveries[*] ? (@.status == "configuration_fault")')::integer,
      -- A device that the worker did not report is due at once: without this bound, sweeps would claim the job in a loop.
      next_attempt_at = greatest(next_at, clock_timestamp() + (select retry_base from push.settings))
    where message_id = job.message_id;
  end if;
  return true;
end $$;
comment on function push.record_result(uuid, timestamptz, jsonb) is
  'Records the deliveries of one job, then finishes it or sets its next attempt. Returns false if the worker has lost the '
  'lease: then it records the deliveries only.';

create function public.record_push_results(
  p_lease_id uuid, p_claimed_at timestamptz, p_results jsonb[], p_unused_notifications integer default 0
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  result jsonb;
  -- In one order, so that two workers that report the same messages do not deadlock.
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
    -- One result that cannot be recorded must not prevent the others: again, each in a subtransaction.
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
  'Records the answers of Expo, and finishes each job or sets its next attempt. An element of p_results: {message_id, '
  'deliveries: [{device_id, push_token, status, error, ticket_id, retry_after_seconds}]}. p_unused_notifications: how many of '
  'the send slot were not sent. Returns lost_leases and unrecorded (message ids), deactivated and held (numbers of devices). '
  'Safe to repeat.';

revoke execute on all functions in schema push from public;
revoke execute on function
  public.record_push_results(uuid, timestamptz, jsonb[], integer)
from public, anon, authenticated;
grant execute on function
  public.record_push_results(uuid, timestamptz, jsonb[], integer)
to service_role;
