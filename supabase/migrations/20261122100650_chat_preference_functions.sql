-- The functions by which apps read and write what people choose. Those of the schema private have the rights of their owner, and act
-- for auth.uid() only.

create function private.lock_own_room(p_room_id uuid) returns void
language plpgsql set search_path = '' as $$
begin
  -- A message that is inserted meanwhile waits for this lock, so a claim decides it by the new choice.
  perform from public.chat_rooms where id = p_room_id and auth.uid() in (user1_id, user2_id) for no key update;
  if not found then
    raise invalid_parameter_value using
      message = 'p_room_id is not a conversation of the signed-in user', hint = 'Pass the id of one of their conversations.';
  end if;
end $$;
comment on function private.lock_own_room(uuid) is 'Locks a conversation of the caller; rejects any other: 22023, HTTP 400.';

create function private.mute_conversation(p_room_id uuid, p_until timestamptz) returns void
language plpgsql security definer set search_path = '' as $$
begin
  if p_until <= clock_timestamp() then
    raise invalid_parameter_value using
      message = 'p_until has passed', hint = 'Pass a time in the future, or null to mute until unmute_conversation.';
  end if;
  perform private.lock_own_room(p_room_id);
  insert into private.conversation_preferences (user_id, room_id, muted_until)
  values (auth.uid(), p_room_id, coalesce(p_until, 'infinity'))
  on conflict (user_id, room_id) do update set muted_until = excluded.muted_until;
end $$;
comment on function private.mute_conversation(uuid, timestamptz) is 'Does what public.mute_conversation says.';

create function public.mute_conversation(p_room_id uuid, p_until timestamptz default null) returns void
language sql set search_path = '' as $$
  select private.mute_conversation(p_room_id, p_until);
$$;
comment on function public.mute_conversation(uuid, timestamptz) is
  'Mutes a conversation for the caller until a time, or with null until unmute_conversation: it makes no notification and does not count '
  'in the badge, and what phones show of it is removed. It stays unread in the app.';

create function private.unmute_conversation(p_room_id uuid) returns void
language plpgsql security definer set search_path = '' as $$
begin
  perform private.lock_own_room(p_room_id);
  update private.conversation_preferences set muted_until = null where user_id = auth.uid() and room_id = p_room_id;
end $$;
comment on function private.unmute_conversation(uuid) is 'Does what public.unmute_conversation says.';

create function public.unmute_conversation(p_room_id uuid) returns void
language sql set search_path = '' as $$
  select private.unmute_conversation(p_room_id);
$$;
comment on function public.unmute_conversation(uuid) is
  'Ends the muting of a conversation for the caller. Its unread messages count in the badge again; only later ones make a notification.';

create function private.set_conversation_sound(p_room_id uuid, p_sound text) returns void
language plpgsql security definer set search_path = '' as $$
begin
  if p_sound !~ '^[a-z][a-z0-9_]{0,39}$' then
    raise invalid_parameter_value using
      message = 'p_sound must be the name of a sound of the app, or none',
      hint = 'A name has up to 40 characters a to z, 0 to 9 and _, and begins with a letter. Pass null for the default sound.';
  end if;
  perform private.lock_own_room(p_room_id);
  insert into private.conversation_preferences (user_id, room_id, sound) values (auth.uid(), p_room_id, nullif(p_sound, 'default'))
  on conflict (user_id, room_id) do update set sound = excluded.sound;
end $$;
comment on function private.set_conversation_sound(uuid, text) is 'Does what public.set_conversation_sound says.';

create function public.set_conversation_sound(p_room_id uuid, p_sound text default null) returns void
language sql set search_path = '' as $$
  select private.set_conversation_sound(p_room_id, p_sound);
$$;
comment on function public.set_conversation_sound(uuid, text) is
  'Sets the sound of a conversation for the caller: none, or the name of a sound of the app; null or default: the default sound.';

