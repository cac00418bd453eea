-- Decisions: what each device should be sent. push.decide is the decision table of docs/architecture.md, for each new message.
-- push.situations reads what the devices of a recipient should show of a conversation, and what each of them shows. push.plan_job
-- takes the difference: an alert, an update, a dismissal, a badge, or nothing. Nothing here sends or leases.
-- The functions that read and write take all jobs of a claim: one statement for a hundred jobs costs less than a hundred statements.

-- device_limit is applied here, too: rows may be older than the limit, or written while triggers were disabled.
create function push.sendable_devices(p_recipient_id uuid, p_providers text[]) returns setof public.user_devices
language plpgsql stable set search_path = '' as $$
begin
  return query
  select * from public.user_devices
  where user_id = p_recipient_id and is_active and push_token is not null
    and push_provider = any(p_providers)
  order by last_seen_at desc, id limit (select device_limit from push.settings);
end $$;
comment on function push.sendable_devices(uuid, text[]) is
  'Returns the active devices of a person that pushes can be sent to. p_providers: push.configured_providers().';

create function push.note_messages(p_jobs push.jobs[]) returns void
language plpgsql set search_path = '' as $$
begin
  -- One statement, so that no message commits between the two.
  with seen as (
    select job.id as job_id, message.id, message.server_timestamp
    from unnest(p_jobs) job join public.chat_rooms room on room.id = job.room_id
    cross join lateral (
      select id, server_timestamp from public.chat_messages
      where room_id = job.room_id and server_timestamp > job.decided_up_to
        -- No index fits this condition. With `=`, the plan also reads all messages of the conversation, or of the sender.
        and sender_id is not distinct from case job.recipient_id when room.user1_id then room.user2_id when room.user2_id then room.user1_id end
      -- More of them wait only after hours without a worker. The older ones of these are covered, but not explained.
      order by server_timestamp desc limit 1000
    ) message
  ), noted as (
    insert into push.decisions (message_id, job_id) select id, job_id from seen on conflict (message_id) do nothing
  )
  update push.jobs job set decided_up_to = newest.at
  from (select job_id, max(server_timestamp) as at from seen group by job_id) newest where job.id = newest.job_id;
end $$;
comment on function push.note_messages(push.jobs[]) is 'Adds a decision for each new message of these jobs.';

create function push.in_quiet_hours(p_people uuid[], p_at timestamptz) returns uuid[]
language plpgsql stable set search_path = '' as $$
declare
  known_zones text[];
begin
  for attempt in 1..2 loop
    begin
      return array(
        select chosen.user_id from private.notification_preferences chosen
        where chosen.user_id = any(p_people) and chosen.quiet_zone is not null
          and case when known_zones is null or chosen.quiet_zone = any(known_zones) then exists (
            select from (values (0), (1)) ago (days)
            cross join lateral (select (p_at at time zone chosen.quiet_zone)::date - ago.days as day) opening
            where extract(isodow from opening.day) = any(chosen.quiet_days)
              -- As times, not as a time of the day: a local time that a night has twice, or not at all, ends them once.
              and p_at >= (opening.day + chosen.quiet_from) at time zone chosen.quiet_zone
              and p_at < (opening.day + (chosen.quiet_until <= chosen.quiet_from)::integer + chosen.quiet_until) at time zone chosen.quiet_zone
          ) end
      );
    exception when invalid_parameter_value then
      -- The zone was known when it was set. Reading all zones takes long, so only now.
      known_zones := array(select name from pg_catalog.pg_timezone_names);
    end;
  end loop;
  return '{}';
end $$;
comment on function push.in_quiet_hours(uuid[], timestamptz) is
  'Returns those of these people in whose quiet hours a time is. They belong to the day on which they begin, and end before their end. A time '
  'zone that the database does not know any more counts as no quiet hours.';

