-- Decisions: which jobs are sent, deferred or finished. push.decide is the decision table of docs/architecture.md; it reads
-- push.sendable_devices, the devices that a message can still be sent to. finish_job and defer_job carry a decision out.

-- device_limit is applied here, too: rows may be older than the limit, or written while triggers were disabled.
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
  where delivery.is_accepted is not true
    and (delivery.status, delivery.push_token) is distinct from ('failed', device.push_token)
    and (delivery.status is distinct from 'maybe_sent' or delivery.unanswered <= cardinality(settings.unanswered_retry_delays));
comment on view push.sendable_devices is
  'Devices that a message can still be sent to: the active devices of the recipient for which Expo has not accepted it, nor '
  'rejected it permanently for the present token, nor left too many sends without an answer. due_at: the earliest time.';

create function push.decide(p_message_ids uuid[], p_at timestamptz)
returns table (
  message_id uuid, recipient_id uuid, verdict text, reason text, decide_again_at timestamptz, devices integer
)
language plpgsql stable set search_path = '' as $$
#variable_conflict use_column -- the result has the names of columns
begin
  return query
  select job.message_id,
    job.recipient_id,
    case when decided.reason in ('viewing', 'waiting') then 'defer' when decided.reason = 'send' then 'send' else 'finish' end,
    case when decided.reason = 'read' and job.reason = 'viewing' then 'viewing' else decided.reason end,
    case decided.reason when 'waiting' then sendable.due_at else presence.updated_at + settings.presence_fresh_for end,
    sendable.due
  from unnest(p_message_ids) with ordinality asked (message_id, position)
  join push.jobs job on job.message_id = asked.message_id
  cross join push.settings settings
  left join public.chat_messages message on message.id = job.message_id
  -- A row that is missing, stale or in the future counts as absent: when in doubt, the push is sent.
  left join public.user_presence presence
    on presence.user_id = job.recipient_id
    and presence.is_online
    and presence.current_conversation_id = message.room_id
    and presence.updated_at > p_at - settings.presence_fresh_for
    and presence.updated_at <= p_at
  cross join lateral (
    select count(*)::integer as total, (count(*) filter (where device.due_at <= p_at))::integer as due, min(device.due_at) as due_at
    from push.sendable_devices device where device.message_id = job.message_id
  ) sendable
  cross join lateral (
    -- The decision table: the first condition that applies decides.
    select case
      -- The message is missing if it was deleted while triggers were disabled.
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
      when sendable.total = 0 and (
        select bool_and(device.push_provider <> 'expo') from public.user_devices device
        where device.user_id = job.recipient_id and device.is_active and device.push_token is not null
      ) then 'unsupported_provider'
      when sendable.total = 0 then 'no_device'
      when sendable.due = 0 then 'waiting'
      else 'send'
    end as reason
    -- `offset 0` keeps this a subquery that runs once for each job, and by indexes. Merged into the outer query, it would run
    -- for each use of its result, and without statistics it would read all jobs.
    offset 0
  ) decided
  order by asked.position;
end $$;
comment on function push.decide(uuid[], timestamptz) is
  'Returns the decision for each of these jobs, in their order. verdict: finish, defer (decide_again_at: until when) or send '
  '(devices: to how many); reason: which condition decided.';

create function push.finish_job(p_message_id uuid, p_reason text) returns void
language plpgsql set search_path = '' as $$
begin
  with delivered as (
    select coalesce(bool_or(is_accepted), false) as accepted,
      coalesce(bool_or(status = 'maybe_sent'), false) as maybe_sent,
      count(*) = 0 as none
    from push.deliveries where message_id = p_message_id
  )
  update push.jobs job
  set state = 'done',
    outcome = (case
      when delivered.accepted then 'accepted'
      -- A worker claimed it and never reported: it may have been sent.
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
  'Ends a job. Its outcome is the best of its deliveries, or skipped if nothing was sent.';

create function push.defer_job(p_message_id uuid, p_reason text, p_until timestamptz) returns void
language sql set search_path = '' as $$
  update push.jobs
  set state = 'pending', reason = p_reason, next_attempt_at = p_until, lease_id = null, leased_until = null
  where message_id = p_message_id;
$$;
comment on function push.defer_job(uuid, text, timestamptz) is
  'Defers a job until p_until; then a claim decides it again.';

revoke execute on all functions in schema push from public;