create function private.accept_conversation(p_room_id uuid) returns void
language plpgsql security definer set search_path = '' as $$
begin
  perform private.lock_own_room(p_room_id);
  update public.chat_rooms
  set accepted_by_user1 = accepted_by_user1 or user1_id is not distinct from auth.uid(),
    accepted_by_user2 = accepted_by_user2 or user2_id is not distinct from auth.uid()
  where id = p_room_id;
end $$;
comment on function private.accept_conversation(uuid) is 'Does what public.accept_conversation says.';

create function public.accept_conversation(p_room_id uuid) returns void
language sql set search_path = '' as $$
  select private.accept_conversation(p_room_id);
$$;
comment on function public.accept_conversation(uuid) is
  'Accepts a conversation for the caller, as an answer does: it is no message request any more. What phones show is replaced by name and text, later '
  'messages ring, and its messages count in the badge. When both people have accepted it, each sees the presence of the other.';

-- Blocks -----------------------------------------------------------------------------------------

create function private.lock_rooms_with(p_user_id uuid) returns uuid[]
language sql set search_path = '' as $$
  select array(
    select id from public.chat_rooms
    where (user1_id = auth.uid() and user2_id = p_user_id) or (user1_id = p_user_id and user2_id = auth.uid())
    order by id for no key update
  );
$$;
comment on function private.lock_rooms_with(uuid) is
  'Locks the conversations of the caller with a person, and returns them. Older databases may have several of two people.';

create function private.block_user(p_user_id uuid) returns void
language plpgsql security definer set search_path = '' as $$
begin
  if p_user_id = auth.uid() then
    raise invalid_parameter_value using
      message = 'p_user_id is the signed-in user', hint = 'Pass the id of another person.';
  end if;
  perform private.lock_rooms_with(p_user_id);
  begin
    insert into private.blocks (blocker_id, blocked_id, during) values (auth.uid(), p_user_id, tstzrange(clock_timestamp(), null))
    on conflict (blocker_id, blocked_id) where upper_inf(during) do nothing;
  exception when foreign_key_violation or not_null_violation then
    raise invalid_parameter_value using
      message = 'p_user_id is nobody', hint = 'Pass the id of a person of this app.';
  end;
end $$;
comment on function private.block_user(uuid) is 'Does what public.block_user says.';

create function public.block_user(p_user_id uuid) returns void
language sql set search_path = '' as $$
  select private.block_user(p_user_id);
$$;
comment on function public.block_user(uuid) is
  'Blocks a person for the caller, who gets nothing more of them: no message, no push, no mark, no event. Their conversation is not listed, and '
  'what phones show of it is removed. The blocked person does not notice: messages are stored as before, and stay undelivered and unread.';

create function private.unblock_user(p_user_id uuid) returns void
language plpgsql security definer set search_path = '' as $$
declare
  rooms constant uuid[] := private.lock_rooms_with(p_user_id);
  ended tstzrange;
begin
  update private.blocks set during = tstzrange(lower(during), greatest(clock_timestamp(), lower(during)))
  where blocker_id = auth.uid() and blocked_id = p_user_id and upper_inf(during)
  returning during into ended;
  if not found then
    return;
  end if;
  -- A block that hides nothing is not kept: blocking again and again leaves no rows.
  delete from private.blocks
  where blocker_id = auth.uid() and blocked_id = p_user_id and during = ended and not exists (
    select from public.chat_messages message
    where message.room_id = any(rooms) and message.changed_at >= lower(ended) and message.sender_id = p_user_id
      and (message.server_timestamp <@ ended or message.edited_at::timestamptz <@ ended)
  );
  perform private.recount_rooms(rooms);
end $$;
comment on function private.unblock_user(uuid) is 'Does what public.unblock_user says.';

create function public.unblock_user(p_user_id uuid) returns void
language sql set search_path = '' as $$
  select private.unblock_user(p_user_id);
$$;
comment on function public.unblock_user(uuid) is
  'Ends the block of a person. What they sent or edited while it lasted stays hidden from the caller.';

