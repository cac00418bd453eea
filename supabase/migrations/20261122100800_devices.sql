-- How an app registers and unregisters a phone. A device belongs to its last login.

alter table push.settings
  add column registration_limit integer not null default 20 check (registration_limit > 0),
  add column registration_limit_window interval not null default '1 minute' check (registration_limit_window > '0');
comment on column push.settings.registration_limit is
  'Registrations that one person may make within registration_limit_window; more are refused with HTTP 429.';

create table push.registration_counts (
  user_id uuid primary key references public.users (id) on delete cascade,
  window_began_at timestamptz not null,
  registrations integer not null
);
comment on table push.registration_counts is 'Registrations of each person in the current window.';

create function push.count_registration(p_user_id uuid) returns void
language plpgsql set search_path = '' as $$
declare
  settings push.settings;
  counted push.registration_counts;
  wait integer;
begin
  select * into strict settings from push.settings;
  insert into push.registration_counts as known (user_id, window_began_at, registrations)
  values (p_user_id, clock_timestamp(), 1)
  on conflict (user_id) do update set
    window_began_at = case when known.window_began_at > clock_timestamp() - settings.registration_limit_window
      then known.window_began_at else clock_timestamp() end,
    registrations = case when known.window_began_at > clock_timestamp() - settings.registration_limit_window
      then known.registrations + 1 else 1 end
  returning * into counted;
  if counted.registrations > settings.registration_limit then
    wait := ceil(extract(epoch from
      counted.window_began_at + settings.registration_limit_window - clock_timestamp()));
    raise sqlstate 'PT429' using
      message = format('too many registrations: at most %s in %s seconds', settings.registration_limit,
        extract(epoch from settings.registration_limit_window)::integer),
      -- The function that answers over HTTP reads the seconds from here.
      detail = format('{"retry_after_seconds": %s}', greatest(wait, 1));
  end if;
end $$;
comment on function push.count_registration(uuid) is 'Refuses a registration too many: PT429, HTTP 429.';

create function private.device(p_device public.user_devices) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'device_id', p_device.device_id,
    'platform', p_device.platform,
    'push_provider', p_device.push_provider,
    -- A push token is a bearer secret: its kind, and enough of it to tell two apart.
    'push_token', substring(p_device.push_token from '^(?:Expo(?:nent)?PushToken\[)?.{0,4}') || '…',
    'app_version', p_device.app_version,
    'is_active', p_device.is_active,
    'last_seen_at', p_device.last_seen_at,
    'created_at', p_device.created_at
  );
$$;
comment on function private.device(public.user_devices) is 'A device as apps see it.';

create function private.register_device(
  p_device_id text, p_platform text, p_push_token text, p_push_provider text, p_app_version text
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  me constant uuid := auth.uid();
  row_id uuid;
  created boolean;
begin
  if me is null then
    raise insufficient_privilege using message = 'nobody is signed in';
  end if;
  perform push.count_registration(me);
  insert into public.user_devices as known
    (user_id, device_id, platform, push_token, push_provider, app_version)
  values (me, p_device_id, p_platform, p_push_token, p_push_provider, p_app_version)
  on conflict (user_id, device_id) do update set
    platform = excluded.platform, push_token = excluded.push_token, push_provider = excluded.push_provider,
    app_version = coalesce(excluded.app_version, known.app_version), is_active = true
  returning id, xmax = 0 into row_id, created;
  update public.user_devices set is_active = false
  where id in (
    select id from public.user_devices where user_id = me and is_active
    order by last_seen_at desc, id offset (select device_limit from push.settings)
  );
  return (
    select jsonb_build_object('device', private.device(device), 'created', created)
    from public.user_devices device where device.id = row_id
  );
end $$;
comment on function private.register_device(text, text, text, text, text) is
  'Registers a phone for the caller; its token leaves whoever had it. Answers {device, created}.';

create function public.register_device(
  p_device_id text, p_platform text, p_push_token text, p_push_provider text default 'expo',
  p_app_version text default null
) returns jsonb
language sql set search_path = '' as $$
  select private.register_device(p_device_id, p_platform, p_push_token, p_push_provider, p_app_version);
$$;
comment on function public.register_device(text, text, text, text, text) is
  'Registers the caller''s phone: {device, created}. The last login wins.';

create function public.unregister_device(p_device_id text) returns boolean
language sql set search_path = '' as $$
  -- Under the caller's own policies: a phone that has moved to another account is another row.
  with removed as (delete from public.user_devices
    where user_id = (select auth.uid()) and device_id = p_device_id returning id)
  select exists (select from removed);
$$;
comment on function public.unregister_device(text) is 'Removes the caller''s phone at logout; false if there was none.';

create function public.my_devices() returns jsonb
language sql stable set search_path = '' as $$
  select coalesce(jsonb_agg(private.device(device) order by device.last_seen_at desc, device.id), '[]')
  from public.user_devices device where device.user_id = (select auth.uid());
$$;
comment on function public.my_devices() is 'The caller''s phones, tokens shortened, newest first.';

revoke execute on function push.count_registration(uuid), private.device(public.user_devices),
  private.register_device(text, text, text, text, text) from public;
grant execute on function private.device(public.user_devices),
  private.register_device(text, text, text, text, text) to authenticated;
revoke execute on function public.register_device(text, text, text, text, text), public.unregister_device(text),
  public.my_devices() from public, anon, service_role;
grant execute on function public.register_device(text, text, text, text, text), public.unregister_device(text),
  public.my_devices() to authenticated;
