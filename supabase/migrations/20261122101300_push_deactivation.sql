-- Dead tokens: the only place that decides which error of a push service deactivates a device, and when. Workers report error codes only.
-- Tickets (push.review_tickets) and receipts (record_push_receipts) go into a run (push.add_answers). When a run ends, its dead
-- tokens deactivate their devices (push.deactivate_device), unless they are suspiciously many: then the circuit breaker
-- holds the run until an operator calls push.review_held_deactivations.

create table push.receipt_runs (
  id uuid primary key default gen_random_uuid(),
  source text not null default 'receipts' check (source in ('receipts', 'tickets')),
  began_at timestamptz not null default clock_timestamp(),
  state text not null default 'open' check (state in ('open', 'finished', 'held', 'confirmed', 'rejected')),
  receipts integer not null default 0,
  dead_receipts integer not null default 0
);
create unique index idx_push_receipt_runs_open_tickets on push.receipt_runs (source)
  where source = 'tickets' and state = 'open';
comment on table push.receipt_runs is
  'Answers of Expo that the circuit breaker evaluates together: the receipts of one run of cleanup_receipts, or the tickets of '
  'about a minute. held: so many tokens are dead that an operator must decide; confirmed, rejected: the operator has decided.';
comment on column push.receipt_runs.receipts is 'Answers of Expo in this run: receipts, or tickets.';
comment on column push.receipt_runs.dead_receipts is
  'Answers that report a dead token. Several messages to one device give several answers.';

create table push.dead_tokens (
  run_id uuid not null references push.receipt_runs (id) on delete cascade,
  device_id uuid not null,
  push_token text not null,
  sent_at timestamptz not null,
  primary key (run_id, device_id)
);
create index idx_push_dead_tokens_device on push.dead_tokens (device_id);
comment on table push.dead_tokens is 'Devices whose token is dead by the answers of a run.';

create type push.answer as (device_id uuid, push_token text, sent_at timestamptz, error text);
comment on type push.answer is 'A ticket or receipt of Expo for one device; error is null without an error.';

create function push.is_dead_token(p_error text) returns boolean
language sql immutable set search_path = '' as $$
  select coalesce(p_error in (
    -- Expo: https://docs.expo.dev/push-notifications/sending-notifications/#individual-errors
    'DeviceNotRegistered',
    -- FCM: https://firebase.google.com/docs/cloud-messaging/manage-tokens
    'UNREGISTERED', 'InvalidToken', 'SENDER_ID_MISMATCH',
    -- APNs: https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns
    'Unregistered', 'ExpiredToken', 'BadDeviceToken', 'DeviceTokenNotForTopic'
  ), false);
$$;
comment on function push.is_dead_token(text) is
  'Returns whether an error of a push service means that the push token of the device is dead.';

create function push.may_be_misconfigured(p_error text) returns boolean
language sql stable set search_path = '' as $$
  select coalesce(p_error in ('SENDER_ID_MISMATCH', 'BadDeviceToken', 'DeviceTokenNotForTopic'), false) and not exists (
    select from push.providers
    where provider = case p_error when 'SENDER_ID_MISMATCH' then 'fcm' else 'apns' end
      and succeeded_at > clock_timestamp() - interval '10 minutes'
  );
$$;
comment on function push.may_be_misconfigured(text) is
  'Returns whether a dead token may be the fault of our credentials: they are of another project, app or environment than every '
  'token, because the push service has accepted nothing for 10 minutes. Such a device stays active.';

create function push.is_held(p_device_id uuid, p_push_token text) returns boolean
language sql stable set search_path = '' as $$
  select exists (
    select from push.dead_tokens dead join push.receipt_runs run on run.id = dead.run_id
    where dead.device_id = p_device_id and dead.push_token = p_push_token and run.state = 'held'
  );
$$;
comment on function push.is_held(uuid, text) is 'Returns whether the circuit breaker holds this token of the device for an operator.';

create function push.add_answers(p_run_id uuid, p_answers push.answer[]) returns void
language plpgsql set search_path = '' as $$
declare
  dead constant push.answer[] := array(select answer from unnest(p_answers) answer where push.is_dead_token(answer.error));
begin
  insert into push.dead_tokens as known (run_id, device_id, push_token, sent_at)
  select distinct on (device_id) p_run_id, device_id, push_token, sent_at
  from unnest(dead) order by device_id, sent_at desc
  on conflict (run_id, device_id) do update set push_token = excluded.push_token, sent_at = excluded.sent_at
    where excluded.sent_at > known.sent_at;
  update push.receipt_runs
  set receipts = receipts + cardinality(p_answers), dead_receipts = dead_receipts + cardinality(dead)
  where id = p_run_id;
end $$;
comment on function push.add_answers(uuid, push.answer[]) is
  'Counts answers of Expo in a run, and keeps the device and token of each that reports a dead token. The latest send counts.';

create function push.deactivate_device(p_device_id uuid, p_push_token text, p_sent_at timestamptz) returns boolean
language sql set search_path = '' as $$
  with deactivated as (
    update public.user_devices set is_active = false
    -- A locked row is skipped: its person changes it now, and must not make the workers wait.
    where id = (
      select id from public.user_devices
      where id = p_device_id and is_active and push_token = p_push_token and last_seen_at <= p_sent_at
      for no key update skip locked
    )
    returning id
  )
  select exists (select from deactivated);