create function private.my_blocked_users(out user_id uuid, out blocked_at timestamptz) returns setof record
language sql stable security definer set search_path = '' as $$
  select blocked_id, lower(during) from private.blocks
  where blocker_id = auth.uid() and upper_inf(during) order by lower(during) desc, blocked_id;
$$;
comment on function private.my_blocked_users() is 'Does what public.my_blocked_users says.';

create function public.my_blocked_users(out user_id uuid, out blocked_at timestamptz) returns setof record
language sql stable set search_path = '' as $$
  select user_id, blocked_at from private.my_blocked_users();
$$;
comment on function public.my_blocked_users() is 'Returns the people whom the caller blocks, the newest block first.';

-- Snooze and quiet hours -------------------------------------------------------------------------

create function private.quiet_hours_of(p_quiet_hours jsonb) returns private.notification_preferences
language plpgsql stable set search_path = '' as $$
declare
  quiet private.notification_preferences;
  fault text;
begin
  if jsonb_typeof(p_quiet_hours) = 'null' then
    return quiet;
  end if;
  fault := case
    when jsonb_typeof(p_quiet_hours) <> 'object' then 'quiet_hours must be an object or null'
    when p_quiet_hours - '{zone,from,until,days}'::text[] <> '{}' then format('quiet_hours has no field %s',
      (select key from jsonb_object_keys(p_quiet_hours - '{zone,from,until,days}'::text[]) key order by 1 limit 1))
    when p_quiet_hours ->> 'from' !~ '^([01]\d|2[0-3]):[0-5]\d$' or p_quiet_hours ->> 'from' is null
      then 'quiet_hours.from must be a time such as 22:00'
    when p_quiet_hours ->> 'until' !~ '^(([01]\d|2[0-3]):[0-5]\d|24:00)$' or p_quiet_hours ->> 'until' is null
      then 'quiet_hours.until must be a time such as 07:00, or 24:00'
    when p_quiet_hours ->> 'from' = p_quiet_hours ->> 'until' then 'quiet_hours.until must differ from quiet_hours.from'
    when p_quiet_hours ? 'days' and not coalesce(jsonb_typeof(p_quiet_hours -> 'days') = 'array'
      and p_quiet_hours -> 'days' <> '[]' and p_quiet_hours -> 'days' <@ '[1,2,3,4,5,6,7]', false)
      then 'quiet_hours.days must be an array of weekdays from 1 (Monday) to 7'
    when not exists (select from pg_catalog.pg_timezone_names where name = p_quiet_hours ->> 'zone' and name ~ '^[A-Z]\w+(/|$)')
      then 'quiet_hours.zone is not a time zone of the IANA database'
  end;
  if fault is not null then
    raise invalid_parameter_value using
      message = fault,
      hint = 'Pass {"zone": "Europe/Berlin", "from": "22:00", "until": "07:00", "days": [1, 2, 3, 4, 5]}, without days for every day, or null.';
  end if;
  quiet.quiet_zone := p_quiet_hours ->> 'zone';
  quiet.quiet_from := p_quiet_hours ->> 'from';
  quiet.quiet_until := p_quiet_hours ->> 'until';
  quiet.quiet_days := array(
    select distinct day::numeric::smallint from jsonb_array_elements_text(coalesce(p_quiet_hours -> 'days', '[1,2,3,4,5,6,7]')) day order by 1);
  return quiet;
end $$;
comment on function private.quiet_hours_of(jsonb) is
  'Returns quiet hours of an app as columns; rejects wrong ones with the name of the field: 22023, HTTP 400.';

create function private.set_notification_preferences(p_preferences jsonb) returns void
language plpgsql security definer set search_path = '' as $$
declare
  fault text;
  quiet private.notification_preferences;
  snooze timestamptz;