create type push.restriction as (
  job_id bigint,
  recipient_id uuid,
  partner_id uuid,
  rule text,
  effect text,
  hidden tstzmultirange,
  preview text,
  sound text
);
comment on type push.restriction is
  'What people chose for the conversation of a job. partner_id: the other person, or null; rule: the first that applies of blocked, request, muted, snoozed and '
  'quiet_hours, or null. effect: hide, phones show nothing of the conversation; request, they show once, without a sound, that there is a message '
  'request; hold, no alert, but what they show is kept right; silence, no '
  'sound. hidden: when the recipient blocked that person; what was sent or edited then stays hidden. preview: what '
  'devices show that have no choice of their own, or request. sound: of the conversation; null: the default.';

create function push.restrictions(p_jobs push.jobs[], p_at timestamptz) returns push.restriction[]
language plpgsql stable set search_path = '' as $$
begin
  -- The precedence of what people choose: the first that applies.
  return array(select row(job.id, job.recipient_id, partner.id, first.rule,
    case when first.rule in ('blocked', 'muted') then 'hide'
      when first.rule = 'request' then 'request'
      when first.rule is not null then case person.while_quiet when 'none' then 'hold' else 'silence' end end,
    block.during, case when first.rule = 'request' then 'request' else coalesce(person.preview, 'full') end, choice.sound
  )::push.restriction
  from unnest(p_jobs) with ordinality job
  left join public.chat_rooms room on room.id = job.room_id
  -- Null for somebody who is not in the conversation any more, or whose other person is the same.
  cross join lateral (
    select nullif(case job.recipient_id when room.user1_id then room.user2_id when room.user2_id then room.user1_id end, job.recipient_id) as id
  ) partner
  cross join lateral (
    select range_agg(during) as during from private.blocks where blocker_id = job.recipient_id and blocked_id = partner.id
  ) block
  left join private.conversation_preferences choice on choice.user_id = job.recipient_id and choice.room_id = job.room_id
  left join private.notification_preferences person on person.user_id = job.recipient_id
  cross join lateral (
    select case
      when upper_inf(block.during) then 'blocked'
      when not case when room.user1_id = job.recipient_id then room.accepted_by_user1 else room.accepted_by_user2 end
        -- A subquery is read once for all jobs.
        and case (select message_requests from push.settings)
          when 'all' then true when 'except_guides' then job.recipient_id is distinct from room.guide_id end then 'request'
      when choice.muted_until > p_at then 'muted'
      when person.snoozed_until > p_at then 'snoozed'
      when job.recipient_id = any((
        select push.in_quiet_hours(array(select recipient_id from unnest(p_jobs)), p_at)
      )::uuid[]) then 'quiet_hours'
    -- offset 0 keeps it apart. Otherwise it is computed, with its subqueries, for each place where the rule is used.
    end as rule offset 0
  ) first
  order by job.ordinality);
end $$;
comment on function push.restrictions(push.jobs[], timestamptz) is 'Returns what people chose for the conversation of each of these jobs, in their order.';

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

create function push.decide(p_restrictions push.restriction[], p_at timestamptz, p_settings push.settings) returns uuid[]
language plpgsql set search_path = '' as $$
declare
  reasons jsonb;
  decided uuid[];
begin
  -- The decision table of a single message: the first condition that applies decides. What it does not decide is decided for
  -- all devices of the recipient together (push.plan_job).
  select jsonb_object_agg(message_id, reason) filter (where reason is not null) into reasons from (
    select decision.message_id, case
      -- The row of the message is missing if it was deleted.
      when message.id is null or message.deleted_at is not null then 'deleted'
      when message.sender_id is distinct from restriction.partner_id then 'left'
      when message.is_read or exists (
        select from public.message_receipts receipt
        where receipt.message_id = decision.message_id and receipt.user_id = restriction.recipient_id
          and receipt.read_at is not null
      ) then case when decision.reason = 'viewing' then 'viewing' else 'read' end
      when least(message.server_timestamp, message.created_at) <= p_at - p_settings.time_to_live then 'expired'
      when message.server_timestamp <@ restriction.hidden or message.edited_at::timestamptz <@ restriction.hidden then 'blocked'
      when restriction.effect in ('hide', 'hold') then restriction.rule
      when restriction.effect = 'request' and exists (
        select from push.decisions earlier where earlier.job_id = restriction.job_id and earlier.outcome in ('accepted', 'maybe_sent') offset 0
      ) then 'request'
    end as reason
    from unnest(p_restrictions) restriction
    cross join lateral (
      -- offset 0 keeps it apart. As a join, it may read the decisions of all jobs for each job while the table is small.
      select message_id, reason from push.decisions where job_id = restriction.job_id and outcome is null offset 0
    ) decision
    left join public.chat_messages message on message.id = decision.message_id
  ) verdict;
  if reasons is null then
    return '{}';
  end if;
  decided := array(select jsonb_object_keys(reasons));
  update push.decisions set outcome = best, reason = reasons ->> message_id::text, finished_at = clock_timestamp()
  where message_id = any(decided);
  return decided;
