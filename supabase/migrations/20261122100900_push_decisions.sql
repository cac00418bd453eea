-- Decisions: what each device should be sent. push.decide is the decision table of docs/architecture.md, for each new message.
-- push.plan_job computes what the devices of a recipient should show of a conversation, and push.difference compares that with
-- what a device shows: an alert, an update, a dismissal, a badge, or nothing. Nothing here sends or leases.

-- device_limit is applied here, too: rows may be older than the limit, or written while triggers were disabled.
create function push.sendable_devices(p_recipient_id uuid) returns setof public.user_devices
language sql stable set search_path = '' as $$
  select * from public.user_devices
  where user_id = p_recipient_id and is_active and push_token is not null
    and push_provider = any(push.configured_providers())
  order by last_seen_at desc, id limit (select device_limit from push.settings);
$$;
comment on function push.sendable_devices(uuid) is 'Returns the active devices of a person that pushes can be sent to.';

create function push.note_messages(p_job push.jobs) returns timestamptz
language sql set search_path = '' as $$
  with seen as (
    select message.id, message.server_timestamp from public.chat_messages message
    join public.chat_rooms room on room.id = message.room_id
    where message.room_id = p_job.room_id and message.server_timestamp > p_job.decided_up_to
      and message.sender_id in (room.user1_id, room.user2_id) and message.sender_id <> p_job.recipient_id
    -- More of them wait only after hours without a worker. The older ones of these are covered, but not explained.
    order by server_timestamp desc limit 1000
  ), noted as (
    insert into push.decisions (message_id, job_id) select id, p_job.id from seen on conflict (message_id) do nothing
  )
  -- One statement, so that no message commits between the two.
  select coalesce(max(server_timestamp), p_job.decided_up_to) from seen;
$$;
comment on function push.note_messages(push.jobs) is
  'Adds a decision for each new message of a job. Returns the server_timestamp up to which each message has one.';

create function push.finish_messages(p_job_id bigint, p_reason text) returns uuid[]
language sql set search_path = '' as $$
  with finished as (
    update push.decisions
    set outcome = case when p_reason = 'unreadable' and best = 'skipped' then 'failed' else best end,
      reason = p_reason, finished_at = clock_timestamp()
    where job_id = p_job_id and outcome is null
    returning message_id
  )
  select coalesce(array_agg(message_id), '{}') from finished;
$$;
comment on function push.finish_messages(bigint, text) is 'Ends all open decisions of a job for this reason; returns their messages.';

create function push.decide(p_job push.jobs, p_at timestamptz) returns uuid[]
language sql set search_path = '' as $$
  -- The decision table of a single message: the first condition that applies decides. What it does not decide is decided for
  -- all devices of the recipient together (push.plan_job).
  with decided as (
    select decision.message_id, case
      -- The row of the message is missing if it was deleted.
      when message.id is null or message.deleted_at is not null then 'deleted'
      when message.is_read or exists (
        select from public.message_receipts receipt
        where receipt.message_id = decision.message_id and receipt.user_id = p_job.recipient_id
          and receipt.read_at is not null
      ) then case when decision.reason = 'viewing' then 'viewing' else 'read' end
      when least(message.server_timestamp, message.created_at) <= p_at - settings.time_to_live then 'expired'
    end as reason
    from push.decisions decision
    cross join push.settings settings
    left join public.chat_messages message on message.id = decision.message_id
    where decision.job_id = p_job.id and decision.outcome is null
  ), finished as (
    update push.decisions decision
    set outcome = decision.best, reason = decided.reason, finished_at = clock_timestamp()
    from decided where decision.message_id = decided.message_id and decided.reason is not null
    returning decision.message_id
  )
  select coalesce(array_agg(message_id), '{}') from finished;
$$;
comment on function push.decide(push.jobs, timestamptz) is
  'Ends the open decisions of a job about messages that must not be announced any more; returns these messages.';

-- What a device shows ----------------------------------------------------------------------------

create function push.shown(p_job_id bigint, p_device_id uuid, p_push_token text) returns push.deliveries
language sql stable set search_path = '' as $$
  select delivery from push.deliveries delivery
  where job_id = p_job_id and device_id = p_device_id and kind <> 'badge' and push_token = p_push_token
    and case kind when 'dismiss' then is_accepted else status not in ('retry', 'failed') or (status = 'retry' and unanswered > 0) end
  order by id desc limit 1;
