-- diagnose_push: facts that only the database has, for ./dev doctor, which decides what is a fault. They hold no secret, no token
-- and no message text.

create function push.sha256(p_secret text) returns text
language sql immutable set search_path = '' as $$
  select encode(sha256(convert_to(p_secret, 'UTF8')), 'hex');
$$;
comment on function push.sha256(text) is 'Returns a hash, by which two secrets are compared without showing either.';

create function push.diagnose_migrations() returns jsonb
language plpgsql stable set search_path = '' as $$
begin
  -- The table is missing if the files were applied by other means than the Supabase CLI.
  if to_regclass('supabase_migrations.schema_migrations') is not null then
    return (select jsonb_agg(version order by version) from supabase_migrations.schema_migrations);
  end if;
  return null;
end $$;
comment on function push.diagnose_migrations() is
  'Returns the versions of the migrations that the Supabase CLI applied; null: unknown.';

create function push.diagnose_triggers() returns jsonb
language sql stable set search_path = '' as $$
  select coalesce(jsonb_agg(jsonb_build_object(
    'name', tgname,
    'calls', namespace.nspname || '.' || proname,
    'enabled', tgenabled in ('O', 'A'),
    'readable', coalesce(target.readable, true),
    'url', coalesce(target.url, dashboard.arguments[1]),
    'secret_sha256', push.sha256(coalesce(target.secret,
      substring(dashboard.arguments[3] from '(?i)"x-webhook-secret"\s*:\s*"([^"]*)"')))
  ) order by tgname), '[]')
  from pg_catalog.pg_trigger
  join pg_catalog.pg_proc on pg_proc.oid = tgfoid
  join pg_catalog.pg_namespace namespace on namespace.oid = pronamespace
  left join lateral push.diagnose_webhook_target() target on (namespace.nspname, proname) = ('push', 'notify_webhook')
  -- A webhook of the dashboard has url, method, headers, … as arguments of its trigger.
  left join lateral (select string_to_array(encode(tgargs, 'escape'), '\000') as arguments) dashboard
    on (namespace.nspname, proname) = ('supabase_functions', 'http_request')
  where tgrelid = 'public.chat_messages'::regclass
    and (namespace.nspname, proname) in (
      ('push', 'create_job'), ('push', 'set_due_after_update'), ('push', 'set_due_after_delete'),
      ('push', 'notify_webhook'), ('supabase_functions', 'http_request'));
$$;
comment on function push.diagnose_triggers() is
  'Returns the triggers of chat_messages that make jobs due or call the webhook: [{name, calls, enabled, '
  'readable, url, secret_sha256}].';

create function push.diagnose_answers() returns jsonb
language plpgsql stable set search_path = '' as $$
begin
  if to_regclass('net._http_response') is not null then
    return (
      select coalesce(jsonb_object_agg(answer, answers), '{}')
      from (
        select coalesce(status_code::text, case when timed_out then 'timeout' else 'no answer' end) as answer,
          count(*) as answers
        from net._http_response where created > clock_timestamp() - interval '1 hour'
        group by 1
      ) counted
    );
  end if;
  return null;
end $$;
comment on function push.diagnose_answers() is
  'Returns how many requests of pg_net were answered in the last hour, by HTTP status, over all requests of this database. '
  'Null: pg_net is missing.';

create function push.diagnose_tables() returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_object_agg(relname, relrowsecurity)
  from pg_catalog.pg_class
  where relnamespace = 'public'::regnamespace and relname in (
    'users', 'chat_rooms', 'chat_messages', 'message_receipts', 'user_devices', 'user_presence');
$$;
comment on function push.diagnose_tables() is 'Returns whether row level security is enabled, by table.';

create function push.diagnose_rights() returns jsonb
language sql stable set search_path = '' as $$
  select coalesce(jsonb_agg(jsonb_build_object('right', open.what, 'role', open.role) order by open.what, open.role), '[]')
  from (
    select 'execute on function ' || pg_proc.oid::regprocedure as what, role
    from pg_catalog.pg_proc cross join unnest(array['anon', 'authenticated']) role
    where pronamespace = 'public'::regnamespace and has_function_privilege(role, pg_proc.oid, 'execute')
      and proname in (
        'claim_push_jobs', 'plan_wakeups', 'reserve_send_slot', 'record_push_results', 'claim_due_receipts', 'record_push_receipts',
        'finish_receipt_run', 'prune_push', 'explain_push', 'diagnose_push')
    union all
    select 'usage on schema push', role
    from unnest(array['anon', 'authenticated']) role where has_schema_privilege(role, 'push', 'usage')
  ) open;
