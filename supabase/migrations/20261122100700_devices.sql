-- Registration of devices: the triggers of user_devices, and the functions that apps call. Apps also write user_devices
-- themselves, so each rule is in a trigger. Order: serialize_registrations (one statement of a person at a time),
-- prepare_device (checks, rate limit, the token moves to this row), touch_updated_at, then push.limit_devices.

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
      -- register_device (the Lambda function) reads the seconds from here.
      detail = format('{"retry_after_seconds": %s}', greatest(wait, 1));
  end if;
end $$;
comment on function private.limit_registration_rate(uuid) is
  'Counts a registration of a person, and rejects those beyond registration_limit: PT429, HTTP 429, with the seconds to wait.';

create function private.serialize_registrations() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  if auth.uid() is not null then
    perform pg_advisory_xact_lock(hashtextextended(auth.uid()::text, 3));
  end if;
  return null;
end $$;
comment on function private.serialize_registrations() is
  'Makes the statements of one person on user_devices run one after the other: the limits hold, and no deadlock occurs '
  'between them.';

create trigger serialize_registrations before insert or update on public.user_devices
  for each statement execute function private.serialize_registrations();

create function private.lock_push_tokens(variadic p_push_tokens text[]) returns void
language sql set search_path = '' as $$
  -- A thousand locks for all tokens: with one for each token, an import would fill the lock table that all sessions share.
  select pg_advisory_xact_lock(2, number) from (
    select distinct
      mod(abs(hashtext(private.canonical_push_token(push_token))::bigint), 1000)::integer
    from unnest(p_push_tokens) push_token where push_token is not null order by 1
  ) locks (number);
$$;
comment on function private.lock_push_tokens(text[]) is 'Locks these push tokens for this transaction, in one order.';

create function private.try_lock_push_tokens(variadic p_push_tokens text[]) returns void
language plpgsql set search_path = '' set lock_timeout = '300ms' as $$
begin
  perform private.lock_push_tokens(variadic p_push_tokens);
exception when lock_not_available then
  raise sqlstate 'PT409' using
    message = 'push_token is being registered by another account at this moment',
    hint = 'Try again, or register by an insert with on_conflict=user_id,device_id, which waits.';
end $$;
comment on function private.try_lock_push_tokens(text[]) is
  'lock_push_tokens for a transaction that holds the row of a device. The other transaction may wait for that row, so this '
  'one fails with PT409 (HTTP 409) before Postgres would detect a deadlock (after 1 s).';

create function private.check_device(p_device public.user_devices, p_before public.user_devices) returns void
language plpgsql set search_path = '' as $$
begin
  if p_device.device_id is distinct from p_before.device_id and length(p_device.device_id) not between 1 and 200 then
    raise invalid_parameter_value using
      message = format('device_id has %s characters; it must have 1 to 200', length(p_device.device_id)),
      hint = 'Pass a UUID that the app creates once for each installation, and keeps.';
  end if;
  if p_device.app_version is distinct from p_before.app_version then
    perform private.limit_bytes('app_version', p_device.app_version, 200);
  end if;
  if p_device.locale is distinct from p_before.locale and p_device.locale::text !~ '^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,10}$' then
    raise invalid_parameter_value using
      message = 'locale is not a BCP 47 language tag',
      hint = 'Pass a tag such as pt-BR, with hyphens, or null.';
  end if;
  if (p_device.push_token, p_device.push_provider) is distinct from (p_before.push_token, p_before.push_provider) then
    -- An index takes 2,700 bytes at most.
    perform private.limit_bytes('push_token', p_device.push_token, 2048);
    if p_device.push_provider in ('fcm', 'apns') and p_device.push_token ~* '^expo(nent)?pushtoken\[' then
      raise invalid_parameter_value using
        message = format('push_provider is %s, but push_token is a token of Expo', p_device.push_provider),
        hint = 'Set push_provider to expo, or pass the token that getDevicePushTokenAsync() returns.';
    end if;
    if p_device.push_provider = 'apns' and p_device.push_token !~* '^([0-9a-f]{2}){16,100}$' then
      raise invalid_parameter_value using
        message = 'push_provider is apns, but push_token is not hexadecimal',
        hint = 'Pass the token that getDevicePushTokenAsync() returns on an iPhone.';
    end if;
  end if;