end $$;
comment on function push.decide(push.restriction[], timestamptz, push.settings) is
  'Ends the open decisions of these jobs about messages that must not be announced any more; returns these messages.';

-- What a device shows ----------------------------------------------------------------------------

create function push.last_delivery(p_job_id bigint, p_device_id uuid, p_is_badge boolean) returns push.deliveries
language plpgsql stable set search_path = '' as $$
begin
  return (
    select delivery from push.deliveries delivery
    where job_id = p_job_id and device_id = p_device_id and (kind = 'badge') = p_is_badge
    order by id desc limit 1
  );
end $$;
comment on function push.last_delivery(bigint, uuid, boolean) is
  'Returns the last push of a conversation to a device, whatever became of it: the last badge, or the last of the other kinds.';

-- What a device should show ----------------------------------------------------------------------

create type push.device_view as (
  device_id uuid,
  push_token text,
  platform text,
  provider text,
  environment text,
  last_seen_at timestamptz,
  preview text,
  language text,
  shown push.deliveries,
  last push.deliveries,
  last_badge push.deliveries,
  badge integer,
  dismissed_at timestamptz[],
  is_read boolean,
  shows_deleted boolean,
  has_sounded boolean
);
comment on type push.device_view is
  'A device, and what it was sent of a conversation. language: of push.languages; empty: English. shown: the last push that may have changed what it shows; if its kind is '
  'dismiss, or if there is none, it shows nothing. last: the last push, whatever became of it, except badges; last_badge: the last '
  'badge. badge and dismissed_at: of push.device_states. is_read: the person read what it shows on this device, after it arrived, '
  'so the app has removed it and set the badge. shows_deleted: it shows a message that was deleted. has_sounded: a push of this '
  'series sounded within sound_interval.';

create type push.plan as (
  job push.jobs,
  sender_id uuid,
  silenced_by text,
  sound_name text,
  viewing_until timestamptz,
  open_ids uuid[],
  open_from timestamptz,
  open_until timestamptz,
  devices push.device_view[],
  line_ids uuid[],
  newest_at timestamptz,
  expires_at timestamptz,
  unread integer,
  badge integer,
  content jsonb,
  digest text,
  finished uuid[],
  pushes jsonb[],
  read_on uuid[],
  again_at timestamptz
);
comment on type push.plan is
  'What a job should send. push.situations reads the first columns. silenced_by: the rule by which nothing sounds; sound_name: '
  'of the app, null: the default; viewing_until: when the last heartbeat gets stale by which a '
  'device of the recipient shows the conversation; open_ids: messages that devices are not told of yet, from open_from to '
  'open_until; line_ids: the newest unread messages, which it shows; badge: the unread messages of all conversations that are neither muted nor a message request nor of a blocked person. '
  'push.plan_job adds the others. finished: messages that it decided; pushes: one of push.difference for each device that is sent to '
  'now, none: the job ends for now; read_on: devices whose app has set the badge; again_at: when another device is due.';

create function push.situations(p_restrictions push.restriction[], p_at timestamptz, p_settings push.settings) returns setof push.plan
language plpgsql stable set search_path = '' as $$
declare
  providers constant text[] := push.configured_providers();
  known_languages constant text[] := array(select language from push.languages);