$$;
comment on function push.shown(bigint, uuid, text) is
  'Returns the last push that may have changed what a device shows of a conversation. If its kind is dismiss, or if there is '
  'none, the device shows nothing.';

create function push.last_delivery(p_job_id bigint, p_device_id uuid, p_is_badge boolean) returns push.deliveries
language sql stable set search_path = '' as $$
  select delivery from push.deliveries delivery
  where job_id = p_job_id and device_id = p_device_id and (kind = 'badge') = p_is_badge
  order by id desc limit 1;
$$;
comment on function push.last_delivery(bigint, uuid, boolean) is
  'Returns the last push of a conversation to a device, whatever became of it: the last badge, or the last of the other kinds.';

create function push.is_read_on(p_delivery push.deliveries, p_device public.user_devices) returns boolean
language sql stable set search_path = '' as $$
  select exists (
    select from public.message_receipts receipt
    where receipt.message_id = any(p_delivery.line_ids) and receipt.user_id = p_device.user_id
      and receipt.read_device_id = p_device.device_id and receipt.read_at > p_delivery.answered_at
  );
$$;
comment on function push.is_read_on(push.deliveries, public.user_devices) is
  'Returns whether the person read what this push shows on the same device, after it arrived: the app has removed it and set the badge.';

-- What a device should show ----------------------------------------------------------------------

create type push.plan as (
  job push.jobs,
  finished uuid[],
  open_ids uuid[],
  open_from timestamptz,
  open_until timestamptz,
  viewing_until timestamptz,
  line_ids uuid[],
  newest_at timestamptz,
  expires_at timestamptz,
  unread integer,
  badge integer,
  sender_id uuid,
  content jsonb,
  digest text,
  is_settled boolean,
  pushes jsonb[],
  read_on uuid[],
  again_at timestamptz
);
comment on type push.plan is
  'What a job should send. finished: messages that were decided; open_ids: messages that devices are not told of yet, from '
  'open_from to open_until; line_ids: the newest unread messages, which it shows; pushes: one of push.difference for each '
  'device that is sent to now; read_on: devices whose app has set the badge; again_at: when another device is due; is_settled: '
  'the job ends for now.';

create type push.unread as (id uuid, at timestamptz, expires_at timestamptz);

create function push.unread_messages(p_job push.jobs, p_sender_id uuid, p_until timestamptz, p_at timestamptz) returns setof push.unread
language sql stable set search_path = '' as $$
  select message.id, message.server_timestamp,
    least(message.server_timestamp, message.created_at) + settings.time_to_live
  from push.settings settings
  join public.chat_messages message on message.room_id = p_job.room_id and message.sender_id = p_sender_id
  where message.is_read is not true and message.deleted_at is null and message.server_timestamp <= p_until
    and least(message.server_timestamp, message.created_at) > p_at - settings.time_to_live
    and not exists (
      select from public.message_receipts receipt
      where receipt.message_id = message.id and receipt.user_id = p_job.recipient_id and receipt.read_at is not null
    )
    and not exists (
      select from push.decisions decision where decision.message_id = message.id and decision.reason = 'unreadable'
    )
  order by message.server_timestamp desc, message.id limit 100;
$$;
comment on function push.unread_messages(push.jobs, uuid, timestamptz, timestamptz) is
  'Returns the newest unread messages of the sender up to p_until that a notification may show: at most 100.';

create function push.badge(p_recipient_id uuid) returns integer
language sql stable set search_path = '' as $$
  select coalesce(sum(case when user1_id = p_recipient_id then unread_count_user1 else unread_count_user2 end), 0)::integer
  from public.chat_rooms where user1_id = p_recipient_id or user2_id = p_recipient_id;
$$;
comment on function push.badge(uuid) is 'Returns the unread messages of a person in all conversations: the number on the icon of the app.';

create function push.is_attempt_due(p_delivery push.deliveries, p_digest text, p_push_token text, out is_same boolean, out due_at timestamptz)
language sql stable set search_path = '' as $$
  -- A dismissal that is refused for a day is given up: what it would remove has expired.
  select same.yes, case when same.yes and p_delivery.created_at > now() - time_to_live then case p_delivery.status
    when 'sending' then '-infinity'
    when 'retry' then coalesce(p_delivery.retry_at, '-infinity')
    when 'maybe_sent' then case when p_delivery.unanswered <= cardinality(unanswered_retry_delays)
      then coalesce(p_delivery.retry_at, '-infinity') end
  end::timestamptz end
  from push.settings,
    (select coalesce(p_delivery.digest = p_digest and p_delivery.push_token = p_push_token, false) as yes) same;
