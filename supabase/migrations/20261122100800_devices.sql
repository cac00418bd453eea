-- How an app registers and unregisters a phone: by these functions, or by writing user_devices itself. So every rule is a
-- trigger's. A device belongs to its last login.

create table push.registration_counts (
  user_id uuid primary key references public.users (id) on delete cascade,
  window_began_at timestamptz not null,
  registrations integer not null
);
comment on table push.registration_counts is 'Registrations of each person in the current window.';

create function private.limit_registration_rate(p_user_id uuid) returns void
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
comment on function private.limit_registration_rate(uuid) is
  'Counts a registration, and refuses one too many: PT429, HTTP 429.';

create function private.serialize_registrations() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  if auth.uid() is not null then
    perform pg_advisory_xact_lock(hashtextextended(auth.uid()::text, 3));
  end if;
  return null;
end $$;
comment on function private.serialize_registrations() is
  'What one person writes goes one after the other: the limits hold, and nobody waits for themselves.';

create trigger serialize_registrations before insert or update on public.user_devices
  for each statement execute function private.serialize_registrations();

create function private.lock_push_tokens(variadic p_push_tokens text[]) returns void
language sql set search_path = '' as $$
  -- A thousand locks, not one for each token: an import would fill the table of locks that all sessions share.
  select pg_advisory_xact_lock(2, number) from (
    select distinct
      mod(abs(hashtext(replace(push_token, 'ExpoPushToken[', 'ExponentPushToken['))::bigint), 1000)::integer
    from unnest(p_push_tokens) push_token where push_token is not null order by 1
  ) locks (number);
$$;
comment on function private.lock_push_tokens(text[]) is 'Takes these push tokens for this transaction, always in one order.';

create function private.try_lock_push_tokens(variadic p_push_tokens text[]) returns void
language plpgsql set search_path = '' set lock_timeout = '300ms' as $$
begin
  perform private.lock_push_tokens(variadic p_push_tokens);
exception when lock_not_available then
  raise sqlstate 'PT409' using
    message = 'push_token is being registered by somebody else at this moment',
    hint = 'Try again, or register by an insert with on_conflict=user_id,device_id, which waits.';
end $$;
comment on function private.try_lock_push_tokens(text[]) is
  'The same for a transaction that holds a device''s row. Whom it waits for may wait for that row, so it gives up, HTTP 409, '
  'before Postgres would call it a deadlock (1 s).';

create function private.prepare_device() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  me constant uuid := auth.uid();
  known public.user_devices;
begin
  if tg_op = 'UPDATE' then
    known := old;
  else
    if me is not null and new.user_id is distinct from me then
      raise insufficient_privilege using
        message = 'user_id is not the signed-in user',
        hint = 'Pass the id of the session''s own user.';
    end if;
    -- Then the insert ends in an update, in nothing or in an error, but stores no row.
    select * into known from public.user_devices
    where (user_id, device_id) = (new.user_id, new.device_id) or id = new.id limit 1;
  end if;

  if new.device_id is distinct from known.device_id and length(new.device_id) not between 1 and 200 then
    raise invalid_parameter_value using
      message = format('device_id has %s characters; it must have 1 to 200', length(new.device_id)),
      hint = 'Pass a UUID that the app makes once for each installation, and keeps.';
  end if;
  if new.app_version is distinct from known.app_version then
    perform private.limit_bytes('app_version', new.app_version, 200);
  end if;
  if (new.push_token, new.push_provider) is distinct from (known.push_token, known.push_provider) then
    -- An index takes 2,700 bytes at most.
    perform private.limit_bytes('push_token', new.push_token, 2048);
    if new.push_provider in ('fcm', 'apns') and new.push_token ~* '^expo(nent)?pushtoken\[' then
      raise invalid_parameter_value using
        message = format('push_provider is %s, but push_token is one of Expo''s', new.push_provider),
        hint = 'Set push_provider to expo, or pass the token that getDevicePushTokenAsync() returns.';
    end if;
  end if;

  -- A row that is switched off was not seen: its token is taken, its owner has too many, or logs out.
  if tg_op = 'INSERT' or (me = new.user_id and new.is_active) then
    new.last_seen_at := clock_timestamp();
    new.session_id := (auth.jwt() ->> 'session_id')::uuid;
  elsif me is not null then
    new.last_seen_at := old.last_seen_at;
  end if;
  if me is not null then
    -- Apps name it, and last_seen_at and updated_at; accepted, and not taken.
    new.created_at := coalesce(old.created_at, clock_timestamp());
    new.updated_at := clock_timestamp();
  end if;
  -- Each row counts that a person inserts, stored or not, and each update that shows or takes a device; but once, if the
  -- insert becomes that update.
  if me is not null and tg_op = 'INSERT' then
    perform private.limit_registration_rate(me), set_config('chat_push.inserted_device', known.id::text, true);
  elsif me is not null and current_setting('chat_push.inserted_device', true) = old.id::text then
    perform set_config('chat_push.inserted_device', '', true);
  elsif (me = new.user_id and new.is_active) or (me is not null and new.push_token <> coalesce(old.push_token, '')) then
    perform private.limit_registration_rate(me);
  end if;

  if new.push_token is null or (tg_op = 'UPDATE' and new.push_token is not distinct from old.push_token) then
    return new;
  end if;
  -- Also of the token that is given up, or two people who swap theirs would wait for each other's rows. An insert has no
  -- row yet and may wait; an update has locked its own row before it comes here. After an insert that became an update,
  -- it has these locks.
  if tg_op = 'INSERT' then
    perform private.lock_push_tokens(known.push_token, new.push_token);
  else
    perform private.try_lock_push_tokens(known.push_token, new.push_token);
  end if;
  if tg_op = 'UPDATE' or known.id is null then
    -- A device belongs to its last login: the token leaves whoever had it.
    update public.user_devices set push_token = null, is_active = false
    where replace(push_token, 'ExpoPushToken[', 'ExponentPushToken[')
      = replace(new.push_token, 'ExpoPushToken[', 'ExponentPushToken[') and id <> new.id;
  end if;
  return new;