$$;
comment on function push.diagnose_rights() is
  'Returns rights that the users of an app have and must not have: [{right, role}].';

create function push.diagnose_work() returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'jobs', (
      select jsonb_build_object(
        'waiting', count(*),
        'oldest_due_seconds', extract(epoch from clock_timestamp() - min(greatest(next_attempt_at, leased_until))),
        'leases_expired', count(*) filter (where greatest(next_attempt_at, leased_until) < clock_timestamp() and state = 'leased')
      ) from push.jobs
      -- Without those that only wait until what phones show expires.
      where state <> 'idle' and (next_attempt_at is distinct from expires_at or next_attempt_at <= clock_timestamp())
    ),
    'receipts', (
      select jsonb_build_object(
        'waiting', count(*),
        'oldest_due_seconds', extract(epoch from clock_timestamp() - min(receipt_due_at))
      ) from push.deliveries where receipt_due_at is not null
    ),
    'held_deactivations', (
      select coalesce(jsonb_agg(jsonb_build_object(
        'id', run.id, 'began_at', run.began_at,
        'devices', (select count(*) from push.dead_tokens dead where dead.run_id = run.id)
      ) order by run.began_at), '[]') from push.receipt_runs run where run.state = 'held'
    ),
    'paused_providers', (
      select coalesce(jsonb_agg(jsonb_build_object(
        'provider', provider, 'paused_until', paused_until, 'failures', failures) order by provider), '[]')
      from push.providers where paused_until > clock_timestamp()
    ),
    'stopped_by_choice', (
      select coalesce(jsonb_object_agg(reason, messages), '{}')
      from (
        select reason, count(*) as messages from push.decisions
        where finished_at > clock_timestamp() - interval '24 hours' and reason in ('blocked', 'request', 'muted', 'snoozed', 'quiet_hours')
        group by reason
      ) counted
    ),
    'silenced_by_choice', (
      select coalesce(jsonb_object_agg(silenced_by, pushes), '{}')
      from (
        select silenced_by, count(*) as pushes from push.deliveries
        where updated_at > clock_timestamp() - interval '24 hours' and silenced_by is not null
        group by silenced_by
      ) counted
    ),
    'reports', (
      select jsonb_build_object('open', count(*), 'oldest_seconds', extract(epoch from clock_timestamp() - min(created_at)))
      from private.reports where resolved_at is null
    ),
    'devices', (
      select jsonb_build_object(
        'active', count(*),
        'malformed', count(*) filter (where push_provider = 'expo' and not private.is_expo_token(push_token)),
        'provider_not_configured', count(*) filter (where push_provider <> all (push.configured_providers())),
        'web', count(*) filter (where push_provider = 'expo' and platform = 'web')
      ) from public.user_devices where is_active
    )
  );
$$;
comment on function push.diagnose_work() is
  'Returns how much work waits and for how long the oldest has been due (negative: not yet), the runs that the circuit '
  'breaker holds, the push services that are paused, how many messages of the last day made no notification, and how many pushes no sound, because of each choice of their '
  'recipients, the open reports of users and the age of the oldest, and counts of devices.';

create function push.diagnose_existing_app() returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'report', (
      select coalesce(jsonb_agg(jsonb_build_object('what', what, 'subjects', subjects, 'rows', affected_rows) order by first), '[]')
      from (
        select what, count(*) as subjects, sum(affected_rows) as affected_rows, min(id) as first
        from push.migration_report where what <> 'installed' group by what
      ) grouped
    ),
    -- A thousand people are enough: a missing name column shows in each of them.
    'people', (select count(*) from (select from public.users limit 1000) asked),
    'named', (
      select count(push.display_name(id)) from (select id from public.users limit 1000) asked
    )
  );
$$;
comment on function push.diagnose_existing_app() is
  'Returns what the migrations changed, by kind, and how many of up to 1,000 people have a name that pushes show.';

create function public.diagnose_push() returns jsonb
language sql stable security definer set search_path = '' as $$
  select push.diagnose_work() || jsonb_build_object(
    'migrations', push.diagnose_migrations(),
    'triggers', push.diagnose_triggers(),
    'answers', push.diagnose_answers(),
    'row_level_security', push.diagnose_tables(),
    'open_rights', push.diagnose_rights(),
    'existing_app', push.diagnose_existing_app()
  );
$$;
comment on function public.diagnose_push() is
  'Returns facts for ./dev doctor, without a secret, token or message text.';

revoke execute on all functions in schema push from public;
revoke execute on function public.diagnose_push() from public, anon, authenticated;
grant execute on function public.diagnose_push() to service_role;