begin
  fault := case
    when jsonb_typeof(p_preferences) is distinct from 'object' then 'p_preferences must be an object'
    when p_preferences - '{snoozed_until,quiet_hours,while_quiet,preview}'::text[] <> '{}' then format('p_preferences has no field %s',
      (select key from jsonb_object_keys(p_preferences - '{snoozed_until,quiet_hours,while_quiet,preview}'::text[]) key order by 1 limit 1))
    when p_preferences ? 'while_quiet' and not coalesce(p_preferences ->> 'while_quiet' in ('silent', 'none'), false)
      then 'while_quiet must be silent or none'
    when p_preferences ? 'preview' and not coalesce(p_preferences ->> 'preview' in ('full', 'name', 'none'), false)
      then 'preview must be full, name or none'
    when p_preferences ->> 'snoozed_until' !~ '^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d)?)$'
      then 'snoozed_until must be a time with an offset, such as 2026-11-26T08:00:00Z'
  end;
  if fault is null then
    begin
      snooze := p_preferences ->> 'snoozed_until';
      fault := case when snooze <= clock_timestamp() then 'snoozed_until has passed' end;
    exception when data_exception then
      fault := 'snoozed_until is not a time that exists';
    end;
  end if;
  if fault is not null then
    raise invalid_parameter_value using
      message = fault, hint = 'Fields: snoozed_until, quiet_hours, while_quiet, preview. One that is left out stays as it is; null removes it.';
  end if;
  insert into private.notification_preferences (user_id) values (auth.uid()) on conflict (user_id) do nothing;
  if p_preferences ? 'quiet_hours' then
    quiet := private.quiet_hours_of(p_preferences -> 'quiet_hours');
    update private.notification_preferences
    set (quiet_zone, quiet_from, quiet_until, quiet_days)
      = row(quiet.quiet_zone, quiet.quiet_from, quiet.quiet_until, quiet.quiet_days)
    where user_id = auth.uid();
  end if;
  update private.notification_preferences preferences
  set snoozed_until = case when p_preferences ? 'snoozed_until' then snooze else preferences.snoozed_until end,
    while_quiet = coalesce(p_preferences ->> 'while_quiet', preferences.while_quiet),
    preview = coalesce(p_preferences ->> 'preview', preferences.preview)
  where user_id = auth.uid();
end $$;
comment on function private.set_notification_preferences(jsonb) is 'Does what public.set_notification_preferences says.';

create function public.set_notification_preferences(p_preferences jsonb) returns void
language sql set search_path = '' as $$
  select private.set_notification_preferences(p_preferences);
$$;
comment on function public.set_notification_preferences(jsonb) is
  'Changes what the caller chose for all conversations; a field that is left out stays. snoozed_until: a time, or null. quiet_hours: '
  '{zone, from, until, days}, or null. while_quiet: silent (notifications without a sound) or none. preview: full, name or none; '
  'what phones show is replaced. A wrong field is rejected (22023) '
  'with its name, and nothing changes.';

create function private.set_device_preview(p_device_id text, p_preview text) returns void
language plpgsql security definer set search_path = '' as $$
begin
  if p_preview not in ('full', 'name', 'none') then
    raise invalid_parameter_value using
      message = 'p_preview must be full, name or none', hint = 'Pass null for what set_notification_preferences says.';
  end if;
  perform from public.user_devices where user_id = auth.uid() and device_id = p_device_id for key share;
  if not found then
    raise invalid_parameter_value using
      message = 'p_device_id is not a device of the signed-in user', hint = 'Register the device first: POST /api/push/register.';
  end if;
  if p_preview is null then
    delete from private.device_previews where user_id = auth.uid() and device_id = p_device_id;
  else
    insert into private.device_previews (user_id, device_id, preview) values (auth.uid(), p_device_id, p_preview)
    on conflict (user_id, device_id) do update set preview = excluded.preview;
  end if;
end $$;
comment on function private.set_device_preview(text, text) is 'Does what public.set_device_preview says.';