begin
  return query
  select job, restriction.partner_id, case when restriction.effect in ('silence', 'request') then restriction.rule when restriction.sound = 'none' then 'no_sound' end,
    nullif(restriction.sound, 'none'), presence.viewing_until, open.ids, open.first_at, open.last_at, devices.views,
    unread.line_ids, unread.newest_at, unread.expires_at, unread.number, badge.number,
    null::jsonb, null::text, '{}'::uuid[], '{}'::jsonb[], '{}'::uuid[], null::timestamptz
  from unnest(p_restrictions) with ordinality restriction
  join push.jobs job on job.id = restriction.job_id
  cross join lateral (
    -- A heartbeat that is missing, stale or in the future counts as absent: when in doubt, the push is sent.
    select max(device.updated_at) + p_settings.presence_fresh_for as viewing_until from private.device_presence device
    where device.user_id = job.recipient_id and device.is_online and device.current_conversation_id = job.room_id
      and device.updated_at > p_at - p_settings.presence_fresh_for and device.updated_at <= p_at
  ) presence
  cross join lateral (
    select coalesce(array_agg(decision.message_id order by message.server_timestamp desc), '{}') as ids,
      min(message.server_timestamp) as first_at, max(message.server_timestamp) as last_at
    from push.decisions decision join public.chat_messages message on message.id = decision.message_id
    where decision.job_id = job.id and decision.outcome is null
  ) open
  cross join lateral (
    select coalesce(array_agg(row(device.id, device.push_token, device.platform, device.push_provider, device.push_environment,
        device.last_seen_at, case when restriction.preview = 'request' then 'request' else coalesce((
          select preview from private.device_previews where user_id = device.user_id and device_id = device.device_id
        ), restriction.preview) end,
        push.language_of(device.locale, p_settings.default_language, known_languages), shown.delivery, last.delivery, last_badge.delivery, told.badge, told.dismissed_at,
        exists (
          select from public.message_receipts receipt
          where receipt.message_id = any((shown.delivery).line_ids) and receipt.user_id = device.user_id
            and receipt.read_device_id = device.device_id and receipt.read_at > (shown.delivery).answered_at
        ),
        exists (
          select from unnest((shown.delivery).line_ids) line (id) left join public.chat_messages message on message.id = line.id
          where message.id is null or message.deleted_at is not null
        ),
        -- The last push was sent last. Most are older, so the others are not read.
        coalesce((last.delivery).sent_at > p_at - p_settings.sound_interval, false) and exists (
          select from (
            -- More do not fit into the interval.
            select * from push.deliveries where job_id = job.id and device_id = device.id order by id desc limit 100
          ) delivery
          -- A push without an answer may be lost, and the next one replaces it: silence would cost all messages of an outage.
          where delivery.sound and delivery.is_accepted and delivery.sent_at > p_at - p_settings.sound_interval
            -- What was read ends a series of messages. What was deleted does not: otherwise a sender could ring again and again.
            and not exists (
              select from public.chat_messages message where message.id = delivery.line_ids[1] and message.is_read
            )
        )
      )::push.device_view order by device.last_seen_at desc, device.id), '{}') as views,
      max((shown.delivery).message_at) as shown_until
    from push.sendable_devices(job.recipient_id, providers) device
    left join push.device_states told on told.device_id = device.id
    left join lateral (
      select sent as delivery from push.deliveries sent
      where job_id = job.id and device_id = device.id and kind <> 'badge' and push_token = device.push_token
        and case kind when 'dismiss' then is_accepted
          else status not in ('retry', 'failed') or (status = 'retry' and unanswered > 0) end
      order by sent.id desc limit 1
    ) shown on true
    left join lateral (
      select sent as delivery from push.deliveries sent
      where job_id = job.id and device_id = device.id and kind <> 'badge' order by sent.id desc limit 1
    ) last on true
    left join lateral (
      select sent as delivery from push.deliveries sent
      where job_id = job.id and device_id = device.id and kind = 'badge' order by sent.id desc limit 1
    ) last_badge on true
  ) devices
  cross join lateral (
    select coalesce((array_agg(id order by at desc, id))[:3], '{}') as line_ids, max(at) as newest_at,
      max(known_at) + p_settings.time_to_live as expires_at, count(*)::integer as number
    from (
      select message.id, message.server_timestamp as at, least(message.server_timestamp, message.created_at) as known_at
      from public.chat_messages message
      where message.room_id = job.room_id and message.sender_id = restriction.partner_id and restriction.effect is distinct from 'hide'
        and message.is_read is not true and message.deleted_at is null
        and coalesce(message.server_timestamp <@ restriction.hidden or message.edited_at::timestamptz <@ restriction.hidden, false)
          is false
        -- A viewer sees new messages in the app, and quiet hours may hold them back. What devices show already is kept right.
        and message.server_timestamp <= case when presence.viewing_until is null and restriction.effect is distinct from 'hold'
          then 'infinity' else devices.shown_until end
        and least(message.server_timestamp, message.created_at) > p_at - p_settings.time_to_live
        and not exists (
          select from public.message_receipts receipt
          where receipt.message_id = message.id and receipt.user_id = job.recipient_id and receipt.read_at is not null offset 0
        )
        and not exists (
          select from push.decisions where message_id = message.id and reason = 'unreadable' offset 0
        )
      order by message.server_timestamp desc, message.id limit 100
    ) message
  ) unread
  cross join lateral (
    select coalesce(sum(case when mine.user1_id = job.recipient_id then mine.unread_count_user1 else mine.unread_count_user2 end), 0)
      ::integer as number
    from public.chat_rooms mine
    where (mine.user1_id = job.recipient_id or mine.user2_id = job.recipient_id)
      and case when mine.user1_id = job.recipient_id then mine.unread_count_user1 else mine.unread_count_user2 end > 0
      -- offset 0 keeps them apart: they are read for the few conversations with unread messages.
      and not exists (
        select from private.conversation_preferences
        where user_id = job.recipient_id and room_id = mine.id and muted_until > p_at offset 0
      )
      and not exists (
        select from private.blocks
        where blocker_id = job.recipient_id and upper_inf(during)
          and blocked_id = case when mine.user1_id = job.recipient_id then mine.user2_id else mine.user1_id end offset 0
      )
      and (p_settings.message_requests = 'none'
        or case when mine.user1_id = job.recipient_id then mine.accepted_by_user1 else mine.accepted_by_user2 end
        or (p_settings.message_requests = 'except_guides' and mine.guide_id = job.recipient_id))
  ) badge
  order by restriction.ordinality;
