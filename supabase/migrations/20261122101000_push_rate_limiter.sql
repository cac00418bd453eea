-- The rate limiter: all workers together send at most notifications_per_second, and one recipient gets at most
-- recipient_share of that. A claim reserves the share of each recipient first (reserve_recipient_share), then one send slot
-- for all its notifications (reserve_send_slot). The worker releases what it does not use (release_send_slot).

create table push.rate_limiter (
  only_row boolean primary key default true check (only_row),
  free_at timestamptz not null default clock_timestamp()
);
insert into push.rate_limiter default values;
comment on table push.rate_limiter is
  'One row. free_at: when the next notification may be sent to Expo, after all for which slots are reserved.';

create table push.rate_limit_reservations (
  id bigint generated always as identity primary key,
  send_at timestamptz not null,
  notifications integer not null,
  lease_id uuid
);
comment on table push.rate_limit_reservations is 'Send slots of the last seconds, and future ones.';
comment on column push.rate_limit_reservations.lease_id is
  'The claim that reserved the slot and may release a part of it.';

-- Unlogged: it holds the last seconds only, which do not matter after a crash of the database.
create unlogged table push.recipient_rates (
  recipient_id uuid primary key,
  free_at timestamptz not null,
  queued_until timestamptz not null default '-infinity'
);
comment on table push.recipient_rates is
  'Per recipient: free_at is when all notifications of the recipient would have been sent at the recipient''s share.';
comment on column push.recipient_rates.queued_until is
  'When all deferred notifications of the recipient would have been sent at that rate.';

create function public.reserve_send_slot(
  p_notifications integer, p_lease_id uuid default null, p_wait interval default '1 hour'
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  -- A second, and 4 % for requests that arrive late.
  span constant interval := interval '1 second' / 0.96;
  per_second integer;
  slot timestamptz;
begin
  if p_notifications > 0 then
    select notifications_per_second into strict per_second from push.settings;
    select free_at into strict slot from push.rate_limiter for update;  -- One worker at a time.
    delete from push.rate_limit_reservations where send_at < clock_timestamp() - 2 * span;
    -- A worker sends all notifications of a slot at its beginning. So the slot begins when, with it, no span of time holds
    -- more notifications than the rate allows.
    select greatest(slot, clock_timestamp(), max(before.send_at) + span) into slot
    from (
      select send_at, sum(notifications) over (order by send_at desc, id desc) as since
      from push.rate_limit_reservations where send_at > greatest(slot, clock_timestamp()) - span
    ) before
    where before.since + p_notifications > per_second * extract(epoch from span);
    if slot > clock_timestamp() + p_wait then
      return null;
    end if;
    insert into push.rate_limit_reservations (send_at, notifications, lease_id) values (slot, p_notifications, p_lease_id);
    update push.rate_limiter set free_at = slot + p_notifications * interval '1 second' / per_second;
  end if;
  return jsonb_build_object('send_at', coalesce(slot, clock_timestamp()), 'answered_at', clock_timestamp());
end $$;
comment on function public.reserve_send_slot(integer, uuid, interval) is
  'Reserves a send slot for so many notifications. Returns when they may be sent (send_at) and the time of this answer by the '
  'same clock (answered_at); null, and reserves nothing, if that is more than p_wait from now.';

create function push.release_send_slot(p_lease_id uuid, p_notifications integer) returns void
language plpgsql set search_path = '' as $$
begin
  perform from push.rate_limiter for update;
  -- Only once for each claim: a worker may repeat its report.
  update push.rate_limit_reservations set notifications = notifications - p_notifications, lease_id = null
  where lease_id = p_lease_id;
  if found then
    update push.rate_limiter
    set free_at = free_at - p_notifications * interval '1 second' / (select notifications_per_second from push.settings);
  end if;
end $$;
comment on function push.release_send_slot(uuid, integer) is
  'Releases the part of the send slot of a claim that its worker did not use, so that other claims need not wait for it.';

create function push.recipient_share_duration(p_notifications integer, p_settings push.settings) returns interval
language plpgsql immutable set search_path = '' as $$
begin
  return p_notifications * interval '1 second' / (p_settings.notifications_per_second * p_settings.recipient_share)::double precision;
end $$;
comment on function push.recipient_share_duration(integer, push.settings) is
  'Returns how long so many notifications take at the share of one recipient.';

create function push.reserve_recipient_share(p_recipient_id uuid, p_notifications integer, p_settings push.settings) returns timestamptz
language plpgsql set search_path = '' as $$
declare
  burst constant interval := interval '2 seconds';
  cost constant interval := push.recipient_share_duration(p_notifications, p_settings);
  recipient_free_at timestamptz;
begin
  insert into push.recipient_rates as known (recipient_id, free_at)
  values (p_recipient_id, clock_timestamp() + cost)
  on conflict (recipient_id) do update set free_at = greatest(known.free_at, clock_timestamp()) + cost
    where known.free_at <= clock_timestamp() + burst
  returning free_at into recipient_free_at;
  if found then
    return null;
  end if;
  -- Behind the jobs that wait already. Otherwise all jobs of a flood would be due at the same time, again and again.
  update push.recipient_rates
  set queued_until = greatest(queued_until, free_at - burst) + cost
  where recipient_id = p_recipient_id
  returning queued_until - cost into strict recipient_free_at;
  return recipient_free_at;
end $$;
comment on function push.reserve_recipient_share(uuid, integer, push.settings) is
  'Reserves so many notifications of the recipient''s share and returns null. If the share is used up, returns the time at '
  'which the job is to be decided again.';

create function push.return_recipient_share(p_recipient_id uuid, p_notifications integer, p_settings push.settings) returns void
language sql set search_path = '' as $$
  update push.recipient_rates set free_at = free_at - push.recipient_share_duration(p_notifications, p_settings)
  where recipient_id = p_recipient_id;
$$;
comment on function push.return_recipient_share(uuid, integer, push.settings) is
  'Returns what a claim reserved of the share of a recipient and does not send.';

revoke execute on all functions in schema push from public;
revoke execute on function
  public.reserve_send_slot(integer, uuid, interval)
from public, anon, authenticated;
grant execute on function
  public.reserve_send_slot(integer, uuid, interval)
to service_role;
