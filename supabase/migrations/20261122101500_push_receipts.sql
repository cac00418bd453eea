-- Receipts: an accepted delivery waits for its receipt (push.schedule_receipt). cleanup_receipts claims those that are due, asks
-- Expo and records the answers: handed over, failed, sent again, or asked again later. Dead tokens go into the run.

alter table push.deliveries add column receipt_due_at timestamptz;
comment on column push.deliveries.receipt_due_at is
  'When Expo is asked for the receipt; a worker that asks moves it two minutes on. Null: there is none to ask for.';
create index idx_push_deliveries_receipt_due on push.deliveries (receipt_due_at) where receipt_due_at is not null;

create function push.schedule_receipt() returns trigger
language plpgsql set search_path = '' as $$
begin
  -- Without a readable ticket id, no receipt can be asked for.
  new.receipt_due_at := case when new.status = 'accepted' and new.ticket_id is not null
    then new.sent_at + (select receipt_after from push.settings) end;
  return new;
end $$;
comment on function push.schedule_receipt() is
  'Sets when the receipt of an accepted delivery is due, and clears it for each other status.';

create trigger schedule_receipt before insert or update of status on push.deliveries
  for each row when (new.status = 'accepted' or new.receipt_due_at is not null) execute function push.schedule_receipt();

create function public.claim_due_receipts(p_limit integer default 1000) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  claimed jsonb;
begin
  with due as (
    select id from push.deliveries
    where receipt_due_at <= clock_timestamp()
    order by receipt_due_at limit least(p_limit, 1000) for update skip locked
  ), leased as (
    update push.deliveries delivery
    set receipt_due_at = clock_timestamp() + interval '2 minutes'
    from due where delivery.id = due.id
    returning delivery.id as delivery_id, coalesce(delivery.line_ids[1], delivery.message_ids[1]) as message_id, delivery.ticket_id
  )
  select coalesce(jsonb_agg(to_jsonb(leased)), '[]') into claimed from leased;
  return claimed;
end $$;
comment on function public.claim_due_receipts(integer) is
  'Leases deliveries whose receipt is due for two minutes, the longest waiting first. Returns [{delivery_id, '
  'message_id (the newest message that it shows, or null), ticket_id}].';

create function push.next_receipt_at(p_sent_at timestamptz) returns timestamptz
language sql volatile set search_path = '' as $$
  -- After 15 minutes, 30, an hour, two …: the time since the send doubles. The last request is when Expo deletes it.
  select case when clock_timestamp() < p_sent_at + receipt_lost_after
    then p_sent_at + least(greatest(2 * (clock_timestamp() - p_sent_at), receipt_after), receipt_lost_after) end
  from push.settings;
$$;
comment on function push.next_receipt_at(timestamptz) is
  'Returns when to ask for a receipt again that is not there yet; null: never, because Expo has deleted it.';

create function push.requeue_delivery(p_delivery push.deliveries, p_error text, p_is_configuration_fault boolean) returns void
language plpgsql set search_path = '' as $$
begin
  p_delivery.status := 'retry';
  p_delivery.attempts := p_delivery.attempts - p_is_configuration_fault::integer;
  p_delivery.configuration_faults := p_delivery.configuration_faults + p_is_configuration_fault::integer;
  p_delivery.retry_at := push.retry_at(p_delivery, p_is_configuration_fault);
  update push.deliveries
  set status = p_delivery.status, error = p_error, attempts = p_delivery.attempts,
    configuration_faults = p_delivery.configuration_faults, retry_at = p_delivery.retry_at, updated_at = clock_timestamp()
  where id = p_delivery.id;
  -- A later push has replaced this one, and its receipt counts.
  if (push.last_delivery(p_delivery.job_id, p_delivery.device_id, p_delivery.kind = 'badge')).id > p_delivery.id then
    return;
  end if;
  update push.decisions decision
  set outcome = null, reason = null, finished_at = null, best = (
    select max(case when sent.is_accepted then 'accepted' when sent.unanswered > 0 then 'maybe_sent' else 'failed' end::push.outcome)
    from push.deliveries sent where sent.job_id = decision.job_id and decision.message_id = any(sent.message_ids)
  )
  where message_id = any(p_delivery.message_ids) and outcome = 'accepted' and reason is null;
  -- A leased job ends with again_at.
  update push.jobs
  set state = case state when 'leased' then state else 'pending' end,
    next_attempt_at = case state when 'pending' then least(next_attempt_at, p_delivery.retry_at) else p_delivery.retry_at end,
    again_at = least(again_at, p_delivery.retry_at), is_retry = true
  where id = p_delivery.job_id;
