-- What became of an accepted push: Expo's receipts, dead tokens, and the end of old rows.

alter table push.deliveries add column receipt_due_at timestamptz;
comment on column push.deliveries.receipt_due_at is
  'When Expo is to be asked (again) for the receipt; a worker that asks moves it on. Null: nothing to ask.';
create index idx_push_deliveries_receipt_due on push.deliveries (receipt_due_at) where receipt_due_at is not null;
create index idx_push_jobs_finished on push.jobs (finished_at) where state = 'done';
create index if not exists idx_devices_last_seen on public.user_devices (last_seen_at);
create index if not exists idx_presence_online on public.user_presence (updated_at) where is_online;

create function push.schedule_receipt() returns trigger
language plpgsql set search_path = '' as $$
begin
  -- Without a readable ticket there is nothing to ask for.
  new.receipt_due_at := case when new.status = 'accepted' and new.ticket_id is not null
    then new.sent_at + (select receipt_after from push.settings) end;
  return new;
end $$;
comment on function push.schedule_receipt() is 'An accepted delivery waits for its receipt, any other for none.';

create trigger schedule_receipt before insert or update of status on push.deliveries
  for each row execute function push.schedule_receipt();

-- What the circuit breaker looks at: the receipts of one run of cleanup_receipts, or the tickets of about a minute.
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
  'Receipts, or tickets, that are looked at together; held: so many tokens are dead that an operator has to look first.';
comment on column push.receipt_runs.receipts is 'Answers of Expo: receipts, or tickets.';

create table push.dead_tokens (
  run_id uuid not null references push.receipt_runs (id) on delete cascade,
  device_id uuid not null,
  push_token text not null,
  sent_at timestamptz not null,
  primary key (run_id, device_id)
);
create index idx_push_dead_tokens_device on push.dead_tokens (device_id);
comment on column push.receipt_runs.dead_receipts is
  'Answers that call the token dead; several messages to one device give several.';
comment on table push.dead_tokens is 'Devices that a run''s answers call unregistered, until the run decides.';

create function public.claim_due_receipts(p_limit integer default 1000) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  claimed jsonb;
begin
  with due as (
    select message_id, device_id from push.deliveries
    where receipt_due_at <= clock_timestamp()
    order by receipt_due_at limit least(p_limit, 1000) for update skip locked
  ), leased as (
    update push.deliveries delivery
    set receipt_due_at = clock_timestamp() + interval '2 minutes'
    from due where delivery.message_id = due.message_id and delivery.device_id = due.device_id
    returning delivery.message_id, delivery.device_id, delivery.ticket_id
  )
  select coalesce(jsonb_agg(to_jsonb(leased)), '[]') into claimed from leased;
  return claimed;
end $$;
comment on function public.claim_due_receipts(integer) is
  'Leases deliveries whose receipt is due, for two minutes: [{message_id, device_id, ticket_id}].';

create function push.next_receipt_at(p_sent_at timestamptz) returns timestamptz
language sql volatile set search_path = '' as $$
  -- After 15 minutes, 30, an hour, two …: as long again as it took so far, and last when Expo clears it.
  select case when clock_timestamp() < p_sent_at + receipt_lost_after
    then p_sent_at + least(greatest(2 * (clock_timestamp() - p_sent_at), receipt_after), receipt_lost_after) end
  from push.settings;
$$;
comment on function push.next_receipt_at(timestamptz) is 'When to ask again for a receipt; null: never, it is lost.';

create function push.requeue_delivery(p_delivery push.deliveries, p_error text, p_is_configuration_fault boolean) returns void
language plpgsql set search_path = '' as $$
begin
  p_delivery.status := 'retry';
  p_delivery.attempts := p_delivery.attempts - p_is_configuration_fault::integer;
  p_delivery.configuration_faults := p_delivery.configuration_faults + p_is_configuration_fault::integer;
  p_delivery.retry_at := clock_timestamp() + push.retry_delay(p_delivery, p_is_configuration_fault);
  update push.deliveries
  set status = p_delivery.status, error = p_error, attempts = p_delivery.attempts, configuration_faults = p_delivery.configuration_faults,
    retry_at = p_delivery.retry_at, updated_at = clock_timestamp()
  where message_id = p_delivery.message_id and device_id = p_delivery.device_id;
  -- A job that is not done sends to this device in any case.
  update push.jobs
  set state = 'pending', outcome = null, reason = null, finished_at = null, attempts = attempts - p_is_configuration_fault::integer,
    next_attempt_at = p_delivery.retry_at
  where message_id = p_delivery.message_id and state = 'done';
end $$;
comment on function push.requeue_delivery(push.deliveries, text, boolean) is
  'Puts one device of a message back into the queue, where the time to live ends it at last; a fault of the configuration takes no attempt.';

create function public.record_push_receipts(p_run_id uuid, p_receipts jsonb[]) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  receipt record;
  known push.deliveries;
  max_attempts constant integer := (select max_attempts_per_device from push.settings);
  counted jsonb := '{}';
  answered integer := 0;
  dead integer := 0;