end $$;
comment on function private.check_device(public.user_devices, public.user_devices) is
  'Rejects wrong values of a device with HTTP 400. Values that are as before pass.';

create function private.ended_devices(p_devices public.user_devices[]) returns uuid[]
-- With row_security off, a role that row level security applies to gets an error here. Otherwise it would see no sessions.
language plpgsql stable set search_path = '' set row_security = off as $$
begin
  return array(
    select device.id
    from unnest(p_devices) device
    left join auth.users account on account.id = device.user_id
    left join auth.sessions session on session.id = device.session_id and session.user_id = device.user_id
    where account.banned_until > clock_timestamp() or account.deleted_at is not null
      or (device.session_id is not null and (session.id is null or session.not_after <= clock_timestamp()))
  );
exception when syntax_error_or_access_rule_violation then
  -- This database has another Auth, or this role must not read its tables: no session counts as ended.
  return '{}';
end $$;
comment on function private.ended_devices(public.user_devices[]) is
  'Returns the ids of those devices whose session has ended (signed out, password changed, expired), or whose account is '
  'banned or deleted. A device without a session_id has ended only with its account. No ids if Auth''s tables cannot be read.';

create function private.require_session() returns void
language plpgsql stable set search_path = '' as $$
declare
  caller public.user_devices;
begin
  caller.user_id := auth.uid();
  caller.session_id := (auth.jwt() ->> 'session_id')::uuid;
  -- An access token stays valid until it expires, at most an hour later by default.
  if caller.user_id is not null and private.ended_devices(array[caller]) <> '{}' then
    raise sqlstate 'PT401' using
      message = 'the session of this access token has ended, or the account is banned',
      hint = 'Sign in again, then register the device with the new access token.';
  end if;
end $$;
comment on function private.require_session() is 'Rejects a person whose session has ended: PT401, HTTP 401. Backends pass.';

-- An app's own column of this name may hold other ids. Taken for ended sessions, they would end the pushes of each device.
with changed as (
  update public.user_devices set session_id = null
  where id = any(private.ended_devices(array(
    select device from public.user_devices device where device.session_id is not null)))
  returning 1
)
insert into push.migration_report (what, subject, affected_rows)
select 'not the id of a session, removed', 'user_devices: session_id', count(*) from changed having count(*) > 0;

create function private.prepare_device() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  me constant uuid := auth.uid();
  before public.user_devices;
begin
  if tg_op = 'UPDATE' then
    before := old;
  else
    if me is not null then
      perform private.require_caller(new.user_id, 'user_id');
    end if;
    -- If this row exists, the insert ends in its update, in nothing or in an error, and stores no row. The lock keeps it: if it
    -- was deleted meanwhile, the insert would store a row, whose token is still that of another one.
    select * into before from public.user_devices
    where (user_id, device_id) = (new.user_id, new.device_id) or id = new.id limit 1 for key share;
  end if;
  perform private.check_device(new, before);

  -- Deactivating a row is not a sign of its device: its token has moved, its owner has too many devices, or logs out.
  if tg_op = 'INSERT' or (me = new.user_id and new.is_active) then
    new.last_seen_at := clock_timestamp();
    new.session_id := (auth.jwt() ->> 'session_id')::uuid;
    perform private.require_session();
  elsif me is not null then
    new.last_seen_at := old.last_seen_at;
  end if;
  if me is not null then
    -- Apps send these columns, and last_seen_at; the values are replaced.
    new.created_at := coalesce(old.created_at, clock_timestamp());
    new.updated_at := clock_timestamp();
  end if;

  -- These count as registrations: each row that a person inserts, stored or not, and each update that activates a device or
  -- moves a token. An insert that becomes such an update counts once.
  if me is not null and tg_op = 'INSERT' then
    perform private.limit_registration_rate(me), set_config('chat_push.inserted_device', before.id::text, true);
  elsif me is not null and current_setting('chat_push.inserted_device', true) = old.id::text then
    perform set_config('chat_push.inserted_device', '', true);
  elsif (me = new.user_id and new.is_active) or (me is not null and new.push_token <> coalesce(old.push_token, '')) then
    perform private.limit_registration_rate(me);
  end if;

  if new.push_token is null or (tg_op = 'UPDATE' and new.push_token is not distinct from old.push_token) then
    return new;
  end if;
  -- The old token is locked as well. Otherwise two people who exchange their tokens would wait for each other's rows. An
  -- insert holds no row yet and may wait. An update has locked its own row before this trigger runs; after an insert that
  -- became an update, the transaction has these locks already.
  if tg_op = 'INSERT' then
    perform private.lock_push_tokens(before.push_token, new.push_token);
  else
    perform private.try_lock_push_tokens(before.push_token, new.push_token);
  end if;
  if tg_op = 'UPDATE' or before.id is null then
    update public.user_devices set push_token = null, is_active = false
    where private.canonical_push_token(push_token) = private.canonical_push_token(new.push_token) and id <> new.id;
  end if;
  return new;