end $$;
comment on function push.requeue_delivery(push.deliveries, text, boolean) is
  'Makes a push due again for one device, unless a later one has replaced it. A configuration fault does not count as an attempt.';

create function push.record_receipt(p_reported jsonb, out status text, out answer push.answer)
language plpgsql set search_path = '' as $$
declare
  receipt record;
  delivery push.deliveries;
  due_at timestamptz;
begin
  select * into strict receipt from jsonb_to_record(p_reported) r (delivery_id bigint, ticket_id text, status text, error text);
  -- The job is locked before its deliveries, in the order of record_push_results, so that the two do not deadlock.
  perform from push.jobs where id = (select job_id from push.deliveries where id = receipt.delivery_id) for update;
  select * into delivery from push.deliveries sent
  where sent.id = receipt.delivery_id and sent.ticket_id = receipt.ticket_id and sent.status = 'accepted'
  for update;
  if not found then
    return;  -- It was deleted, sent again, or recorded by another worker.
  end if;

  status := receipt.status;
  if status = 'missing' then
    due_at := push.next_receipt_at(delivery.sent_at);
    if due_at is null then
      status := 'receipt_lost';
    end if;
  else
    answer := row(delivery.device_id, delivery.push_token, delivery.sent_at, receipt.error);
    if status = 'retry' and delivery.attempts >= (select max_attempts_per_device from push.settings) then
      status := 'failed';
    end if;
  end if;

  case status
    when 'missing' then
      update push.deliveries set receipt_due_at = due_at where id = delivery.id;
    when 'retry', 'configuration_fault' then
      perform push.requeue_delivery(delivery, receipt.error, status = 'configuration_fault');
    else
      update push.deliveries answered
      set status = record_receipt.status, error = receipt.error, updated_at = clock_timestamp()
      where id = delivery.id;
  end case;
end $$;
comment on function push.record_receipt(jsonb) is
  'Records one receipt. Returns its status (null: there is nothing to record), and what Expo answered about the token of the device (null: nothing).';

create function public.record_push_receipts(p_run_id uuid, p_receipts jsonb[]) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  reported jsonb;
  recorded record;
  statuses text[] := '{}';
  answers push.answer[] := '{}';
begin
  insert into push.receipt_runs (id) values (p_run_id) on conflict (id) do nothing;
  for reported in
    select receipt from unnest(p_receipts) with ordinality reported (receipt, position)
    left join push.deliveries sent on sent.id = (receipt ->> 'delivery_id')::bigint
    left join push.jobs job on job.id = sent.job_id
    order by job.room_id, job.recipient_id, sent.id, position
  loop
    begin
      recorded := push.record_receipt(reported);
      statuses := statuses || recorded.status;
      answers := answers || case when recorded.answer is null then '{}' else array[recorded.answer] end;
    exception when others then
      -- One receipt that cannot be recorded must not prevent the others. It is asked for again in two minutes.
      raise warning 'Chat Push: the receipt of delivery % cannot be recorded: SQLSTATE %', reported ->> 'delivery_id', sqlstate;
      statuses := statuses || 'unrecorded'::text;
    end;
  end loop;
  perform push.add_answers(p_run_id, answers);
  return coalesce(
    (select jsonb_object_agg(status, receipts) from (
      select status, count(*) as receipts from unnest(statuses) status where status is not null group by status
    ) counted), '{}');
end $$;
comment on function public.record_push_receipts(uuid, jsonb[]) is
  'Records receipts in a run. An element of p_receipts: {delivery_id, ticket_id, status, error}; status is '
  'handed_over, failed, retry, configuration_fault, missing or receipt_lost. Returns the counts by status, and of those that cannot be '
  'recorded as unrecorded. finish_receipt_run '
  'deactivates the devices whose tokens are dead. Safe to repeat.';

revoke execute on all functions in schema push from public;
revoke execute on function
  public.claim_due_receipts(integer),
  public.record_push_receipts(uuid, jsonb[])
from public, anon, authenticated;
grant execute on function
  public.claim_due_receipts(integer),
  public.record_push_receipts(uuid, jsonb[])
to service_role;