begin
  insert into push.receipt_runs (id) values (p_run_id) on conflict (id) do nothing;
  for receipt in
    select r.* from unnest(p_receipts) reported
    cross join jsonb_to_record(reported) r (message_id uuid, device_id uuid, ticket_id text, status text, error text)
    order by r.message_id, r.device_id
  loop
    -- The job before its deliveries, as record_push_results does, so that the two never wait for each other.
    perform from push.jobs where message_id = receipt.message_id for update;
    select * into known from push.deliveries
    where message_id = receipt.message_id and device_id = receipt.device_id and ticket_id = receipt.ticket_id
      and status = 'accepted'
    for update;
    continue when not found;  -- Erased, sent anew, or recorded by another worker.

    answered := answered + (receipt.status <> 'missing')::integer;
    if receipt.status = 'missing' then
      known.receipt_due_at := push.next_receipt_at(known.sent_at);
      if known.receipt_due_at is null then
        receipt.status := 'receipt_lost';
      end if;
    elsif receipt.status = 'retry' and known.attempts >= max_attempts then
      receipt.status := 'failed';
    end if;
    counted := jsonb_set(counted, array[receipt.status],
      to_jsonb(coalesce((counted ->> receipt.status)::integer, 0) + 1));

    case receipt.status
      when 'missing' then
        update push.deliveries set receipt_due_at = known.receipt_due_at
        where message_id = known.message_id and device_id = known.device_id;
      when 'retry' then
        perform push.requeue_delivery(known, receipt.error, false);
      when 'configuration_fault' then
        perform push.requeue_delivery(known, receipt.error, true);
      else
        update push.deliveries set status = receipt.status, error = receipt.error, updated_at = clock_timestamp()
        where message_id = known.message_id and device_id = known.device_id;
    end case;

    if receipt.error = 'DeviceNotRegistered' then
      dead := dead + 1;
      insert into push.dead_tokens (run_id, device_id, push_token, sent_at)
      values (p_run_id, known.device_id, known.push_token, known.sent_at)
      on conflict (run_id, device_id) do update set push_token = excluded.push_token, sent_at = excluded.sent_at
        where excluded.sent_at > dead_tokens.sent_at;
    end if;
  end loop;
  update push.receipt_runs
  set receipts = receipts + answered, dead_receipts = dead_receipts + dead where id = p_run_id;
  return counted;
end $$;
comment on function public.record_push_receipts(uuid, jsonb[]) is
  'Records receipts; an element: {message_id, device_id, ticket_id, status, error}, status being handed_over, failed, retry, '
  'configuration_fault, missing or receipt_lost. Counts by status. Dead tokens wait for finish_receipt_run.';

create function push.deactivate_dead_devices(p_run_id uuid) returns integer
language sql set search_path = '' as $$
  select count(*) filter (where push.deactivate_device(device_id, push_token, sent_at))::integer
  from (select * from push.dead_tokens where run_id = p_run_id order by device_id) dead;
$$;
comment on function push.deactivate_dead_devices(uuid) is 'Switches off what a run found dead; returns how many devices.';

create function push.finish_run(p_run push.receipt_runs, inout deactivated integer, inout held integer)
language plpgsql set search_path = '' as $$
declare
  settings push.settings;
  devices integer;
begin
  select * into strict settings from push.settings;
  select count(*) into devices from push.dead_tokens where run_id = p_run.id;
  if devices >= settings.breaker_devices and p_run.dead_receipts > settings.breaker_share * p_run.receipts then
    update push.receipt_runs set state = 'held' where id = p_run.id;
    held := held + devices;
  else
    update push.receipt_runs set state = 'finished' where id = p_run.id;
    deactivated := deactivated + push.deactivate_dead_devices(p_run.id);
  end if;
end $$;
comment on function push.finish_run(push.receipt_runs, integer, integer) is
  'Deactivates the devices whose tokens a run found dead, unless they are suspiciously many: then the run is held. Adds to both counts.';

