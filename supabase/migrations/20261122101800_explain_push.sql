-- explain_push answers "why did my phone get no push?" for one message: what happened to its job (explain_job, explain_reason)
-- and to each delivery (explain_delivery, explain_dead_token, explain_next), as sentences for support and operators.

create function push.format_time(p_at timestamptz) returns text
language sql immutable set search_path = '' as $$
  select to_char(p_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"');
$$;
comment on function push.format_time(timestamptz) is 'Returns a time as the explanations write it.';

create function push.explain_reason(p_reason text) returns text
language sql stable set search_path = '' as $$
  select case p_reason
    when 'deleted' then 'the message was deleted'
    when 'read' then 'the recipient had read it'
    when 'viewing' then 'the recipient was looking at the conversation and read it there'
    when 'expired' then format('it is older than its time to live (%s)', settings.time_to_live)
    when 'attempts_exhausted' then format('all %s attempts were used', settings.max_attempts)
    when 'unanswered' then
      format('it was sent %s times without a readable answer, and each send may have reached the phone',
        cardinality(settings.unanswered_retry_delays) + 1)
    when 'leases_expired' then format('%s workers claimed it and ended before they reported', settings.expired_lease_limit)
    when 'unreadable' then
      'it cannot be composed: push.display_name, push.message_preview or push.message_image fails for it (see Postgres''s log)'
    when 'no_device' then 'the recipient has no active device with a push token of Expo'
    when 'unsupported_provider' then
      'all active devices of the recipient are registered for an unsupported provider (push_provider is not expo)'
    else p_reason
  end
  from push.settings settings;
$$;
comment on function push.explain_reason(text) is 'Returns why a job ended, as a clause.';

create function push.explain_job(p_job push.jobs) returns text
language sql stable set search_path = '' as $$
  select case
    when p_job.state = 'leased' and p_job.leased_until > clock_timestamp() then
      format('Being sent: a worker has leased it until %s.', push.format_time(p_job.leased_until))
    when p_job.state = 'leased' then
      format('The lease of its worker expired at %s without a report: the next sweep claims it again.',
        push.format_time(p_job.leased_until))
    when p_job.state = 'pending' and p_job.next_attempt_at <= clock_timestamp() then
      format('Due since %s: the webhook or the next sweep starts a worker that claims it.', push.format_time(p_job.next_attempt_at))
    when p_job.reason = 'viewing' and p_job.state = 'pending' then
      format('Waiting: the recipient is looking at the conversation; decided again at %s.',
        push.format_time(p_job.next_attempt_at))
    when p_job.reason = 'recipient_rate_limited' and p_job.state = 'pending' then
      format('Waiting: the recipient gets more notifications than one recipient may take of the rate; decided again at %s.',
        push.format_time(p_job.next_attempt_at))
    when p_job.state = 'pending' then
      format('Waiting after %s attempt(s): the next one is at %s.', p_job.attempts, push.format_time(p_job.next_attempt_at))
    when p_job.outcome = 'skipped' then format('Skipped: %s.', push.explain_reason(p_job.reason))
    else concat(
      case p_job.outcome
        when 'accepted' then 'Accepted by Expo for at least one device'
        when 'maybe_sent' then 'May have been sent: Expo or a worker got it and never answered'
        when 'failed' then 'Failed on every device'
      end,
      '; not sent again because ' || push.explain_reason(p_job.reason), '.')
  end;
$$;
comment on function push.explain_job(push.jobs) is 'Returns what happened to a message, or what it waits for, as a sentence.';

create function push.explain_dead_token(p_delivery push.deliveries, p_device public.user_devices) returns text
language sql stable set search_path = '' as $$
  select 'Token dead (DeviceNotRegistered): ' || case
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
    else 'device stays active.'
  end;
$$;
comment on function push.explain_dead_token(push.deliveries, public.user_devices) is
  'Returns what a dead token meant for its device, as a sentence.';

create function push.explain_next(p_job push.jobs, p_delivery push.deliveries) returns text
language sql stable set search_path = '' as $$
  select case
    when p_job.state = 'done' then '; not sent again' || coalesce(' because ' || push.explain_reason(p_job.reason), '') || '.'
    else format('; sent again at %s.', push.format_time(greatest(p_job.next_attempt_at, p_job.leased_until, p_delivery.retry_at)))
  end;
$$;
comment on function push.explain_next(push.jobs, push.deliveries) is
  'Returns whether a device gets another attempt, as the end of a sentence.';

create function push.explain_delivery(p_delivery push.deliveries, p_device public.user_devices, p_job push.jobs)
returns text
language sql stable set search_path = '' as $$
  select case p_delivery.status
    when 'accepted' then format('Accepted by Expo at %s; ', push.format_time(p_delivery.sent_at)) || case
      when p_delivery.ticket_id is null then 'its answer had no readable ticket, so no receipt can be asked for.'
      else format('the receipt is not there yet, Expo is asked at %s.', push.format_time(p_delivery.receipt_due_at))
    end
    when 'handed_over' then format('Handed over to %s, by the receipt that Expo gave at %s.',
      case p_device.platform when 'ios' then 'APNs' when 'android' then 'FCM' else 'APNs or FCM' end,
      push.format_time(p_delivery.updated_at))
    when 'receipt_lost' then format('Accepted by Expo at %s; it never gave a receipt, so its delivery is unknown.',
      push.format_time(p_delivery.sent_at))
    when 'maybe_sent' then format('Sent at %s without a clear answer (%s), so it may have arrived',
      push.format_time(p_delivery.sent_at), p_delivery.error) || push.explain_next(p_job, p_delivery)
    when 'retry' then format('Rejected for now (%s)', p_delivery.error) || push.explain_next(p_job, p_delivery)
    when 'failed' then case
      when push.is_dead_token(p_delivery.error) then push.explain_dead_token(p_delivery, p_device)
      when p_delivery.error = 'MessageTooBig' then 'Rejected permanently: the notification is over 4096 bytes (MessageTooBig).'
      else format('Rejected permanently after %s attempt(s): %s.', p_delivery.attempts, p_delivery.error)
    end
  end;
$$;
comment on function push.explain_delivery(push.deliveries, public.user_devices, push.jobs) is
  'Returns what happened to a message on one device, as a sentence.';

create function push.explain_ended_devices(p_job push.jobs) returns text
language sql stable set search_path = '' as $$
  select string_agg(
    format(' Device %s gets no push: its session has ended (signed out, password changed or account banned); '
      'it gets pushes again after a new sign-in.', device.device_id), '' order by device.last_seen_at desc, device.id)
  from public.user_devices device
  where device.id = any(private.ended_devices(array(
      select device from public.user_devices device where device.user_id = p_job.recipient_id and device.push_token is not null)))
    and not exists (select from push.deliveries delivery
      where delivery.message_id = p_job.message_id and delivery.device_id = device.id and delivery.is_accepted);
$$;
comment on function push.explain_ended_devices(push.jobs) is
  'Returns a sentence for each device of the recipient that gets no push because its session has ended; null without one.';

create function public.explain_push(p_message_id uuid) returns jsonb
language sql stable security definer set search_path = '' as $$
  select jsonb_build_object(
    'message_id', job.message_id,
    'recipient_id', job.recipient_id,
    'state', job.state,
    'outcome', job.outcome,
    'reason', job.reason,
    'attempts', job.attempts,
    'next_attempt_at', case when job.state <> 'done' then greatest(job.next_attempt_at, job.leased_until) end,
    'delivered_at', receipt.delivered_at,
    'explanation', push.explain_job(job)
      || coalesce(' The recipient''s app reported it at ' || push.format_time(receipt.delivered_at) || '.', '')
      || coalesce(push.explain_ended_devices(job), ''),
    'deliveries', (
      select coalesce(jsonb_agg(jsonb_build_object(
        'device_id', coalesce(device.device_id, delivery.device_id::text),
        'platform', device.platform,
        'status', case when reported.delivered then 'delivered' else delivery.status end,
        'error', delivery.error,
        'ticket_id', delivery.ticket_id,
        'attempts', delivery.attempts,
        'explanation', case
          when reported.delivered then
            format('Delivered: the device itself reported it at %s.', push.format_time(receipt.delivered_at))
          else push.explain_delivery(delivery, device, job)
        end
      ) order by delivery.created_at), '[]')
      from push.deliveries delivery
      left join public.user_devices device on device.id = delivery.device_id
      cross join lateral (
        select coalesce(receipt.delivered_at is not null and receipt.device_id = device.device_id, false) as delivered
      ) reported
      where delivery.message_id = job.message_id
    )
  )
  from push.jobs job
  left join public.message_receipts receipt
    on receipt.message_id = job.message_id and receipt.user_id = job.recipient_id
  where job.message_id = p_message_id;
$$;
comment on function public.explain_push(uuid) is
  'Returns what happened to the push of a message: the state of its job, each delivery, and an explanation of both. Null '
  'without a job.';

revoke execute on all functions in schema push from public;
revoke execute on function public.explain_push(uuid) from public, anon, authenticated;
grant execute on function public.explain_push(uuid) to service_role;
