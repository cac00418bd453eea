-- Presence: what each device of a person has on its screen. Devices report it by report_presence; user_presence, which apps
-- read, is the sum of the devices. An app that writes user_presence itself counts as one more device. All times are the server's.

create table private.device_presence (
  user_id uuid not null references public.users (id) on delete cascade,
  device_id text not null,
  is_online boolean not null,
  current_conversation_id uuid,
  updated_at timestamptz not null,
  primary key (user_id, device_id)
) with (fillfactor = 70);
comment on table private.device_presence is 'The last heartbeat of each device. A heartbeat counts for push.settings.presence_fresh_for.';
comment on column private.device_presence.device_id is
  'user_devices.device_id; empty: an app that writes user_presence itself.';

create function private.sum_presence(p_user_id uuid, out is_online boolean, out current_conversation_id uuid)
language sql stable set search_path = '' as $$
  select coalesce(bool_or(device.is_online), false),
    (array_agg(device.current_conversation_id order by device.updated_at desc)
      filter (where device.is_online and device.current_conversation_id is not null))[1]
  from private.device_presence device, push.settings
  where device.user_id = p_user_id and device.updated_at > clock_timestamp() - presence_fresh_for;
$$;
comment on function private.sum_presence(uuid) is
  'Returns whether any device of a person is online, and the conversation that one of them shows, by fresh heartbeats.';

create function private.stamp_presence() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  now_at constant timestamptz := clock_timestamp();
begin
  -- report_presence and prune_push write the sum.
  if current_setting('chat_push.writes_presence_sum', true) = 'yes' then
    return new;
  end if;
  -- An upsert of a row that exists: the update that follows gets the values of the app, so they must not be a sum.
  if tg_op = 'INSERT' and exists (select from public.user_presence where user_id = new.user_id) then
    return new;
  end if;
  if new.is_online then
    perform private.require_session();
  end if;
  -- A person who is set offline long after the last heartbeat was last seen at that heartbeat.
  if tg_op = 'UPDATE' and old.is_online and not new.is_online
    and old.updated_at < now_at - (select presence_fresh_for from push.settings)
  then
    new.updated_at := old.updated_at;
  else
    new.updated_at := now_at;
  end if;
  new.last_seen_at := new.updated_at;
  -- An offline person views no conversation, and an id that is no conversation of the caller is not shown to others. No
  -- error: an app may have screens that are no conversations, and a rejected heartbeat would leave the old row in place.
  if not new.is_online or (auth.uid() is not null and not exists (
    select from public.chat_rooms
    where id = new.current_conversation_id and auth.uid() in (user1_id, user2_id)
  )) then
    new.current_conversation_id := null;
  end if;
  insert into private.device_presence (user_id, device_id, is_online, current_conversation_id, updated_at)
  values (new.user_id, '', new.is_online, new.current_conversation_id, now_at)
  on conflict (user_id, device_id) do update
    set is_online = excluded.is_online, current_conversation_id = excluded.current_conversation_id,
      updated_at = excluded.updated_at;
  select summed.is_online, summed.current_conversation_id into new.is_online, new.current_conversation_id
  from private.sum_presence(new.user_id) summed;
  return new;
end $$;
comment on function private.stamp_presence() is
  'Sets the times of a heartbeat by the server''s clock, because a phone''s clock may be hours off, removes a conversation that is '
  'not the caller''s, and adds the other devices of the person.';

create function private.forget_presence() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  delete from private.device_presence where user_id = old.user_id;
  return null;
end $$;
comment on function private.forget_presence() is 'Forgets the devices of a person whose presence is deleted.';

-- Before the row is locked, as in report_presence: otherwise two heartbeats of one person could wait for each other.
create trigger serialize_writes before insert or update on public.user_presence
  for each statement execute function private.serialize_writes(5);
create trigger stamp_presence before insert or update on public.user_presence
  for each row execute function private.stamp_presence();
create trigger forget_presence after delete on public.user_presence
  for each row execute function private.forget_presence();

create function private.report_presence(p_device_id text, p_state text, p_conversation_id uuid) returns void
language plpgsql security definer set search_path = '' as $$
declare
  me constant uuid := auth.uid();
  now_at timestamptz;
begin
  if p_state is null or p_state not in ('online', 'offline') then
    raise invalid_parameter_value using
      message = 'p_state must be online or offline', hint = 'offline: the app is in the background, or the user logs out.';
  end if;
  if p_state = 'online' then
    -- A lost phone that shows a conversation must not hold back its pushes.
    perform private.require_session();
  end if;
  if not exists (select from public.user_devices where user_id = me and device_id = p_device_id) then
    raise invalid_parameter_value using
      message = 'p_device_id is not a device of the signed-in user', hint = 'Register the device first: POST /api/push/register.';
  end if;
  if p_conversation_id is not null and not exists (
    select from public.chat_rooms where id = p_conversation_id and me in (user1_id, user2_id)
  ) then
    raise invalid_parameter_value using
      message = 'p_conversation_id is not a conversation of the signed-in user',
      hint = 'Pass the id of the conversation on the screen, or null.';
  end if;
  -- The sum must contain the heartbeats that other devices report now.
  perform pg_advisory_xact_lock(hashtextextended(me::text, 5));
  now_at := clock_timestamp();
  insert into private.device_presence (user_id, device_id, is_online, current_conversation_id, updated_at)
  values (me, p_device_id, p_state = 'online', case p_state when 'online' then p_conversation_id end, now_at)
  on conflict (user_id, device_id) do update
    set is_online = excluded.is_online, current_conversation_id = excluded.current_conversation_id,
      updated_at = excluded.updated_at;
  perform set_config('chat_push.writes_presence_sum', 'yes', true);
  insert into public.user_presence (user_id, is_online, current_conversation_id, updated_at, last_seen_at)
  select me, is_online, current_conversation_id, now_at, now_at from private.sum_presence(me)
  on conflict (user_id) do update
    set is_online = excluded.is_online, current_conversation_id = excluded.current_conversation_id,
      updated_at = excluded.updated_at, last_seen_at = excluded.last_seen_at;
  perform set_config('chat_push.writes_presence_sum', '', true);
end $$;
comment on function private.report_presence(text, text, uuid) is 'Does what public.report_presence says.';

create function public.report_presence(p_device_id text, p_state text, p_conversation_id uuid default null) returns void
language sql set search_path = '' as $$
  select private.report_presence(p_device_id, p_state, p_conversation_id);
$$;
comment on function public.report_presence(text, text, uuid) is
  'A heartbeat of a device of the caller. p_state: online or offline; p_conversation_id: the conversation on the screen, or null. An '
  'app repeats it every 20 seconds while it is open. An argument that is wrong is rejected (22023), and changes nothing; so is online in a session that has ended (PT401).';

revoke execute on function
  private.sum_presence(uuid), private.stamp_presence(), private.forget_presence(), private.report_presence(text, text, uuid)
from public;
revoke execute on function public.report_presence(text, text, uuid) from public, anon, service_role;
grant execute on function private.report_presence(text, text, uuid), public.report_presence(text, text, uuid) to authenticated;