create function public.finish_receipt_run(p_run_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  run push.receipt_runs;
  deactivated integer := 0;
  held integer := 0;
begin
  -- And the tickets since the last run, and the runs of workers that died before they could finish them.
  for run in
    select * from push.receipt_runs
    where state = 'open'
      and (id = p_run_id or source = 'tickets' or began_at < clock_timestamp() - interval '1 hour')
    for update skip locked
  loop
    select * into deactivated, held from push.finish_run(run, deactivated, held);
  end loop;
  return jsonb_build_object('deactivated', deactivated, 'held', held);
end $$;
comment on function public.finish_receipt_run(uuid) is
  'Ends a run of receipts, and the open one of tickets: deactivates what they found dead, or holds what is suspicious.';

create function push.review_tickets(p_claimed_at timestamptz, p_results jsonb[]) returns jsonb
language plpgsql set search_path = '' as $$
declare
  run push.receipt_runs;
  tickets record;
  deactivated integer := 0;
  held integer := 0;
begin
  select count(*) as answered, count(*) filter (where d.error = 'DeviceNotRegistered') as dead into strict tickets
  from unnest(p_results) result
  cross join jsonb_to_recordset(result -> 'deliveries') d (device_id uuid, push_token text, status text, error text)
  where d.status in ('accepted', 'failed') and not push.is_held(d.device_id, d.push_token);
  -- Last in its transaction, because other workers wait for this row. Again, if one of them ended the run meanwhile.
  loop
    if tickets.dead > 0 then
      insert into push.receipt_runs (source) values ('tickets')
      on conflict (source) where source = 'tickets' and state = 'open' do nothing;
    end if;
    update push.receipt_runs set receipts = receipts + tickets.answered, dead_receipts = dead_receipts + tickets.dead
    where source = 'tickets' and state = 'open'
    returning * into run;
    exit when found or tickets.dead = 0;
  end loop;
  insert into push.dead_tokens (run_id, device_id, push_token, sent_at)
  select run.id, d.device_id, d.push_token, p_claimed_at
  from unnest(p_results) result
  cross join jsonb_to_recordset(result -> 'deliveries') d (device_id uuid, push_token text, error text)
  where d.error = 'DeviceNotRegistered' and not push.is_held(d.device_id, d.push_token)
  on conflict (run_id, device_id) do nothing;
  if run.began_at < clock_timestamp() - interval '1 minute' then
    select * into deactivated, held from push.finish_run(run, deactivated, held);
  end if;
  return jsonb_build_object('deactivated', deactivated, 'held', held);
end $$;
comment on function push.review_tickets(timestamptz, jsonb[]) is
  'Collects the devices that tickets call dead, and decides of them about once a minute, by the rule that holds for receipts.';

create function push.is_held(p_device_id uuid, p_push_token text) returns boolean
language sql stable set search_path = '' as $$
  select exists (
    select from push.dead_tokens dead join push.receipt_runs run on run.id = dead.run_id
    where dead.device_id = p_device_id and dead.push_token = p_push_token and run.state = 'held'
  );
$$;
comment on function push.is_held(uuid, text) is 'Whether an operator has yet to decide if this token of the device is dead.';

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
  'For an operator: confirms (true) or rejects (false) the switch-off that the breaker held back; returns how many went off.';

create function public.prune_push(p_limit integer default 1000) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  settings push.settings;
  now_at constant timestamptz := clock_timestamp();
  offline integer;
  unseen integer;
  devices integer;
  jobs integer;
begin
  select * into strict settings from push.settings;

  -- Arrays, which are made once: a subquery may run for each row, and lock others each time.
  update public.user_presence set is_online = false
  where user_id = any(array(
    select user_id from public.user_presence
    where is_online and updated_at < now_at - settings.presence_fresh_for
    limit p_limit for update skip locked
  ));
  get diagnostics offline = row_count;

  update public.user_devices set is_active = false
  where id = any(array(
    select id from public.user_devices
    where is_active and last_seen_at < now_at - settings.device_unseen_for
    limit p_limit for update skip locked
  ));
  get diagnostics unseen = row_count;

  delete from public.user_devices
  where id = any(array(
    select id from public.user_devices
    where not is_active and updated_at < now_at - settings.device_kept_for
      and last_seen_at < now_at - settings.device_kept_for
    limit p_limit for update skip locked
  ));
  get diagnostics devices = row_count;

  delete from push.jobs
  where message_id = any(array(
    select message_id from push.jobs
    where state = 'done' and finished_at < now_at - settings.job_kept_for
    limit p_limit for update skip locked
  ));
  get diagnostics jobs = row_count;

  delete from push.recipient_rates where greatest(free_at, queued_until) < now_at - interval '1 minute';
  delete from push.receipt_runs where state <> 'held' and began_at < now_at - settings.job_kept_for;

  return jsonb_build_object(
    'presence_offline', offline, 'devices_deactivated', unseen, 'devices_deleted', devices, 'jobs_deleted', jobs,
    'more', greatest(offline, unseen, devices, jobs) >= p_limit
  );
end $$;
comment on function public.prune_push(integer) is
  'Ends what is old, at most p_limit rows of each kind, so that no lock lasts; call it again while `more` is true.';

revoke execute on function
  push.schedule_receipt(), push.next_receipt_at(timestamptz), push.requeue_delivery(push.deliveries, text, boolean),
  push.deactivate_dead_devices(uuid), push.review_held_deactivations(uuid, boolean),
  push.finish_run(push.receipt_runs, integer, integer), push.review_tickets(timestamptz, jsonb[]),
  push.is_held(uuid, text)
from public;
revoke execute on function
  public.claim_due_receipts(integer), public.record_push_receipts(uuid, jsonb[]), public.finish_receipt_run(uuid),
  public.prune_push(integer)
from public, anon, authenticated;
grant execute on function
  public.claim_due_receipts(integer), public.record_push_receipts(uuid, jsonb[]), public.finish_receipt_run(uuid),
  public.prune_push(integer)
to service_role;