end $$;
comment on function private.prepare_device() is
  'Checks a device, sets its times, counts the registration, and takes its push token from the row that had it: a push token '
  'names one installation, and belongs to the account that registered it last.';

create trigger prepare_device before insert or update on public.user_devices
  for each row execute function private.prepare_device();
create trigger touch_updated_at before update on public.user_devices
  for each row execute function private.touch_updated_at();

create function push.limit_devices() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  settings push.settings;
  user_ids constant uuid[] := array(
    select distinct user_id from new_devices where is_active or tg_op = 'INSERT');
begin
  if user_ids = '{}' then
    return null;
  end if;
  select * into strict settings from push.settings;
  -- In one order. Rows that are locked are skipped: another statement moves their token or deactivates them now.
  update public.user_devices set is_active = false
  where id in (
    select id from public.user_devices
    where id = any (array(
      select id from (
        select id, row_number() over (partition by user_id order by last_seen_at desc, id) as rank
        from public.user_devices where user_id = any (user_ids) and is_active
      ) ranked
      where rank > settings.device_limit
    ))
    order by id for no key update skip locked
  );
  delete from public.user_devices
  where id in (
    select id from public.user_devices
    where id = any (array(
      select id from (
        select id, row_number() over (partition by user_id order by is_active desc, last_seen_at desc, id) as rank
        from public.user_devices where user_id = any (user_ids)
      ) ranked
      where rank > greatest(settings.stored_device_limit, settings.device_limit)
    ))
    order by id for update skip locked
  );
  return null;
end $$;
comment on function push.limit_devices() is
  'Deactivates the devices of a person beyond device_limit and deletes those beyond stored_device_limit, the least recently '
  'seen first.';

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
    'push_environment', p_device.push_environment,
    -- A push token is a bearer secret. The app gets its kind, and enough characters to tell two tokens apart.
    'push_token', substring(p_device.push_token from '^(?:Expo(?:nent)?PushToken\[)?.{0,4}') || '…',
    'app_version', p_device.app_version,
    'locale', p_device.locale,
    'is_active', p_device.is_active,
    'last_seen_at', p_device.last_seen_at,
    'created_at', p_device.created_at
  );
$$;
comment on function private.device_json(public.user_devices) is 'Returns a device as apps see it.';