end $$;
comment on function private.prepare_device() is
  'A push token names one installation: registering it takes it from the account that was logged in before. And what a device '
  'may hold, and how often one may be registered.';

create trigger prepare_device before insert or update on public.user_devices
  for each row execute function private.prepare_device();

create function push.limit_devices() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  settings push.settings;
  people constant uuid[] := array(
    select distinct user_id from new_devices where is_active or tg_op = 'INSERT');
begin
  if people = '{}' then
    return null;
  end if;
  select * into strict settings from push.settings;
  -- In one order, and past rows that others have locked: those change hands or go off just now.
  update public.user_devices set is_active = false
  where id in (
    select id from public.user_devices
    where id = any (array(
      select id from (
        select id, row_number() over (partition by user_id order by last_seen_at desc, id) as place
        from public.user_devices where user_id = any (people) and is_active
      ) ranked
      where place > settings.device_limit
    ))
    order by id for no key update skip locked
  );
  delete from public.user_devices
  where id in (
    select id from public.user_devices
    where id = any (array(
      select id from (
        select id, row_number() over (partition by user_id order by is_active desc, last_seen_at desc, id) as place
        from public.user_devices where user_id = any (people)
      ) ranked
      where place > greatest(settings.stored_device_limit, settings.device_limit)
    ))
    order by id for update skip locked
  );
  return null;
end $$;
comment on function push.limit_devices() is
  'Switches off and deletes what a person has too many, the least recently seen first, once for each statement.';

create trigger limit_inserted_devices after insert on public.user_devices
  referencing new table as new_devices
  for each statement execute function push.limit_devices();
create trigger limit_updated_devices after update on public.user_devices
  referencing new table as new_devices
  for each statement execute function push.limit_devices();

create function private.device_json(p_device public.user_devices) returns jsonb
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
comment on function private.device_json(public.user_devices) is 'A device as apps see it.';

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
  insert into public.user_devices as known
    (user_id, device_id, platform, push_token, push_provider, app_version)
  values (me, p_device_id, p_platform, p_push_token, p_push_provider, p_app_version)
  on conflict (user_id, device_id) do update set
    platform = excluded.platform, push_token = excluded.push_token, push_provider = excluded.push_provider,
    app_version = coalesce(excluded.app_version, known.app_version), is_active = true
  returning id, xmax = 0 into row_id, created;
  return (
    select jsonb_build_object('device', private.device_json(device), 'created', created)
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
  select coalesce(jsonb_agg(private.device_json(device) order by device.last_seen_at desc, device.id), '[]')
  from public.user_devices device where device.user_id = (select auth.uid());
$$;
comment on function public.my_devices() is 'The caller''s phones, tokens shortened, newest first.';

revoke execute on function private.limit_registration_rate(uuid), private.serialize_registrations(),
  private.lock_push_tokens(text[]), private.try_lock_push_tokens(text[]), private.prepare_device(),
  push.limit_devices(), private.device_json(public.user_devices),
  private.register_device(text, text, text, text, text) from public;
grant execute on function private.device_json(public.user_devices),
  private.register_device(text, text, text, text, text) to authenticated;
revoke execute on function public.register_device(text, text, text, text, text), public.unregister_device(text),
  public.my_devices() from public, anon, service_role;
grant execute on function public.register_device(text, text, text, text, text), public.unregister_device(text),
  public.my_devices() to authenticated;