$$;
comment on function push.is_attempt_due(push.deliveries, text, text) is
  'Returns whether the last push to a device had this content and token, and if so, when it is sent again; null: never.';

create function push.difference(p_plan push.plan, p_device public.user_devices, p_at timestamptz, p_settings push.settings)
returns jsonb
language plpgsql set search_path = '' as $$
declare
  job_id constant bigint := (p_plan.job).id;
  shown push.deliveries := push.shown(job_id, p_device.id, p_device.push_token);
  last push.deliveries := push.last_delivery(job_id, p_device.id, false);
  state push.device_states;
  shows boolean := coalesce(shown.kind in ('alert', 'update'), false);
  has_news boolean;
  digest text;
  kind push.kind;
  sound boolean := false;
  retried push.deliveries;
  is_repeated boolean := false;
  is_read boolean := false;
  attempt record;
  due_at timestamptz := '-infinity';
begin
  select * into state from push.device_states where device_id = p_device.id;
  if shows and push.is_read_on(shown, p_device) then
    shows := false;
    is_read := true;
    state.badge := p_plan.badge;  -- The app has set it.
  end if;
  -- News are messages that no push of this device has covered. A viewer is not told of them.
  has_news := p_plan.viewing_until is null and p_plan.unread > 0
    and coalesce(p_plan.open_until > case when shows then shown.message_at else '-infinity' end, false);
  digest := case
    when p_plan.unread > 0 and (shows or has_news) then p_plan.digest
    -- A dismissal needs the app. So a deleted text is first replaced by a neutral one, which the system shows by itself.
    -- If that one was rejected, the dismissal is left.
    when shows and shown.digest <> 'deleted' and (last.digest, last.status) is distinct from ('deleted', 'failed') and exists (
      select from unnest(shown.line_ids) line (id) left join public.chat_messages message on message.id = line.id
      where message.id is null or message.deleted_at is not null
    ) then 'deleted'
    when shows then 'dismiss'
  end;
  if digest is not null then
    attempt := push.is_attempt_due(last, digest, p_device.push_token);
    if attempt.is_same then
      -- A viewer is not told of new messages, also not again.
      if attempt.due_at is not null and (p_plan.viewing_until is null or last.kind <> 'alert') then
        kind := last.kind;
        -- Its worker did not report, so the push may have sounded.
        is_repeated := last.status = 'sending';
        sound := last.sound and (is_repeated or push.may_sound(p_plan, p_device, p_at, p_settings));
        retried := last;
        due_at := attempt.due_at;
      end if;
    elsif has_news then
      kind := 'alert';
      sound := push.may_sound(p_plan, p_device, p_at, p_settings);
    elsif shown.digest <> digest then
      kind := case digest when 'dismiss' then 'dismiss' else 'update' end;
    end if;
  end if;
  -- A push with a text sets the badge, too; a dismissal only on Android, whose app sets it. So an iPhone gets the badge first.
  -- While the recipient looks at the conversation, a new message sets no badge: it is read there, or an alert follows.
  if (kind is null or (kind = 'dismiss' and p_device.platform = 'ios')) and (p_plan.viewing_until is null or p_plan.open_ids = '{}')
    -- A receipt may reject a badge that was told before.
    and (state.badge <> p_plan.badge or (p_plan.job).is_retry)
  then
    last := push.last_delivery(job_id, p_device.id, true);
    attempt := push.is_attempt_due(last, p_plan.badge::text, p_device.push_token);
    if attempt.due_at is not null or (state.badge <> p_plan.badge and (not attempt.is_same or last.is_accepted)) then
      return jsonb_build_object('device_id', p_device.id, 'push_token', p_device.push_token, 'platform', p_device.platform,
        'provider', p_device.push_provider, 'environment', p_device.push_environment, 'registered_at', p_device.last_seen_at,
        'kind', 'badge', 'sound', false, 'digest', p_plan.badge::text, 'follow_up', kind is not null,
        'retried', case when attempt.is_same and not last.is_accepted then last.id end,
        'due_at', case when attempt.is_same and not last.is_accepted then attempt.due_at else '-infinity' end);
    end if;
  end if;
  if kind = 'dismiss' and p_device.platform = 'ios' then
    due_at := greatest(due_at, (
      select at + interval '1 hour' from unnest(state.dismissed_at) at
      where at > p_at - interval '1 hour' order by at desc offset p_settings.dismissals_per_hour - 1 limit 1
    ));
  end if;
  return case when kind is not null then jsonb_build_object(
    'device_id', p_device.id, 'push_token', p_device.push_token, 'platform', p_device.platform,
    'provider', p_device.push_provider, 'environment', p_device.push_environment, 'registered_at', p_device.last_seen_at,
    'kind', kind, 'sound', sound,
    'digest', digest, 'follow_up', digest = 'deleted', 'retried', retried.id, 'is_repeated', is_repeated, 'due_at', due_at)
    when is_read then jsonb_build_object('device_id', p_device.id, 'kind', null) end;