create function public.set_device_preview(p_device_id text, p_preview text default null) returns void
language sql set search_path = '' as $$
  select private.set_device_preview(p_device_id, p_preview);
$$;
comment on function public.set_device_preview(text, text) is
  'Sets what notifications on a device of the caller show: full, name or none; null: what set_notification_preferences says. What the device '
  'shows is replaced.';

-- All of it --------------------------------------------------------------------------------------

create function private.my_notification_preferences() returns jsonb
language sql stable security definer set search_path = '' as $$
  select jsonb_build_object(
    'muted', coalesce((
      select jsonb_agg(jsonb_build_object('room_id', room_id, 'until', nullif(muted_until, 'infinity')) order by room_id)
      from private.conversation_preferences where user_id = auth.uid() and muted_until > clock_timestamp()
    ), '[]'),
    'sounds', coalesce((
      select jsonb_object_agg(room_id, sound) from private.conversation_preferences where user_id = auth.uid() and sound is not null
    ), '{}'),
    'snoozed_until', case when chosen.snoozed_until > clock_timestamp() then chosen.snoozed_until end,
    'quiet_hours', case when chosen.quiet_zone is not null then jsonb_build_object('zone', chosen.quiet_zone,
      'from', left(chosen.quiet_from::text, 5), 'until', left(chosen.quiet_until::text, 5), 'days', chosen.quiet_days) end,
    'while_quiet', coalesce(chosen.while_quiet, 'silent'),
    'preview', coalesce(chosen.preview, 'full'),
    'device_previews', coalesce((
      select jsonb_object_agg(device_id, preview) from private.device_previews where user_id = auth.uid()
    ), '{}')
  )
  from (select) one left join private.notification_preferences chosen on chosen.user_id = auth.uid();
$$;
comment on function private.my_notification_preferences() is 'Does what public.my_notification_preferences says.';

create function public.my_notification_preferences() returns jsonb
language sql stable set search_path = '' as $$
  select private.my_notification_preferences();
$$;
comment on function public.my_notification_preferences() is
  'Returns what the caller chose: muted, the conversations that are muted now, [{room_id, until}]. until null: until unmute_conversation; '
  'snoozed_until, quiet_hours, while_quiet and preview as set_notification_preferences takes them; device_previews, {device_id: preview} of '
  'devices that differ; sounds, {room_id: sound}.';

revoke execute on function private.lock_own_room(uuid), private.mute_conversation(uuid, timestamptz),
  private.unmute_conversation(uuid), private.set_conversation_sound(uuid, text), private.accept_conversation(uuid), private.lock_rooms_with(uuid), private.block_user(uuid), private.unblock_user(uuid),
  private.my_blocked_users(), private.quiet_hours_of(jsonb), private.set_notification_preferences(jsonb), private.set_device_preview(text, text),
  private.my_notification_preferences()
from public;
revoke execute on function public.mute_conversation(uuid, timestamptz), public.unmute_conversation(uuid), public.set_conversation_sound(uuid, text), public.accept_conversation(uuid), public.block_user(uuid),
  public.unblock_user(uuid), public.my_blocked_users(), public.set_notification_preferences(jsonb), public.set_device_preview(text, text),
  public.my_notification_preferences()
from public, anon, service_role;
grant execute on function private.mute_conversation(uuid, timestamptz), private.unmute_conversation(uuid), private.set_conversation_sound(uuid, text), private.accept_conversation(uuid), private.block_user(uuid),
  private.unblock_user(uuid), private.my_blocked_users(), private.set_notification_preferences(jsonb), private.set_device_preview(text, text), private.my_notification_preferences(),
  public.mute_conversation(uuid, timestamptz), public.unmute_conversation(uuid), public.set_conversation_sound(uuid, text), public.accept_conversation(uuid), public.block_user(uuid),
  public.unblock_user(uuid), public.my_blocked_users(), public.set_notification_preferences(jsonb), public.set_device_preview(text, text),
  public.my_notification_preferences()
to authenticated;