end $$;
comment on function push.situations(push.restriction[], timestamptz, push.settings) is
  'Returns for each of these jobs what its devices should show and what they were sent: a plan that push.plan_job completes.';

create function push.is_attempt_due(p_delivery push.deliveries, p_digest text, p_push_token text, out is_same boolean, out due_at timestamptz)
language plpgsql stable set search_path = '' as $$
begin
  is_same := coalesce(p_delivery.digest = p_digest and p_delivery.push_token = p_push_token, false);
  -- Most pushes were accepted.
  if is_same and p_delivery.status in ('sending', 'retry', 'maybe_sent') then
    select case p_delivery.status
      when 'sending' then '-infinity'
      when 'retry' then coalesce(p_delivery.retry_at, '-infinity')
      when 'maybe_sent' then case when p_delivery.unanswered <= cardinality(unanswered_retry_delays)
        then coalesce(p_delivery.retry_at, '-infinity') end
    end into due_at
    from push.settings
    -- A dismissal that is refused for a day is given up: what it would remove has expired.
    where p_delivery.created_at > now() - time_to_live;
  end if;
end $$;
comment on function push.is_attempt_due(push.deliveries, text, text) is
  'Returns whether the last push to a device had this content and token, and if so, when it is sent again; null: never.';

create function push.difference(p_plan push.plan, p_device push.device_view, p_at timestamptz, p_settings push.settings)
returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  shown constant push.deliveries := p_device.shown;
  last push.deliveries := p_device.last;
  shows boolean := coalesce(shown.kind in ('alert', 'update'), false);
  badge integer := p_device.badge;
  has_news boolean;
  may_sound boolean;
  digest text;
  kind push.kind;
  sound boolean := false;
  follow_up boolean;
  retried push.deliveries;
  is_repeated boolean := false;
  is_read boolean := false;
  attempt record;
  due_at timestamptz := '-infinity';