end $$;
comment on function push.difference(push.plan, public.user_devices, timestamptz, push.settings) is
  'Returns the push that brings a device to the state that it should show, and when it is due; null: the device shows it, or '
  'nothing more can be done. kind null: the person has read the conversation there, so the app has set the badge. retried: the '
  'delivery that it sends again. is_repeated: the worker of that send did not report.';

create function push.may_sound(p_plan push.plan, p_device public.user_devices, p_at timestamptz, p_settings push.settings)
returns boolean
language sql stable set search_path = '' as $$
  select p_plan.open_until > p_at - p_settings.silent_after and not exists (
    select from (
      -- More do not fit into the interval.
      select * from push.deliveries where job_id = (p_plan.job).id and device_id = p_device.id order by id desc limit 100
    ) delivery
    -- A push without an answer may be lost, and this one replaces it: silence would cost all messages of an outage.
    where delivery.sound and delivery.is_accepted
      and delivery.sent_at > p_at - p_settings.sound_interval
      -- What was read ends a series of messages. What was deleted does not: otherwise a sender could ring again and again.
      and not exists (
        select from public.chat_messages message where message.id = delivery.line_ids[1] and message.is_read
      )
  );
$$;
comment on function push.may_sound(push.plan, public.user_devices, timestamptz, push.settings) is
  'Returns whether a push with new messages may sound: they are not old, and none of the series sounded within sound_interval.';

create function push.plan_job(
  p_job push.jobs, p_project_url text, p_at timestamptz, p_settings push.settings, p_paused jsonb default '{}'
) returns push.plan
language plpgsql set search_path = '' as $$
declare
  plan push.plan;
  room public.chat_rooms;
  device public.user_devices;
  push jsonb;
  due_at timestamptz;
  has_devices boolean := false;
  exhausted text;