create function private.register_device(
  p_device_id text, p_platform text, p_push_token text, p_push_provider text, p_app_version text, p_push_environment text,
  p_locale text
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  me constant uuid := auth.uid();
  wrong record;
  row_id uuid;
  created boolean;
begin
  if me is null then
    raise insufficient_privilege using message = 'no user is signed in';
  end if;
  select field, rule into wrong from (values
    ('device_id', length(p_device_id) between 1 and 200, 'device_id must have 1 to 200 characters'),
    ('platform', p_platform in ('ios', 'android', 'web'), 'platform must be ios, android or web'),
    ('push_provider', p_push_provider in ('expo', 'fcm', 'apns'), 'push_provider must be expo, fcm or apns'),
    ('push_provider', p_platform = any(case p_push_provider when 'fcm' then array['android', 'web'] when 'apns' then array['ios']
      else array['ios', 'android'] end),
      'push_provider does not fit platform: expo is for ios and android, fcm for android and web, apns for ios'),
    ('push_provider', p_push_provider = any(push.configured_providers()),
      'push_provider is not configured: the backend has no credentials for it'),
    ('push_token', case p_push_provider
      when 'fcm' then p_push_token ~ '^[A-Za-z0-9_:-]{20,}$' and p_push_token !~ '^[0-9A-Fa-f]{64}$'
      when 'apns' then p_push_token ~ '^([0-9A-Fa-f]{2}){16,100}$'
      else private.is_expo_token(p_push_token) end,
      'push_token must be a token of push_provider: of expo, ExponentPushToken[…]; of fcm, a registration token; of apns, hexadecimal'),
    ('push_environment', p_push_environment in ('production', 'sandbox'), 'push_environment must be production or sandbox'),
    ('locale', p_locale is null or p_locale ~ '^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,10}$', 'locale must be a BCP 47 language tag such as pt-BR')
  ) rules (field, holds, rule)
  where holds is not true limit 1;
  if found then
    raise invalid_parameter_value using
      message = wrong.rule,
      hint = 'Pass the platform of the phone, and the token that getExpoPushTokenAsync() or getDevicePushTokenAsync() returns.',
      -- register_device (the Lambda function) reads the field and the rule from here.
      detail = jsonb_build_object('field', wrong.field, 'rule', wrong.rule);
  end if;
  insert into public.user_devices as known
    (user_id, device_id, platform, push_token, push_provider, push_environment, app_version, locale)
  values (me, p_device_id, p_platform, p_push_token, p_push_provider, p_push_environment, p_app_version, p_locale)
  on conflict (user_id, device_id) do update set
    platform = excluded.platform, push_token = excluded.push_token, push_provider = excluded.push_provider,
    push_environment = excluded.push_environment, app_version = coalesce(excluded.app_version, known.app_version),
    locale = coalesce(excluded.locale, known.locale), is_active = true
  returning id, xmax = 0 into row_id, created;
  return (
    select jsonb_build_object('device', private.device_json(device), 'created', created)
    from public.user_devices device where device.id = row_id
  );
end $$;
comment on function private.register_device(text, text, text, text, text, text, text) is
  'Registers a device of the caller; another account loses the push token. Returns {device, created}. Rejects a device that '
  'could never get a push: 22023, HTTP 400, with the field in the details. It runs as its owner, because the upsert updates '
  'columns that apps have no grant for.';

create function public.register_device(
  p_device_id text, p_platform text, p_push_token text, p_push_provider text default 'expo',
  p_app_version text default null, p_push_environment text default 'production', p_locale text default null
) returns jsonb
language sql set search_path = '' as $$
  select private.register_device(p_device_id, p_platform, p_push_token, p_push_provider, p_app_version, p_push_environment, p_locale);
$$;
comment on function public.register_device(text, text, text, text, text, text, text) is
  'Registers a device of the caller; another account loses the push token. Returns {device, created}.';

create function public.unregister_device(p_device_id text) returns boolean
language sql set search_path = '' as $$
  -- The policies of the caller apply: a device that moved to another account has another row.
  with removed as (delete from public.user_devices
    where user_id = (select auth.uid()) and device_id = p_device_id returning id)
  select exists (select from removed);
$$;
comment on function public.unregister_device(text) is 'Removes a device of the caller at logout. Returns false if there was none.';

create function public.my_devices() returns jsonb
language sql stable set search_path = '' as $$
  select coalesce(jsonb_agg(private.device_json(device) order by device.last_seen_at desc, device.id), '[]')
  from public.user_devices device where device.user_id = (select auth.uid());
$$;
comment on function public.my_devices() is
  'Returns the devices of the caller as a list, the one seen last first, with shortened push tokens.';

revoke execute on function private.limit_registration_rate(uuid), private.serialize_registrations(),
  private.lock_push_tokens(text[]), private.try_lock_push_tokens(text[]),
  private.check_device(public.user_devices, public.user_devices), private.ended_devices(public.user_devices[]), private.require_session(),
  private.prepare_device(), push.limit_devices(),
  private.device_json(public.user_devices), private.register_device(text, text, text, text, text, text, text) from public;
grant execute on function private.device_json(public.user_devices),
  private.register_device(text, text, text, text, text, text, text) to authenticated;
revoke execute on function public.register_device(text, text, text, text, text, text, text), public.unregister_device(text),
  public.my_devices() from public, anon, service_role;
grant execute on function public.register_device(text, text, text, text, text, text, text), public.unregister_device(text),
  public.my_devices() to authenticated;