begin
  if shows and p_device.is_read then
    shows := false;
    is_read := true;
    badge := p_plan.badge;  -- The app has set it.
  end if;
  -- News are messages that no push of this device has covered. A viewer is not told of them.
  has_news := p_plan.viewing_until is null and p_plan.unread > 0
    and coalesce(p_plan.open_until > case when shows then shown.message_at else '-infinity' end, false);
  may_sound := coalesce(p_plan.open_until > p_at - p_settings.silent_after, false) and not p_device.has_sounded
    and p_plan.silenced_by is null;
  digest := case
    -- Another preview or language is another content.
    when p_plan.unread > 0 and (shows or has_news) then case p_device.preview
      when 'full' then p_plan.digest
      -- Further messages and edits do not change it.
      when 'request' then 'request'
      else p_plan.digest || '/' || p_device.preview end || case p_device.language when '' then '' else '@' || p_device.language end
    -- A dismissal needs the app. So a deleted text is first replaced by a neutral one, which the system shows by itself.
    -- If that one was rejected, the dismissal is left.
    when shows and shown.digest <> 'deleted' and (last.digest, last.status) is distinct from ('deleted', 'failed')
      and p_device.shows_deleted then 'deleted'
    when shows then 'dismiss'
  end;
  if digest is not null then
    if last.digest = digest and last.push_token = p_device.push_token then
      attempt := push.is_attempt_due(last, digest, p_device.push_token);
      -- A viewer is not told of new messages, also not again.
      if attempt.due_at is not null and (p_plan.viewing_until is null or last.kind <> 'alert') then
        kind := last.kind;
        -- Its worker did not report, so the push may have sounded.
        is_repeated := last.status = 'sending';
        sound := last.sound and (is_repeated or may_sound);
        retried := last;
        due_at := attempt.due_at;
      end if;
    elsif has_news then
      kind := 'alert';
      sound := may_sound;
    elsif shown.digest <> digest then
      kind := case digest when 'dismiss' then 'dismiss' else 'update' end;
    end if;
  end if;
  follow_up := digest = 'deleted';
  -- A push with a text sets the badge, too; a dismissal only on Android, whose app sets it. So an iPhone gets the badge first.
  -- While the recipient looks at the conversation, a new message sets no badge: it is read there, or an alert follows.
  if (kind is null or (kind = 'dismiss' and p_device.platform = 'ios')) and (p_plan.viewing_until is null or p_plan.open_ids = '{}')
    -- A receipt may reject a badge that was told before.
    and (badge <> p_plan.badge or (p_plan.job).is_retry)
  then
    last := p_device.last_badge;
    attempt := push.is_attempt_due(last, p_plan.badge::text, p_device.push_token);
    if attempt.due_at is not null or (badge <> p_plan.badge and (not attempt.is_same or last.is_accepted)) then
      follow_up := kind is not null;
      kind := 'badge';
      digest := p_plan.badge::text;
      sound := false;
      is_repeated := false;
      retried := null;
      due_at := '-infinity';
      if attempt.is_same and not last.is_accepted then
        retried := last;
        due_at := attempt.due_at;
      end if;
    end if;
  end if;
  if kind = 'dismiss' and p_device.platform = 'ios' then
    due_at := greatest(due_at, (
      select at + interval '1 hour' from unnest(p_device.dismissed_at) at
      where at > p_at - interval '1 hour' order by at desc offset p_settings.dismissals_per_hour - 1 limit 1
    ));
  end if;
  return case when kind is not null then jsonb_build_object(
    'device_id', p_device.device_id, 'push_token', p_device.push_token, 'platform', p_device.platform,
    'provider', p_device.provider, 'environment', p_device.environment, 'registered_at', p_device.last_seen_at,
    'kind', kind, 'sound', sound, 'preview', p_device.preview, 'language', p_device.language,
    'digest', digest, 'follow_up', follow_up, 'retried', retried.id, 'is_repeated', is_repeated, 'due_at', due_at)
    when is_read then jsonb_build_object('device_id', p_device.device_id, 'kind', null) end;