begin
  plan.job := p_job;
  plan.job.decided_up_to := push.note_messages(p_job);
  plan.finished := push.decide(p_job, p_at);
  plan.pushes := '{}';
  plan.read_on := '{}';
  plan.is_settled := true;
  select * into room from public.chat_rooms where id = p_job.room_id;
  plan.sender_id := case when room.user1_id = p_job.recipient_id then room.user2_id else room.user1_id end;
  plan.viewing_until := push.viewing_until(p_job.recipient_id, p_job.room_id, p_at);
  select array_agg(decision.message_id order by message.server_timestamp desc), min(message.server_timestamp), max(message.server_timestamp)
  into plan.open_ids, plan.open_from, plan.open_until
  from push.decisions decision join public.chat_messages message on message.id = decision.message_id
  where decision.job_id = p_job.id and decision.outcome is null;
  plan.open_ids := coalesce(plan.open_ids, '{}');

  if plan.viewing_until is null then
    exhausted := case when p_job.attempts >= p_settings.max_attempts then 'attempts_exhausted'
      when p_job.expired_leases >= p_settings.expired_lease_limit then 'leases_expired' end;
  end if;

  select coalesce(array_agg(id order by at desc, id) filter (where position <= 3), '{}'), max(at), max(expires_at), count(*)
  into plan.line_ids, plan.newest_at, plan.expires_at, plan.unread
  from push.unread_messages(p_job, plan.sender_id, case
    -- A viewer sees new messages in the app. What other devices show already is kept right.
    when plan.viewing_until is null then 'infinity'
    else coalesce((
      select max((push.shown(p_job.id, sendable.id, sendable.push_token)).message_at)
      from push.sendable_devices(p_job.recipient_id) sendable
    ), '-infinity')
  end, p_at) with ordinality unread (id, at, expires_at, position);
  if exhausted is not null then
    plan.finished := plan.finished || push.finish_messages(p_job.id, exhausted);
    return plan;
  end if;
  plan.badge := push.badge(p_job.recipient_id);
  if plan.unread > 0 then
    plan.content := push.compose(plan.sender_id, plan.line_ids, p_project_url);
    plan.digest := md5(jsonb_build_array(plan.content, plan.unread, plan.line_ids)::text);
  end if;

  for device in select * from push.sendable_devices(p_job.recipient_id) loop
    has_devices := true;
    push := push.difference(plan, device, p_at, p_settings);
    continue when push is null;
    if push ->> 'kind' is null then
      plan.read_on := plan.read_on || device.id;
      continue;
    end if;
    due_at := greatest((push ->> 'due_at')::timestamptz, (p_paused ->> device.push_provider)::timestamptz);
    if due_at <= p_at then
      plan.pushes := plan.pushes || push;
      plan.is_settled := false;
    else
      plan.again_at := least(plan.again_at, due_at);
    end if;
  end loop;

  if plan.viewing_until is not null then
    update push.decisions set reason = 'viewing' where job_id = p_job.id and outcome is null;
    if plan.open_ids <> '{}' then
      plan.again_at := least(plan.again_at, plan.viewing_until);
    end if;
  elsif not has_devices then
    plan.finished := plan.finished || push.finish_messages(p_job.id, case when exists (
        select from public.user_devices where user_id = p_job.recipient_id and is_active and push_token is not null
      ) then 'provider_not_configured' else 'no_device' end);
  elsif plan.pushes = '{}' and plan.again_at is null then
    -- The devices that the messages were sent to are settled or gone.
    plan.finished := plan.finished || push.finish_messages(p_job.id, case when exists (
        select from push.decisions where job_id = p_job.id and outcome is null and best = 'skipped') then 'no_device' end);
  end if;
  return plan;
end $$;
comment on function push.plan_job(push.jobs, text, timestamptz, push.settings, jsonb) is
  'Decides about the new messages of a job, and what each device of its recipient is sent now or later. p_paused: until when a '
  'provider gets nothing. It calls functions that an '
  'app may replace, so it may raise any error.';

create function push.settle_job(p_plan push.plan) returns void
language plpgsql set search_path = '' as $$
declare
  job constant push.jobs := p_plan.job;
  shows_until timestamptz;
  due_at timestamptz;
begin
  if p_plan.unread > 0 and exists (
    select from push.sendable_devices(job.recipient_id) device
    where (push.shown(job.id, device.id, device.push_token)).kind in ('alert', 'update')
  ) then
    shows_until := p_plan.expires_at;
  end if;
  due_at := least(p_plan.again_at, shows_until);
  if due_at is null and not exists (select from public.chat_rooms where id = job.room_id) then
    delete from push.jobs where id = job.id;
    return;
  end if;
  update push.jobs
  set state = case when due_at is null then 'idle' else 'pending' end::push.job_state,
    reason = case when p_plan.viewing_until = due_at then 'viewing' end,
    next_attempt_at = due_at, again_at = p_plan.again_at, expires_at = shows_until,
    attempts = case when p_plan.again_at is null then 0 else attempts end, changed_at = clock_timestamp(),
    is_retry = is_retry and p_plan.again_at is not null,
    expired_leases = 0, decided_up_to = job.decided_up_to, lease_id = null, leased_until = null, leased_revision = null
  where id = job.id;
end $$;
comment on function push.settle_job(push.plan) is
  'Ends a job for now, without a send: until a device is due again, or until what devices show expires, or until the next change.';

create function push.defer_job(p_job_id bigint, p_reason text, p_until timestamptz) returns void
language sql set search_path = '' as $$
  update push.jobs
  set state = 'pending', reason = p_reason, next_attempt_at = p_until, lease_id = null, leased_until = null, leased_revision = null
  where id = p_job_id;
$$;
comment on function push.defer_job(bigint, text, timestamptz) is
  'Defers a job until p_until; then a claim decides it again.';

revoke execute on all functions in schema push from public;
