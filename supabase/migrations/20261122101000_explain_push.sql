-- What became of a message's push, in words for whoever was asked "why did my phone not ring?".

create function push.format_time(p_at timestamptz) returns text
language sql immutable set search_path = '' as $$
  select to_char(p_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"');
$$;
comment on function push.format_time(timestamptz) is 'A time as the explanations write it.';

create function push.explain_reason(p_reason text) returns text
language sql stable set search_path = '' as $$
  select case p_reason
    when 'deleted' then 'the message was deleted'
    when 'read' then 'the recipient had read it'
    when 'viewing' then 'the recipient was looking at the conversation and read it there'
    when 'expired' then format('it became older than its time to live (%s)', settings.time_to_live)
    when 'attempts_exhausted' then format('all %s attempts were used', settings.max_attempts)
    when 'unanswered' then
      format('it was sent %s times without an answer, each of which may have reached the phone',
        cardinality(settings.unanswered_retry_delays) + 1)
    when 'leases_expired' then format('%s workers took it and ended before they reported', settings.expired_lease_limit)
    when 'unreadable' then
      'it cannot be composed: push.display_name, push.message_preview or push.message_image fails for it (see Postgres''s log)'
    when 'no_device' then 'the recipient has no active device with a push token that it could go to'
    else p_reason
  end
  from push.settings settings;
$$;
comment on function push.explain_reason(text) is 'Why a job ended, as a clause.';

create function push.explain_job(p_job push.jobs) returns text
language sql stable set search_path = '' as $$
  select case
    when p_job.state = 'leased' and p_job.leased_until > clock_timestamp() then
      format('Being sent: a worker has it until %s.', push.format_time(p_job.leased_until))
    when p_job.state = 'leased' then
      format('The lease of its worker ran out at %s without a report: the next sweep takes it again.',
        push.format_time(p_job.leased_until))
    when p_job.state = 'pending' and p_job.next_attempt_at <= clock_timestamp() then
      format('Due since %s: the webhook or the next sweep takes it.', push.format_time(p_job.next_attempt_at))
    when p_job.reason = 'viewing' and p_job.state = 'pending' then
      format('Waiting: the recipient is looking at the conversation; decided anew at %s.',
        push.format_time(p_job.next_attempt_at))
    when p_job.reason = 'recipient_rate_limited' and p_job.state = 'pending' then
      format('Waiting: the recipient gets so many notifications that the rest waits; decided anew at %s.',
        push.format_time(p_job.next_attempt_at))
    when p_job.state = 'pending' then
      format('Waiting after %s attempt(s): the next one is at %s.', p_job.attempts, push.format_time(p_job.next_attempt_at))
    when p_job.outcome = 'skipped' then format('Skipped: %s.', push.explain_reason(p_job.reason))
    else concat(
      case p_job.outcome
        when 'accepted' then 'Accepted by Expo for at least one device'
        when 'maybe_sent' then 'May have been sent: Expo or a worker took it and never answered'
        when 'failed' then 'Failed on every device'
      end,
      '; not sent again because ' || push.explain_reason(p_job.reason), '.')
  end;
$$;
comment on function push.explain_job(push.jobs) is 'What became of a message, or what it waits for, as a sentence.';

create function push.explain_dead_token(p_delivery push.deliveries, p_device public.user_devices) returns text
language sql stable set search_path = '' as $$
  select 'Token dead (DeviceNotRegistered): ' || case
    when p_device.id is null then 'the device is gone by now.'
    when p_device.push_token is distinct from p_delivery.push_token then 'the device has another token by now.'
    when not p_device.is_active then 'device switched off until it registers again.'
    when p_device.last_seen_at > p_delivery.sent_at then 'device left on, it registered again after the send.'
    when push.is_held(p_delivery.device_id, p_delivery.push_token) then 'device left on, too many tokens died at once: decide with push.review_held_deactivations.'
    when exists (
      select from push.dead_tokens dead join push.receipt_runs run on run.id = dead.run_id
      where dead.device_id = p_delivery.device_id and dead.push_token = p_delivery.push_token and run.state = 'open'
    ) then 'device left on until the next review, about a minute after the first dead token.'
    else 'device left on.'
  end;
$$;
comment on function push.explain_dead_token(push.deliveries, public.user_devices) is
  'What a dead token meant for its device, as a sentence.';

create function push.explain_next(p_job push.jobs, p_delivery push.deliveries) returns text
language sql stable set search_path = '' as $$
  select case
    when p_job.state = 'done' then '; not sent again' || coalesce(' because ' || push.explain_reason(p_job.reason), '') || '.'
    else format('; sent again at %s.', push.format_time(greatest(p_job.next_attempt_at, p_job.leased_until, p_delivery.retry_at)))
  end;
$$;
comment on function push.explain_next(push.jobs, push.deliveries) is 'Whether a device gets another attempt, as the end of a sentence.';

create function push.explain_delivery(p_delivery push.deliveries, p_device public.user_devices, p_job push.jobs)
returns text
language sql stable set search_path = '' as $$
  select case p_delivery.status
    when 'accepted' then format('Accepted by Expo at %s; ', push.format_time(p_delivery.sent_at)) || case
      when p_delivery.ticket_id is null then 'its answer held no readable ticket, so there is no receipt to ask for.'
      else format('receipt not there yet, Expo is asked at %s.', push.format_time(p_delivery.receipt_due_at))
    end
    when 'handed_over' then format('Handed over to %s, by the receipt that Expo gave at %s.',
      case p_device.platform when 'ios' then 'APNs' when 'android' then 'FCM' else 'APNs or FCM' end,
      push.format_time(p_delivery.updated_at))
    when 'receipt_lost' then format('Accepted by Expo at %s; it never gave a receipt, so nobody knows more.',
      push.format_time(p_delivery.sent_at))
    when 'maybe_sent' then format('Sent at %s without a clear answer (%s), so it may have arrived',
      push.format_time(p_delivery.sent_at), p_delivery.error) || push.explain_next(p_job, p_delivery)
    when 'retry' then format('Refused for now (%s)', p_delivery.error) || push.explain_next(p_job, p_delivery)
    when 'failed' then case p_delivery.error
      when 'DeviceNotRegistered' then push.explain_dead_token(p_delivery, p_device)
      when 'MessageTooBig' then 'Refused for good: the notification is over 4096 bytes (MessageTooBig).'
      else format('Refused for good after %s attempt(s): %s.', p_delivery.attempts, p_delivery.error)
    end
  end;
$$;
comment on function push.explain_delivery(push.deliveries, public.user_devices, push.jobs) is
  'What became of a message on one device, as a sentence.';

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
      || coalesce(' The recipient''s app reported it at ' || push.format_time(receipt.delivered_at) || '.', ''),
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
  'Why the push of a message came to which device, or did not; null without a job.';

revoke execute on function
  push.format_time(timestamptz), push.explain_reason(text), push.explain_job(push.jobs),
  push.explain_dead_token(push.deliveries, public.user_devices),
  push.explain_delivery(push.deliveries, public.user_devices, push.jobs), push.explain_next(push.jobs, push.deliveries)
from public;
revoke execute on function public.explain_push(uuid) from public, anon, authenticated;
grant execute on function public.explain_push(uuid) to service_role;
