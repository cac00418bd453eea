-- Reports of messages and people, for moderators, and the suspension of people. A report keeps what was reported, because its sender
-- may edit or delete it afterwards. The tables are not exposed over the Data API: the functions below read and write them.

create table private.moderators (
  user_id uuid primary key references public.users (id) on delete cascade
);
comment on table private.moderators is
  'People who may call list_reports, resolve_report, suspend_user and unsuspend_user. An operator adds and removes them by SQL.';

create table private.reports (
  id uuid primary key default gen_random_uuid(),
  created_at timestamptz not null default clock_timestamp(),
  reporter_id uuid references public.users (id) on delete set null,
  reported_id uuid not null,
  reported_name text,
  reason text not null,
  details text,
  room_id uuid,
  message_id uuid,
  message text,
  attachments jsonb,
  sent_at timestamptz,
  edited_at timestamptz,
  resolved_at timestamptz,
  resolved_by uuid,
  resolution text check (resolution in ('dismissed', 'confirmed', 'removed')),
  note text,
  check (num_nulls(resolved_at, resolution) in (0, 2))
);
-- One report for each message and person; one more of another text of the same message.
create unique index idx_reports_message on private.reports (reporter_id, message_id, edited_at) nulls not distinct
  where reporter_id is not null and message_id is not null;
create unique index idx_reports_person on private.reports (reporter_id, reported_id)
  where reporter_id is not null and message_id is null and resolved_at is null;
create index idx_reports_rate on private.reports (reporter_id, created_at);
create index idx_reports_reported on private.reports (reported_id);
create index idx_reports_open on private.reports (created_at, id) where resolved_at is null;
create index idx_reports_resolved on private.reports (resolved_at) where resolved_at is not null;
comment on table private.reports is
  'What people reported. The text of the message is a copy, so an edit, a deletion and the end of an account do not change it.';
comment on column private.reports.reporter_id is 'Null: the account of the reporter was deleted.';
comment on column private.reports.reported_id is 'No foreign key, nor in the other columns: the report outlives the account, and the message.';
comment on column private.reports.message_id is 'Null: a person was reported, and not a message.';
comment on column private.reports.message is 'The text as it was when it was reported.';
comment on column private.reports.resolution is
  'dismissed: nothing is wrong; confirmed: the report is right; removed: it is right, and the message was deleted. Null: open.';

create table private.suspensions (
  user_id uuid primary key references public.users (id) on delete cascade,
  suspended_until timestamptz not null,
  suspended_by uuid,
  created_at timestamptz not null default clock_timestamp()
);
comment on table private.suspensions is 'People who may not write.';
comment on column private.suspensions.suspended_until is 'infinity: until unsuspend_user.';
comment on column private.suspensions.suspended_by is 'The moderator; null: a backend.';

-- Suspension -------------------------------------------------------------------------------------

create function private.require_not_suspended(p_user_id uuid) returns void
language plpgsql stable set search_path = '' as $$
declare
  until timestamptz;
