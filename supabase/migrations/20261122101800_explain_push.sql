-- explain_push answers "why did my phone get no push?" for one message: what was decided (explain_decision, explain_reason) and
-- what became of each delivery (explain_delivery, explain_dead_token, explain_next), as sentences for support and operators.

create function push.format_time(p_at timestamptz) returns text
language sql immutable set search_path = '' as $$
  select to_char(p_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"');
$$;
comment on function push.format_time(timestamptz) is 'Returns a time as the explanations write it.';

create function push.explain_reason(p_reason text) returns text
language sql stable set search_path = '' as $$
  select case p_reason
    when 'deleted' then 'the message was deleted'
    when 'left' then 'its sender or its recipient is not in the conversation any more'
    when 'read' then 'the recipient had read it'
    when 'viewing' then 'the recipient was looking at the conversation and read it there'
    when 'blocked' then 'the recipient had blocked its sender'
    when 'request' then 'it is from a stranger whom the recipient has not accepted, and a message request is shown once, without a sound'
    when 'muted' then 'the recipient muted the conversation'
    when 'snoozed' then 'the recipient has snoozed notifications'
    when 'quiet_hours' then 'it is in the quiet hours of the recipient'
    when 'no_sound' then 'the recipient chose none for the conversation'
    when 'expired' then format('it is older than its time to live (%s)', settings.time_to_live)
    when 'attempts_exhausted' then format('all %s attempts were used', settings.max_attempts)
    when 'unanswered' then
      format('it was sent %s times without a readable answer, and each send may have reached the phone',
        cardinality(settings.unanswered_retry_delays) + 1)
    when 'leases_expired' then format('%s workers claimed it and ended before they reported', settings.expired_lease_limit)
    when 'unreadable' then
      'it cannot be composed: push.display_name, push.message_preview or push.message_image fails for it (see Postgres''s log)'
    when 'no_device' then 'the recipient has no active device with a push token'
    when 'not_noted' then
      'no worker saw it while it was new: it was stored as read, deleted or old, or with a thousand newer ones'
    when 'provider_not_configured' then
      'all active devices of the recipient are registered for a push service that the workers have no credentials for (push_provider)'
    else p_reason
  end
  from push.settings settings;
$$;
comment on function push.explain_reason(text) is 'Returns why a job ended, as a clause.';

create function push.explain_decision(p_decision push.decisions, p_job push.jobs) returns text
language sql stable set search_path = '' as $$
  select case
    when p_decision.outcome = 'skipped' then format('Skipped: %s.', push.explain_reason(p_decision.reason))
    when p_decision.outcome is not null then concat(
      case p_decision.outcome
        when 'accepted' then 'Accepted for at least one device'
        when 'maybe_sent' then 'May have been sent: Expo or a worker got it and never answered'
        when 'failed' then 'Failed on every device'
      end,
      '; not sent again because ' || push.explain_reason(p_decision.reason), '.')
    -- No claim has seen the message.
    when p_job.state = 'leased' and p_job.leased_until > clock_timestamp() and p_decision.created_at is null then
      format('Waiting: a worker sends what came before in the conversation; sent after its report, or after %s.',
        push.format_time(p_job.leased_until))
    when p_job.state = 'leased' and p_job.leased_until > clock_timestamp() then
      format('Being sent: a worker has leased it until %s.', push.format_time(p_job.leased_until))
    when p_job.state = 'leased' and p_job.next_attempt_at <= clock_timestamp() then
      format('The lease of its worker expired at %s without a report: the next sweep claims it again.',
        push.format_time(p_job.leased_until))
    when p_job.next_attempt_at <= clock_timestamp() then
      format('Due since %s: the webhook or the next sweep starts a worker that claims it.', push.format_time(p_job.next_attempt_at))
    when p_job.reason = 'viewing' then
      format('Waiting: the recipient is looking at the conversation; decided again at %s.',
        push.format_time(p_job.next_attempt_at))
    when p_job.reason = 'database_error' then
      format('Waiting: a passing error of the database stopped its last claim; decided again at %s.',
        push.format_time(p_job.next_attempt_at))
    when p_job.reason = 'recipient_rate_limited' then
      format('Waiting: the recipient gets more notifications than one recipient may take of the rate; decided again at %s.',
        push.format_time(p_job.next_attempt_at))
    else format('Waiting after %s attempt(s): the next one is at %s.', p_job.attempts, push.format_time(p_job.next_attempt_at))
  end;
$$;
comment on function push.explain_decision(push.decisions, push.jobs) is
  'Returns what happened to a message, or what it waits for, as a sentence.';

create function push.explain_dead_token(p_delivery push.deliveries, p_device public.user_devices) returns text
language sql stable set search_path = '' as $$
  select format('Token dead (%s): ', p_delivery.error) || case
    when p_device.id is null then 'the device was deleted meanwhile.'
    when p_device.push_token is distinct from p_delivery.push_token then 'the device has another token now.'
    when not p_device.is_active then 'device deactivated until it registers again.'
    when p_device.last_seen_at > p_delivery.sent_at then 'device stays active, it registered again after the send.'
    when push.is_held(p_delivery.device_id, p_delivery.push_token)
      then 'device stays active, too many tokens died at once: decide with push.review_held_deactivations.'
    when exists (
      select from push.dead_tokens dead join push.receipt_runs run on run.id = dead.run_id
      where dead.device_id = p_delivery.device_id and dead.push_token = p_delivery.push_token and run.state = 'open'
    ) then 'device stays active until the next review, about a minute after the first dead token.'
    when push.may_be_misconfigured(p_delivery.error)
      then 'device stays active, because the service accepts no token: check its credentials and push_environment.'
    else 'device stays active.'
  end;
$$;
comment on function push.explain_dead_token(push.deliveries, public.user_devices) is
  'Returns what a dead token meant for its device, as a sentence.';

create function push.explain_next(p_decision push.decisions, p_job push.jobs, p_delivery push.deliveries) returns text
language sql stable set search_path = '' as $$
  select case
    when p_delivery.id < (push.last_delivery(p_delivery.job_id, p_delivery.device_id, p_delivery.kind = 'badge')).id
      then '; not sent again because a later push replaced it.'
    -- The decision is about the alert. The other kinds follow it.
    when (p_decision.outcome is not null and p_delivery.kind = 'alert')
      or (push.is_attempt_due(p_delivery, p_delivery.digest, p_delivery.push_token)).due_at is null
      then '; not sent again' || coalesce(' because ' || push.explain_reason(p_decision.reason), '') || '.'
    else format('; sent again at %s.', push.format_time(greatest(p_job.next_attempt_at, p_job.leased_until, p_delivery.retry_at)))
  end;
$$;
comment on function push.explain_next(push.decisions, push.jobs, push.deliveries) is
  'Returns whether a device gets another attempt, as the end of a sentence.';

create function push.explain_delivery(p_delivery push.deliveries, p_device public.user_devices, p_decision push.decisions, p_job push.jobs)
returns text
language sql stable set search_path = '' as $$
  select case p_delivery.kind
    when 'update' then 'Update of the text that is shown: '
    when 'dismiss' then 'Removal of the notification: '
    when 'badge' then format('Badge %s: ', p_delivery.badge)
    else ''
  end || case p_delivery.status
    when 'sending' then format('Claimed by a worker at %s, which has not reported yet.', push.format_time(p_delivery.sent_at))
    when 'accepted' then format('Accepted by Expo at %s; ', push.format_time(p_delivery.sent_at)) || case
      when p_delivery.ticket_id is null then 'its answer had no readable ticket, so no receipt can be asked for.'
      else format('the receipt is not there yet, Expo is asked at %s.', push.format_time(p_delivery.receipt_due_at))
    end
    when 'handed_over' then case when not private.is_expo_token(p_delivery.push_token)
      then format('Handed over to %s at %s.', case p_device.push_provider when 'fcm' then 'FCM' else 'APNs' end,
        push.format_time(p_delivery.answered_at))
      else format('Handed over to %s, by the receipt that Expo gave at %s.',
      case p_device.platform when 'ios' then 'APNs' when 'android' then 'FCM' else 'APNs or FCM' end,
      push.format_time(p_delivery.updated_at)) end
    when 'receipt_lost' then format('Accepted by Expo at %s; it never gave a receipt, so its delivery is unknown.',
      push.format_time(p_delivery.sent_at))
    when 'maybe_sent' then format('Sent at %s without a clear answer (%s), so it may have arrived',
      push.format_time(p_delivery.sent_at), p_delivery.error) || push.explain_next(p_decision, p_job, p_delivery)
    when 'retry' then format('Rejected for now (%s)', p_delivery.error) || push.explain_next(p_decision, p_job, p_delivery)
    when 'failed' then case
      when push.is_dead_token(p_delivery.error) then push.explain_dead_token(p_delivery, p_device)
      when p_delivery.error = 'MessageTooBig' then 'Rejected permanently: the notification is over 4096 bytes (MessageTooBig).'
      else format('Rejected permanently after %s attempt(s): %s.', p_delivery.attempts, p_delivery.error)
    end
  end || coalesce(' It makes no sound, because ' || push.explain_reason(p_delivery.silenced_by) || '.', '');
$$;
comment on function push.explain_delivery(push.deliveries, public.user_devices, push.decisions, push.jobs) is
  'Returns what happened to a push on one device, as a sentence.';

create function push.deliveries_of(p_decision push.decisions) returns setof push.deliveries
language sql stable set search_path = '' as $$
  with announced as (
    select device_id, min(id) as id from push.deliveries
    where job_id = p_decision.job_id and p_decision.message_id = any(message_ids) group by device_id
  )
  select delivery.* from push.deliveries delivery join announced on announced.device_id = delivery.device_id
  where delivery.job_id = p_decision.job_id and (p_decision.message_id = any(delivery.message_ids)
    -- What followed, until the next new message.
    or (delivery.kind <> 'alert' and delivery.id > announced.id and not exists (
      select from push.deliveries later
      where later.job_id = delivery.job_id and later.device_id = delivery.device_id and later.kind = 'alert'
        and later.id > announced.id and later.id < delivery.id and p_decision.message_id <> all(later.message_ids))))
  order by delivery.id;
$$;
comment on function push.deliveries_of(push.decisions) is
  'Returns the pushes that announced a message, and the updates, dismissals and badges that followed on the same devices.';

create function push.explain_ended_devices(p_decision push.decisions, p_job push.jobs) returns text
language sql stable set search_path = '' as $$
  select string_agg(
    format(' Device %s gets no push: its session has ended (signed out, password changed or account banned); '
      'it gets pushes again after a new sign-in.', device.device_id), '' order by device.last_seen_at desc, device.id)
  from public.user_devices device
  where device.id = any(private.ended_devices(array(
      select device from public.user_devices device where device.user_id = p_job.recipient_id and device.push_token is not null)))
    and not exists (select from push.deliveries delivery
      where delivery.job_id = p_job.id and p_decision.message_id = any(delivery.message_ids)
        and delivery.device_id = device.id and delivery.is_accepted);
$$;
comment on function push.explain_ended_devices(push.decisions, push.jobs) is
  'Returns a sentence for each device of the recipient that gets no push because its session has ended; null without one.';

create function push.explain_paused_providers(p_decision push.decisions, p_job push.jobs) returns text
language sql stable set search_path = '' as $$
  select string_agg(
    format(' %s gets nothing until %s, because it refused everything %s time(s) in a row.',
      case provider when 'fcm' then 'FCM' else 'APNs' end, push.format_time(paused_until), failures), '' order by provider)
  from push.providers
  where paused_until > clock_timestamp() and p_decision.outcome is null
    and provider in (select device.push_provider from push.sendable_devices(p_job.recipient_id, push.configured_providers()) device);
$$;
comment on function push.explain_paused_providers(push.decisions, push.jobs) is
  'Returns a sentence for each push service of the recipient''s devices that is paused, if the message waits; null without one.';

create function push.decision_of(p_message_id uuid, out decision push.decisions, out job push.jobs) returns record
language plpgsql stable set search_path = '' as $$
declare
  message public.chat_messages;
begin
  select * into decision from push.decisions where message_id = p_message_id;
  if found then
    select * into job from push.jobs where id = decision.job_id;
    return;
  end if;
  -- No claim has seen the message yet, or it made nothing due: it is history, or was read or deleted from the start.
  select * into message from public.chat_messages where id = p_message_id;
  -- The conversation may also have jobs of people who have left it.
  select found.* into job from public.chat_rooms room join push.jobs found on found.room_id = room.id
    and found.recipient_id = case message.sender_id when room.user1_id then room.user2_id when room.user2_id then room.user1_id end
  where room.id = message.room_id and found.recipient_id <> message.sender_id;
  decision.message_id := message.id;
  decision.job_id := job.id;
  -- A new message makes its job due at once.
  if job.id is null or message.server_timestamp <= job.decided_up_to
    or job.state = 'idle' or (job.state = 'pending' and job.next_attempt_at > clock_timestamp())
  then
    decision.outcome := 'skipped';
    decision.reason := case when message.deleted_at is not null then 'deleted'
      when not exists (
        select from public.chat_rooms
        where id = message.room_id and message.sender_id in (user1_id, user2_id) and user1_id <> user2_id) then 'left'
      when message.is_read then 'read'
      when least(message.created_at, message.server_timestamp) <= message.server_timestamp - push.time_to_live() then 'expired'
      else 'not_noted' end;
  end if;
end $$;
comment on function push.decision_of(uuid) is
  'Returns the decision about a message and its job. Without a row in push.decisions, it is computed; nulls for an unknown message.';

create function public.explain_push(p_message_id uuid) returns jsonb
language sql stable security definer set search_path = '' as $$
  select jsonb_build_object(
    'message_id', (decision).message_id,
    'recipient_id', (job).recipient_id,
    'state', case when (decision).outcome is not null then 'done' when (job).state = 'leased' and (decision).created_at is not null then 'leased'
      else 'pending' end,
    'outcome', (decision).outcome,
    'reason', coalesce((decision).reason, case when (decision).outcome is null then (job).reason end),
    'attempts', case when (decision).outcome is null then (job).attempts else coalesce((
      select max(attempts) from push.deliveries_of(decision) where kind = 'alert'), 0) end,
    'next_attempt_at', case when (decision).outcome is null then greatest((job).next_attempt_at, (job).leased_until) end,
    'delivered_at', receipt.delivered_at,
    'explanation', push.explain_decision(decision, job)
      || coalesce(' The recipient''s app reported it at ' || push.format_time(receipt.delivered_at) || '.', '')
      || coalesce(push.explain_ended_devices(decision, job), '')
      || coalesce(push.explain_paused_providers(decision, job), ''),
    'deliveries', (
      select coalesce(jsonb_agg(jsonb_build_object(
        'device_id', coalesce(device.device_id, delivery.device_id::text),
        'platform', device.platform,
        'kind', delivery.kind,
        'sound', delivery.sound,
        'status', case when reported.delivered then 'delivered' else delivery.status end,
        'error', delivery.error,
        'ticket_id', delivery.ticket_id,
        'attempts', delivery.attempts,
        'explanation', case
          when reported.delivered then
            format('Delivered: the device itself reported it at %s.', push.format_time(receipt.delivered_at))
          else push.explain_delivery(delivery, device, decision, job)
        end
      ) order by delivery.id), '[]')
      from push.deliveries_of(decision) delivery
      left join public.user_devices device on device.id = delivery.device_id
      cross join lateral (
        select coalesce(delivery.kind = 'alert' and receipt.delivered_at is not null and receipt.device_id = device.device_id, false)
          as delivered
      ) reported
    )
  )
  from push.decision_of(p_message_id)
  left join public.message_receipts receipt
    on receipt.message_id = (decision).message_id and receipt.user_id = (job).recipient_id
  where (decision).message_id is not null;
$$;
comment on function public.explain_push(uuid) is
  'Returns what happened to the push of a message: the decision about it, each push to a device, and an explanation of both. Null '
  'without such a message.';

revoke execute on all functions in schema push from public;
revoke execute on function public.explain_push(uuid) from public, anon, authenticated;
grant execute on function public.explain_push(uuid) to service_role;