$$;
comment on function push.deactivate_device(uuid, text, timestamptz) is
  'Deactivates a device whose token is dead; returns whether it did. It does not if the device has another token now, if it '
  'registered again after the send, or if its row is locked: then a later dead ticket or receipt does.';

create function push.deactivate_dead_devices(p_run_id uuid) returns integer
language sql set search_path = '' as $$
  select count(*) filter (where push.deactivate_device(device_id, push_token, sent_at))::integer
  from (select * from push.dead_tokens where run_id = p_run_id order by device_id) dead;
$$;
comment on function push.deactivate_dead_devices(uuid) is
  'Deactivates the devices with the dead tokens of a run; returns how many.';

create function push.finish_run(p_run_id uuid, out deactivated integer, out held integer)
language plpgsql set search_path = '' as $$
declare
  devices constant integer := (select count(*) from push.dead_tokens where run_id = p_run_id);
begin
  update push.receipt_runs
  set state = case
    when devices >= breaker_devices and dead_receipts > breaker_share * receipts then 'held' else 'finished'
  end
  from push.settings where id = p_run_id
  returning case state when 'held' then devices else 0 end into strict held;
  deactivated := case when held > 0 then 0 else push.deactivate_dead_devices(p_run_id) end;
end $$;
comment on function push.finish_run(uuid) is
  'Ends a run. Returns how many devices it deactivated; or, if suspiciously many tokens are dead, how many devices it holds '
  'for an operator instead.';

create function public.finish_receipt_run(p_run_id uuid) returns jsonb
language sql security definer set search_path = '' as $$
  select jsonb_build_object(
    'deactivated', coalesce(sum(ended.deactivated), 0), 'held', coalesce(sum(ended.held), 0))
  from (
    select id from push.receipt_runs
    where state = 'open'
      -- Also the tickets since the last run, and the runs of workers that died before they could finish them.
      and (id = p_run_id or source = 'tickets' or began_at < clock_timestamp() - interval '1 hour')
    for update skip locked
  ) run
  cross join lateral push.finish_run(run.id) ended;
$$;
comment on function public.finish_receipt_run(uuid) is
  'Ends a run of receipts, and the open run of tickets. Returns {deactivated, held}, numbers of devices.';

create function push.review_tickets(p_claimed_at timestamptz, p_recorded push.deliveries[]) returns jsonb
language plpgsql set search_path = '' as $$
declare
  run push.receipt_runs;
  answers push.answer[];
  has_dead boolean;
  finished record;
begin
  -- Most reports: no error, and no run that counts them.
  if not exists (select from unnest(p_recorded) where error is not null)
    and not exists (select from push.receipt_runs where source = 'tickets' and state = 'open')
  then
    return jsonb_build_object('deactivated', 0, 'held', 0);
  end if;
  answers := array(
    select row(device_id, push_token, p_claimed_at, error)::push.answer
    from unnest(p_recorded)
    where status in ('accepted', 'handed_over', 'failed') and not push.may_be_misconfigured(error)
      and not push.is_held(device_id, push_token)
  );
  has_dead := exists (select from unnest(answers) answer where push.is_dead_token(answer.error));
  -- Last in its transaction, because other workers wait for this row. The loop repeats if another worker ended the run.
  loop
    if has_dead then
      insert into push.receipt_runs (source) values ('tickets')
      on conflict (source) where source = 'tickets' and state = 'open' do nothing;
    end if;
    select * into run from push.receipt_runs where source = 'tickets' and state = 'open' for update;
    exit when found or not has_dead;
  end loop;
  perform push.add_answers(run.id, answers);
  if run.began_at < clock_timestamp() - interval '1 minute' then
    select * into strict finished from push.finish_run(run.id);
    return jsonb_build_object('deactivated', finished.deactivated, 'held', finished.held);
  end if;
  return jsonb_build_object('deactivated', 0, 'held', 0);
end $$;
comment on function push.review_tickets(timestamptz, push.deliveries[]) is
  'Adds the tickets of a report to the open run of tickets, and ends that run after a minute. The first dead token begins a '
  'run; without one, there is nothing to decide. Returns {deactivated, held}, numbers of devices.';

create function push.review_held_deactivations(p_run_id uuid, p_deactivate boolean) returns integer
language plpgsql set search_path = '' as $$
begin
  update push.receipt_runs set state = case when p_deactivate then 'confirmed' else 'rejected' end
  where id = p_run_id and state = 'held';
  if not found then
    raise no_data_found using
      message = format('no held run %s', p_run_id),
      hint = 'select * from push.receipt_runs where state = ''held'' lists them.';
  end if;
  return case when p_deactivate then push.deactivate_dead_devices(p_run_id) else 0 end;
end $$;
comment on function push.review_held_deactivations(uuid, boolean) is
  'For an operator: deactivates the devices of a run that the circuit breaker holds (true), or leaves them active (false). '
  'Returns how many devices it deactivated.';

revoke execute on all functions in schema push from public;
revoke execute on function
  public.finish_receipt_run(uuid)
from public, anon, authenticated;
grant execute on function
  public.finish_receipt_run(uuid)
to service_role;