begin
  select suspended_until into until from private.suspensions where user_id = p_user_id and suspended_until > clock_timestamp();
  if found then
    raise sqlstate 'PT403' using
      message = 'the signed-in user is suspended' || case when until < 'infinity'
        then ' until ' || to_char(until at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"') else '' end,
      detail = jsonb_build_object('suspended_until', nullif(until, 'infinity')),
      hint = 'Show it to the user. A moderator of the app has decided it; sending the message again does not help.';
  end if;
end $$;
comment on function private.require_not_suspended(uuid) is
  'Rejects what a suspended person writes: PT403, which PostgREST turns into HTTP 403. The detail has the end, or null, as JSON.';

-- Reports ----------------------------------------------------------------------------------------

create function private.store_report(p_report private.reports) returns uuid
language plpgsql set search_path = '' as $$
declare
  settings private.chat_settings;
  found_id uuid;
  again_at timestamptz;
begin
  select * into strict settings from private.chat_settings;
  if p_report.reason is null or p_report.reason <> all (settings.report_reasons) then
    raise invalid_parameter_value using
      message = 'p_reason must be one of ' || array_to_string(settings.report_reasons, ', '),
      hint = 'private.chat_settings.report_reasons has the reasons of the app.';
  end if;
  perform private.limit_bytes('p_details', p_report.details, 2000);
  -- Two reports of one person at a time could both find that the limit is not reached, or that this is the first of the message.
  perform pg_advisory_xact_lock(hashtextextended(p_report.reporter_id::text, 5));
  select id into found_id from private.reports report
  where report.reporter_id = p_report.reporter_id and report.reported_id = p_report.reported_id
    and case when p_report.message_id is null then report.message_id is null and report.resolved_at is null
      else report.message_id = p_report.message_id and report.edited_at is not distinct from p_report.edited_at end;
  if found then
    return found_id;
  end if;
  select created_at + settings.report_limit_window into again_at from private.reports
  where reporter_id = p_report.reporter_id order by created_at desc offset settings.report_limit - 1 limit 1;
  if again_at > clock_timestamp() then
    raise sqlstate 'PT429' using
      message = format('too many reports: at most %s in %s seconds',
        settings.report_limit, extract(epoch from settings.report_limit_window)::integer),
      detail = format('{"retry_after_seconds": %s}', greatest(ceil(extract(epoch from again_at - clock_timestamp())), 1)),
      hint = 'Wait for retry_after_seconds, then report it again.';
  end if;
  insert into private.reports (reporter_id, reported_id, reported_name, reason, details, room_id, message_id, message, attachments, sent_at, edited_at)
  values (p_report.reporter_id, p_report.reported_id,
    -- As text, because an existing app may have a column of another type.
    (select left(display_name::text, 2000) from public.users where id = p_report.reported_id),
    p_report.reason, p_report.details, p_report.room_id, p_report.message_id, p_report.message, p_report.attachments,
    p_report.sent_at, p_report.edited_at)
  returning id into found_id;
  return found_id;
end $$;
comment on function private.store_report(private.reports) is
  'Stores a report of reporter_id, and returns its id; of one that is there, only the id. Rejects a wrong reason, too long details (HTTP 400) '
  'and too many reports (HTTP 429).';

create function private.report_message(p_message_id uuid, p_reason text, p_details text) returns uuid
language plpgsql security definer set search_path = '' as $$
declare
  report private.reports;
  sent public.chat_messages;
begin
  select message.* into sent
  from public.chat_messages message join public.chat_rooms room on room.id = message.room_id
  where message.id = p_message_id and auth.uid() in (room.user1_id, room.user2_id) and message.sender_id <> auth.uid()
    -- What a block hides was never seen.
    and not exists (
      select from private.blocks block
      where block.blocker_id = auth.uid() and block.blocked_id = message.sender_id
        and (message.server_timestamp <@ block.during or message.edited_at::timestamptz <@ block.during)
    );
  if not found then
    raise invalid_parameter_value using
      message = 'p_message_id is not a message to the signed-in user', hint = 'Pass the id of a message that the other person sent.';
  end if;
  report.reporter_id := auth.uid();
  report.reported_id := sent.sender_id;
  report.reason := p_reason;
  report.details := p_details;
  report.room_id := sent.room_id;
  report.message_id := sent.id;
  report.message := sent.message;
  report.attachments := sent.attachments;
  report.sent_at := sent.server_timestamp;
  report.edited_at := sent.edited_at;
  if sent.deleted_at is not null then
    -- The reporter saw it before, perhaps on the lock screen.
    select message, attachments into report.message, report.attachments from private.deleted_messages where message_id = sent.id;
  end if;
  return private.store_report(report);
end $$;
comment on function private.report_message(uuid, text, text) is 'Does what public.report_message says.';

create function public.report_message(p_message_id uuid, p_reason text, p_details text default null) returns uuid
language sql set search_path = '' as $$
  select private.report_message(p_message_id, p_reason, p_details);
$$;
comment on function public.report_message(uuid, text, text) is
  'Reports a message that the caller got to the moderators, with one of the reasons of the app and perhaps details. The report keeps the text. '
  'Returns the id of the report: of the first one, if the caller has reported this text before.';

create function private.report_user(p_user_id uuid, p_reason text, p_details text) returns uuid
language plpgsql security definer set search_path = '' as $$
declare
  report private.reports;
begin
  if p_user_id = auth.uid() or not exists (select from public.users where id = p_user_id) then
    raise invalid_parameter_value using
      message = 'p_user_id is ' || case when p_user_id = auth.uid() then 'the signed-in user' else 'nobody' end,
      hint = 'Pass the id of another person.';
  end if;
  report.reporter_id := auth.uid();
  report.reported_id := p_user_id;
  report.reason := p_reason;
  report.details := p_details;
  return private.store_report(report);
end $$;
comment on function private.report_user(uuid, text, text) is 'Does what public.report_user says.';

create function public.report_user(p_user_id uuid, p_reason text, p_details text default null) returns uuid
language sql set search_path = '' as $$
  select private.report_user(p_user_id, p_reason, p_details);
$$;
comment on function public.report_user(uuid, text, text) is
  'Reports a person to the moderators, with one of the reasons of the app and perhaps details. Returns the id of the report: of the first '
  'one, if the caller has one that is open.';

-- For moderators ---------------------------------------------------------------------------------

create function private.require_moderator() returns void
language plpgsql stable set search_path = '' as $$
begin
  -- Other roles that may execute the functions are backends.
  if current_setting('role') = 'authenticated' and not exists (select from private.moderators where user_id = auth.uid()) then
    raise insufficient_privilege using
      message = 'the signed-in user is not a moderator',
      hint = 'An operator makes moderators: insert into private.moderators (user_id) values (…).';
  end if;
end $$;
comment on function private.require_moderator() is 'Rejects people who are not in private.moderators: 42501, HTTP 403.';

create function private.list_reports(
  p_state text, p_limit integer, p_after_id uuid, out id uuid, out created_at timestamptz, out reporter_id uuid, out reported_id uuid,
  out reported_name text, out reason text, out details text, out room_id uuid, out message_id uuid, out message text, out attachments jsonb,
  out sent_at timestamptz, out edited_at timestamptz, out resolved_at timestamptz, out resolved_by uuid, out resolution text, out note text,
  out reports_of_reported bigint, out suspended_until timestamptz
) returns setof record
language plpgsql stable security definer set search_path = '' as $$
begin
  perform private.require_moderator();
  if p_state is null or p_state not in ('open', 'resolved') then
    raise invalid_parameter_value using message = 'p_state must be open or resolved', hint = 'Leave it out for open.';
  end if;
  return query
  select report.id, report.created_at, report.reporter_id, report.reported_id, report.reported_name, report.reason, report.details,
    report.room_id, report.message_id, report.message, report.attachments, report.sent_at, report.edited_at,
    report.resolved_at, report.resolved_by, report.resolution, report.note,
    (select count(*) from private.reports other where other.reported_id = report.reported_id),
    (select suspension.suspended_until from private.suspensions suspension
      where suspension.user_id = report.reported_id and suspension.suspended_until > clock_timestamp())
  from private.reports report
  where (report.resolved_at is null) = (p_state = 'open')
    and (p_after_id is null or (report.created_at, report.id) > (
      select last.created_at, last.id from private.reports last where last.id = p_after_id))
  order by report.created_at, report.id
  limit least(greatest(p_limit, 1), 200);
end $$;
comment on function private.list_reports(text, integer, uuid) is 'Does what public.list_reports says.';

create function public.list_reports(
  p_state text default 'open', p_limit integer default 50, p_after_id uuid default null, out id uuid, out created_at timestamptz,
  out reporter_id uuid, out reported_id uuid, out reported_name text, out reason text, out details text, out room_id uuid, out message_id uuid,
  out message text, out attachments jsonb, out sent_at timestamptz, out edited_at timestamptz, out resolved_at timestamptz,
  out resolved_by uuid, out resolution text, out note text, out reports_of_reported bigint, out suspended_until timestamptz
) returns setof record
language sql stable set search_path = '' as $$
  select * from private.list_reports(p_state, p_limit, p_after_id);
$$;
comment on function public.list_reports(text, integer, uuid) is
  'For moderators and backends: returns a page of the reports that are open, or resolved, the oldest first. p_after_id: the last report of the page before. '
  'reports_of_reported: how many there are of that person in all. suspended_until: infinity: until unsuspend_user; null: that person may write.';

create function private.resolve_report(p_report_id uuid, p_resolution text, p_note text) returns void
language plpgsql security definer set search_path = '' as $$
declare
  report private.reports;
begin
  perform private.require_moderator();
  perform private.limit_bytes('p_note', p_note, 2000);
  select * into report from private.reports where id = p_report_id;
  if not found then
    raise invalid_parameter_value using message = 'p_report_id is no report', hint = 'Pass an id of list_reports.';
  end if;
  if p_resolution is null or p_resolution not in ('dismissed', 'confirmed', 'removed') then
    raise invalid_parameter_value using
      message = 'p_resolution must be dismissed, confirmed or removed',
      hint = 'removed deletes the message; suspend_user stops its sender.';
  end if;
  if p_resolution = 'removed' then
    if report.message_id is null then
      raise invalid_parameter_value using
        message = 'p_resolution cannot be removed: the report is about a person', hint = 'Pass confirmed; suspend_user stops the person.';
    end if;
    -- Before the report: messages are locked first.
    update public.chat_messages set deleted_at = clock_timestamp() where id = report.message_id and deleted_at is null;
  end if;
  update private.reports
  set resolved_at = clock_timestamp(), resolved_by = auth.uid(), resolution = p_resolution, note = p_note
  where id = p_report_id;
end $$;
comment on function private.resolve_report(uuid, text, text) is 'Does what public.resolve_report says.';

create function public.resolve_report(p_report_id uuid, p_resolution text, p_note text default null) returns void
language sql set search_path = '' as $$
  select private.resolve_report(p_report_id, p_resolution, p_note);
$$;
comment on function public.resolve_report(uuid, text, text) is
  'For moderators and backends: ends a report. dismissed: nothing is wrong; confirmed: the report is right; removed: it is right, and the '
  'message is deleted for both people. The report keeps its copy for private.chat_settings.report_kept_for.';

create function private.suspend_user(p_user_id uuid, p_until timestamptz) returns void
language plpgsql security definer set search_path = '' as $$
begin
  perform private.require_moderator();
  if p_user_id = auth.uid() or not exists (select from public.users where id = p_user_id) then
    raise invalid_parameter_value using
      message = 'p_user_id is ' || case when p_user_id = auth.uid() then 'the signed-in user' else 'nobody' end,
      hint = 'Pass the id of another person.';
  end if;
  if p_until <= clock_timestamp() then
    raise invalid_parameter_value using
      message = 'p_until has passed', hint = 'Pass a time in the future, or null to suspend until unsuspend_user.';
  end if;
  insert into private.suspensions (user_id, suspended_until, suspended_by) values (p_user_id, coalesce(p_until, 'infinity'), auth.uid())
  on conflict (user_id) do update
    set suspended_until = excluded.suspended_until, suspended_by = excluded.suspended_by, created_at = clock_timestamp();
end $$;
comment on function private.suspend_user(uuid, timestamptz) is 'Does what public.suspend_user says.';

create function public.suspend_user(p_user_id uuid, p_until timestamptz default null) returns void
language sql set search_path = '' as $$
  select private.suspend_user(p_user_id, p_until);
$$;
comment on function public.suspend_user(uuid, timestamptz) is
  'For moderators and backends: a person may not send or edit messages or open conversations until a time, or with null until unsuspend_user. Their app '
  'gets PT403 (HTTP 403).';

create function private.unsuspend_user(p_user_id uuid) returns void
language plpgsql security definer set search_path = '' as $$
begin
  perform private.require_moderator();
  delete from private.suspensions where user_id = p_user_id;
end $$;
comment on function private.unsuspend_user(uuid) is 'Does what public.unsuspend_user says.';

create function public.unsuspend_user(p_user_id uuid) returns void
language sql set search_path = '' as $$
  select private.unsuspend_user(p_user_id);
$$;
comment on function public.unsuspend_user(uuid) is 'For moderators and backends: the person may write again.';

revoke execute on function
  private.require_not_suspended(uuid), private.store_report(private.reports), private.report_message(uuid, text, text), private.report_user(uuid, text, text),
  private.require_moderator(), private.list_reports(text, integer, uuid), private.resolve_report(uuid, text, text),
  private.suspend_user(uuid, timestamptz), private.unsuspend_user(uuid)
from public;
revoke execute on function
  public.report_message(uuid, text, text), public.report_user(uuid, text, text), public.list_reports(text, integer, uuid),
  public.resolve_report(uuid, text, text), public.suspend_user(uuid, timestamptz), public.unsuspend_user(uuid)
from public, anon, service_role;
grant execute on function
  private.report_message(uuid, text, text), private.report_user(uuid, text, text),
  public.report_message(uuid, text, text), public.report_user(uuid, text, text)
to authenticated;
grant execute on function
  private.list_reports(text, integer, uuid), private.resolve_report(uuid, text, text), private.suspend_user(uuid, timestamptz),
  private.unsuspend_user(uuid), public.list_reports(text, integer, uuid), public.resolve_report(uuid, text, text),
  public.suspend_user(uuid, timestamptz), public.unsuspend_user(uuid)
to authenticated, service_role;