end $$;
comment on function push.difference(push.plan, push.device_view, timestamptz, push.settings) is
  'Returns the push that brings a device to the state that it should show, and when it is due; null: the device shows it, or '
  'nothing more can be done. kind null: the person has read the conversation there, so the app has set the badge. sound: unless '
  'another conversation sounds on the device. retried: the delivery that it sends again. is_repeated: the worker of that send did '
  'not report.';

create function push.plan_job(
  p_plan push.plan, p_project_url text, p_at timestamptz, p_settings push.settings, p_paused jsonb default '{}'
) returns push.plan
language plpgsql set search_path = '' as $$
declare
  plan push.plan := p_plan;
  job constant push.jobs := p_plan.job;
  device push.device_view;
  push jsonb;
  due_at timestamptz;
  exhausted text;
begin
  if plan.viewing_until is null then
    exhausted := case when job.attempts >= p_settings.max_attempts then 'attempts_exhausted'
      when job.expired_leases >= p_settings.expired_lease_limit then 'leases_expired' end;
    if exhausted is not null then
      plan.finished := push.finish_messages(job.id, exhausted);
      return plan;
    end if;
  end if;
  if plan.unread > 0 then
    plan.content := push.compose(plan.sender_id, plan.line_ids, p_project_url);
    plan.digest := md5(jsonb_build_array(plan.content, plan.unread, plan.line_ids)::text);
  end if;

  foreach device in array plan.devices loop
    push := push.difference(plan, device, p_at, p_settings);
    continue when push is null;
    if push ->> 'kind' is null then
      plan.read_on := plan.read_on || device.device_id;
      continue;
    end if;
    due_at := greatest((push ->> 'due_at')::timestamptz, (p_paused ->> device.provider)::timestamptz);
    if due_at <= p_at then
      plan.pushes := plan.pushes || push;
    else
      plan.again_at := least(plan.again_at, due_at);
    end if;
  end loop;

  if plan.viewing_until is not null then
    if plan.open_ids <> '{}' then
      update push.decisions set reason = 'viewing' where job_id = job.id and outcome is null;
      plan.again_at := least(plan.again_at, plan.viewing_until);
    end if;
  elsif plan.devices = '{}' then
    plan.finished := push.finish_messages(job.id, case when exists (
        select from public.user_devices where user_id = job.recipient_id and is_active and push_token is not null
      ) then 'provider_not_configured' else 'no_device' end);
  elsif plan.pushes = '{}' and plan.again_at is null then
    -- The devices that the messages were sent to are settled or gone.
    plan.finished := push.finish_messages(job.id, case when exists (
        select from push.decisions where job_id = job.id and outcome is null and best = 'skipped') then 'no_device' end);
  end if;
  return plan;
end $$;
comment on function push.plan_job(push.plan, text, timestamptz, push.settings, jsonb) is
  'Completes a plan of push.situations: what each device of the recipient is sent now or later. p_paused: until when a '
  'provider gets nothing. It calls functions that an app may replace, so it may raise any error.';

create function push.settle_job(p_plan push.plan) returns void
language plpgsql set search_path = '' as $$
declare
  job constant push.jobs := p_plan.job;
  shows_until timestamptz;
  due_at timestamptz;
begin
  if p_plan.unread > 0 and exists (
    select from unnest(p_plan.devices) device where (device.shown).kind in ('alert', 'update')
  ) then
    shows_until := p_plan.expires_at;
  end if;
  due_at := least(p_plan.again_at, shows_until);
  if due_at is null and not exists (
    select from public.chat_rooms where id = job.room_id and job.recipient_id in (user1_id, user2_id)
  ) then
    delete from push.jobs where id = job.id;
    return;
  end if;
  update push.jobs
  set state = case when due_at is null then 'idle' else 'pending' end::push.job_state,
    reason = case when p_plan.viewing_until = due_at then 'viewing' end,
    next_attempt_at = due_at, again_at = p_plan.again_at, expires_at = shows_until,
    attempts = case when p_plan.again_at is null then 0 else attempts end, changed_at = clock_timestamp(),
    is_retry = is_retry and p_plan.again_at is not null,
    expired_leases = 0, lease_id = null, leased_until = null, leased_revision = null
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
