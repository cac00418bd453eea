-- The chat tables, for an empty database and for an app that has some of these tables, with any of their columns. This file
-- adds what is missing and drops nothing. Order: reject what cannot be migrated, create schemas, add tables and columns, fill
-- in rows that are there, then constraints and indexes. The CLI applies each file in one transaction. So each statement that
-- an existing app may prevent is in this first file, and a failure changes nothing.

-- Rejects what cannot be migrated, before anything is created -------------------------------------

-- A function, because the CLI prints the whole statement that failed below its error message.
create function pg_temp.reject_what_cannot_be_migrated() returns void
language plpgsql as $$
declare
  faults text[] := '{}';
  found record;
  has_rows boolean;
  rejects boolean;
begin
  -- Names that this and later files use.
  select faults || coalesce(array_agg(fault order by fault), '{}') into faults from (
    select format('schema %I exists', nspname) as fault from pg_catalog.pg_namespace where nspname = 'push'
    union all
    select format('table private.%I exists', name) from unnest('{blocks,chat_settings,conversation_preferences,deleted_messages,
      device_previews,moderators,new_contacts,notification_preferences,reports,suspensions}'::text[]) name
    where to_regclass(format('private.%I', name)) is not null
    union all
    select format('function %s exists', pg_proc.oid::regprocedure)
    from pg_catalog.pg_proc join pg_catalog.pg_namespace on pg_namespace.oid = pronamespace
    where (nspname = 'public' and proname = any ('{accept_conversation,block_user,claim_due_receipts,claim_push_jobs,diagnose_push,explain_push,
        finish_receipt_run,get_changed_messages,get_messages_paginated,get_missed_messages,get_or_create_conversation,list_reports,mark_messages_delivered,
        mark_messages_read,mute_conversation,my_blocked_users,my_devices,my_notification_preferences,plan_wakeups,prune_push,record_push_receipts,record_push_results,register_device,
        report_message,report_presence,report_user,reserve_send_slot,resolve_report,set_conversation_sound,set_device_preview,set_notification_preferences,suspend_user,sync_cursor,unblock_user,
        unmute_conversation,unregister_device,unsuspend_user}'))
      or (nspname = 'private' and proname = any ('{accept_conversation,archive_deleted_room,attachment_fault,block_user,canonical_push_token,check_device,
        collect_deleted_message,conversation_of,count_new_message,create_receipts,device_json,enable_events,ended_devices,
        forget_messages,forget_presence,guard_message_change,is_expo_token,keep_deleted_message,limit_bytes,limit_message_rate,
        limit_message_size,limit_new_contacts,limit_new_rooms,limit_profile,limit_receipt,limit_registration_rate,list_reports,lock_messages,lock_own_room,lock_rooms_with,lock_push_tokens,
        lock_senders_of_marks,mark_messages_of_receipts,message_event,message_line,messages_since,mute_conversation,my_blocked_rooms,my_blocked_users,
        my_blocks,my_contacts,my_notification_preferences,my_partners,my_rooms,one_line,prepare_device,
        prepare_room,quiet_hours_of,recount_after_change,recount_after_delete,recount_rooms,register_device,report_message,report_presence,report_user,require_caller,require_moderator,
        require_not_suspended,require_session,resolve_report,
        send_changed_messages,send_changed_room,send_deleted_messages,send_deleted_rooms,send_edited_messages,send_marks,
        send_new_messages,send_new_rooms,send_rooms,serialize_registrations,serialize_writes,set_conversation_sound,set_device_preview,set_notification_preferences,
        soft_delete_messages,stamp_message,stamp_message_change,
        stamp_presence,stamp_receipt,stamp_room,store_report,sum_presence,suspend_user,topic_right,touch_updated_at,try_lock_push_tokens,unblock_user,unmute_conversation,unsuspend_user}'))
    union all
    select format('trigger %I of %s exists', tgname, tgrelid::regclass)
    from pg_catalog.pg_trigger join pg_catalog.pg_class on pg_class.oid = tgrelid
    where not tgisinternal and relnamespace = 'public'::regnamespace
      and (relname, tgname) in (
        ('users', 'limit_profile'), ('chat_rooms', 'prepare_room'), ('chat_rooms', 'stamp_room'),
        ('chat_rooms', 'archive_deleted_room'), ('chat_rooms', 'send_new_rooms'), ('chat_rooms', 'send_changed_room'), ('chat_rooms', 'set_push_jobs_due'),
        ('chat_rooms', 'set_push_jobs_due_of_people'),
        ('chat_rooms', 'send_deleted_rooms'),
        ('chat_messages', 'stamp_message'),
        ('chat_messages', 'stamp_message_change'), ('chat_messages', 'count_new_message'),
        ('chat_messages', 'lock_senders_of_marks'), ('chat_messages', 'serialize_writes'),
        ('chat_messages', 'guard_message_change'), ('chat_messages', 'soft_delete_messages'),
        ('chat_messages', 'collect_deleted_message'), ('chat_messages', 'keep_deleted_message'),
        ('chat_messages', 'create_receipts'), ('chat_messages', 'recount_after_change'),
        ('chat_messages', 'recount_after_delete'), ('chat_messages', 'recount_after_truncate'), ('chat_messages', 'send_new_messages'),
        ('chat_messages', 'send_changed_messages'), ('chat_messages', 'send_deleted_messages'), ('chat_messages', 'create_push_job'),
        ('chat_messages', 'set_push_jobs_due'), ('chat_messages', 'set_push_jobs_due_after_delete'),
        ('chat_messages', 'set_push_jobs_due_after_truncate'), ('users', 'delete_push_jobs_of_person'),
        ('message_receipts', 'stamp_receipt'), ('message_receipts', 'serialize_writes'),
        ('message_receipts', 'limit_receipt'), ('message_receipts', 'mark_messages_after_insert'),
        ('message_receipts', 'mark_messages_after_update'), ('user_devices', 'touch_updated_at'),
        ('user_devices', 'serialize_registrations'), ('user_devices', 'prepare_device'),
        ('user_devices', 'limit_inserted_devices'), ('user_devices', 'limit_updated_devices'), ('user_devices', 'set_push_jobs_due'), ('user_devices', 'delete_device_states'), ('user_devices', 'forget_device_presence'),
        ('user_presence', 'serialize_writes'), ('user_presence', 'stamp_presence'),
        ('user_presence', 'forget_presence'))
    union all
    select format('%I is no table', relname) from pg_catalog.pg_class
    where relnamespace = 'public'::regnamespace and relkind <> 'r' and relname in (
      'users', 'chat_rooms', 'chat_messages', 'message_receipts', 'user_devices', 'user_presence')
  ) taken;
  if faults <> '{}' then
    raise duplicate_object using
      message = 'chat push needs names that this database already uses: ' || array_to_string(faults, '; '),
      hint = 'Rename them, or drop them if they are unused. Nothing was changed.';
  end if;

  -- Columns: the types that the functions can work with, and columns without which existing rows cannot be completed.
  for found in
    select specified.*, to_regclass('public.' || specified.in_table) as table_id, attnum, attgenerated,
      atttypid::regtype::text as type, format_type(atttypid, atttypmod) as full_type,
      case when atttypid = 'varchar'::regtype and atttypmod > 0 then atttypmod - 4 end as characters
    from (values
      ('users', 'id', '{uuid}'::text[], 0, true),
      ('chat_rooms', 'id', '{uuid}', 0, true),
      ('chat_rooms', 'user1_id', '{uuid}', 0, true),
      ('chat_rooms', 'user2_id', '{uuid}', 0, true),
      ('chat_rooms', 'last_message', '{text,character varying}', 200, false),
      ('chat_rooms', 'last_message_at', '{timestamp with time zone,timestamp without time zone}', 0, false),
      ('chat_rooms', 'created_at', '{timestamp with time zone,timestamp without time zone}', 0, false),
      ('chat_rooms', 'updated_at', '{timestamp with time zone,timestamp without time zone}', 0, false),
      ('chat_rooms', 'tourist_id', '{uuid}', 0, false),
      ('chat_rooms', 'guide_id', '{uuid}', 0, false),
      ('chat_rooms', 'unread_count_user1', '{integer,bigint}', 0, false),
      ('chat_rooms', 'unread_count_user2', '{integer,bigint}', 0, false),
      ('chat_rooms', 'archived_by_user1', '{boolean}', 0, false),
      ('chat_rooms', 'archived_by_user2', '{boolean}', 0, false),
      ('chat_rooms', 'accepted_by_user1', '{boolean}', 0, false),
      ('chat_rooms', 'accepted_by_user2', '{boolean}', 0, false),
      ('chat_messages', 'id', '{uuid}', 0, true),
      ('chat_messages', 'room_id', '{uuid}', 0, true),
      ('chat_messages', 'sender_id', '{uuid}', 0, true),
      ('chat_messages', 'message', '{text,character varying}', 0, true),
      ('chat_messages', 'message_type', '{text,character varying}', 4, false),
      ('chat_messages', 'is_read', '{boolean}', 0, false),
      ('chat_messages', 'read_at', '{timestamp with time zone,timestamp without time zone}', 0, false),
      ('chat_messages', 'created_at', '{timestamp with time zone,timestamp without time zone}', 0, false),
      ('chat_messages', 'updated_at', '{timestamp with time zone,timestamp without time zone}', 0, false),
      ('chat_messages', 'client_msg_id', '{text,character varying}', 36, false),
      ('chat_messages', 'sender_role', '{text,character varying}', 7, false),
      ('chat_messages', 'attachments', '{jsonb}', 0, false),
      ('chat_messages', 'edited_at', '{timestamp with time zone,timestamp without time zone}', 0, false),
      ('chat_messages', 'deleted_at', '{timestamp with time zone,timestamp without time zone}', 0, false),
      ('chat_messages', 'delivered_at', '{timestamp with time zone,timestamp without time zone}', 0, false),
      ('chat_messages', 'server_timestamp', '{timestamp with time zone}', 0, false),
      ('chat_messages', 'changed_at', '{timestamp with time zone}', 0, false),
      ('message_receipts', 'id', '{uuid}', 0, false),
      ('message_receipts', 'message_id', '{uuid}', 0, true),
      ('message_receipts', 'user_id', '{uuid}', 0, true),
      ('message_receipts', 'device_id', '{text,character varying}', 200, false),
      ('message_receipts', 'delivered_at', '{timestamp with time zone}', 0, false),
      ('message_receipts', 'read_at', '{timestamp with time zone}', 0, false),
      ('message_receipts', 'read_device_id', '{text,character varying}', 200, false),
      ('message_receipts', 'created_at', '{timestamp with time zone}', 0, false),
      ('user_devices', 'id', '{uuid}', 0, false),
      ('user_devices', 'user_id', '{uuid}', 0, true),
      ('user_devices', 'device_id', '{text,character varying}', 36, false),
      ('user_devices', 'platform', '{text,character varying}', 7, true),
      ('user_devices', 'push_token', '{text,character varying}', 100, false),
      ('user_devices', 'push_provider', '{text,character varying}', 4, false),
      ('user_devices', 'app_version', '{text,character varying}', 1, false),
      ('user_devices', 'is_active', '{boolean}', 0, false),
      ('user_devices', 'last_seen_at', '{timestamp with time zone}', 0, false),
      ('user_devices', 'created_at', '{timestamp with time zone}', 0, false),
      ('user_devices', 'updated_at', '{timestamp with time zone}', 0, false),
      ('user_devices', 'session_id', '{uuid}', 0, false),
      ('user_devices', 'push_environment', '{text,character varying}', 10, false),
      ('user_devices', 'locale', '{text,character varying}', 5, false),
      ('user_presence', 'user_id', '{uuid}', 0, true),
      ('user_presence', 'is_online', '{boolean}', 0, false),
      ('user_presence', 'last_seen_at', '{timestamp with time zone}', 0, false),
      ('user_presence', 'current_conversation_id', '{uuid}', 0, false),
      ('user_presence', 'updated_at', '{timestamp with time zone}', 0, false)
    ) specified (in_table, in_column, types, least_characters, is_needed)
    left join pg_catalog.pg_attribute on attrelid = to_regclass('public.' || specified.in_table)
      and attname = specified.in_column and not attisdropped
    where to_regclass('public.' || specified.in_table) is not null
  loop
    if found.attnum is not null and (found.type <> all (found.types) or found.characters < found.least_characters
      or found.attgenerated <> '')
    then
      faults := faults || format('%s.%s is %s%s, but must be %s%s', found.in_table, found.in_column,
        case when found.attgenerated <> '' then 'generated, of the type ' else '' end, found.full_type,
        array_to_string(found.types, ' or '),
        case when found.least_characters > 0 then format(' (of %s characters or more)', found.least_characters) else '' end);
    elsif found.attnum is null and found.is_needed then
      execute format('select exists (select from %s)', found.table_id) into has_rows;
      if has_rows then
        faults := faults || format('%s.%s is missing, and its values for the existing rows are unknown',
          found.in_table, found.in_column);
      end if;
    end if;
  end loop;
  -- Functions insert into these tables without a value for the app's own columns.
  for found in
    select relname as in_table, attname as in_column
    from pg_catalog.pg_attribute join pg_catalog.pg_class on pg_class.oid = attrelid
    where relnamespace = 'public'::regnamespace and attnum > 0 and not attisdropped
      and attnotnull and not atthasdef and attidentity = ''
      and ((relname = 'chat_rooms' and attname <> all ('{id,user1_id,user2_id,last_message,last_message_at,created_at,
          updated_at,tourist_id,guide_id,unread_count_user1,unread_count_user2,archived_by_user1,archived_by_user2,
          accepted_by_user1,accepted_by_user2}'))
        or (relname = 'message_receipts' and attname <> all (
          '{id,message_id,user_id,device_id,delivered_at,read_at,read_device_id,created_at}'))
        or (relname = 'user_devices' and attname <> all ('{id,user_id,device_id,platform,push_token,push_provider,app_version,
          is_active,last_seen_at,created_at,updated_at,session_id,push_environment,locale}'))
        or (relname = 'user_presence' and attname <> all (
          '{user_id,is_online,last_seen_at,current_conversation_id,updated_at}')))
    order by 1, 2
  loop
    faults := faults || format('%s.%s is not null and has no default, so no row can be added without it',
      found.in_table, found.in_column);
  end loop;
  -- A message that is deleted by deleted_at becomes empty. Only tables of the right types can be asked.
  for found in
    select conname, pg_get_expr(conbin, conrelid) as condition from pg_catalog.pg_constraint
    where conrelid = to_regclass('public.chat_messages') and contype = 'c' and faults = '{}' order by conname
  loop
    execute format('select not (%s) from jsonb_populate_record(null::public.chat_messages, %L) chat_messages', found.condition,
      '{"message": "", "message_type": "text", "attachments": [], "deleted_at": "2026-01-01"}') into rejects;
    if rejects then
      faults := faults || format('the constraint %I of chat_messages rejects a deleted message, whose text is empty', found.conname);
    end if;
  end loop;
  if faults <> '{}' then
    raise datatype_mismatch using
      message = 'chat push cannot work with tables as they are: ' || array_to_string(faults, '; '),
      hint = 'Change or rename these columns or constraints with alter table, then push the migrations again. Nothing was changed.';
  end if;
end $$;
select pg_temp.reject_what_cannot_be_migrated();
drop function pg_temp.reject_what_cannot_be_migrated();

-- Schemas and report -----------------------------------------------------------------------------

create schema if not exists private;
comment on schema private is
  'Functions that policies, triggers and the functions of public call; not exposed over the Data API.';
grant usage on schema private to authenticated, service_role;

create schema push;
comment on schema push is
  'Push jobs, deliveries and settings; not exposed over the Data API, reached only through functions.';

create table push.migration_report (
  id integer generated always as identity primary key,
  what text not null,
  subject text not null,
  affected_rows bigint,
  at timestamptz not null default clock_timestamp()
);
comment on table push.migration_report is
  'What the migrations changed in an existing app. It is a table because `supabase db push` prints no notices.';

-- The time of the installation, which push.mark_existing_messages_read reads.
insert into push.migration_report (what, subject) values ('installed', 'chat push');

-- Push tokens. Each write of a device runs these two functions, in a constraint and in an index.

create function private.is_expo_token(p_push_token text) returns boolean
language sql immutable set search_path = '' as $$
  -- The check of Expo's own SDKs, and the bare UUID that its Node SDK accepts, too:
  -- https://github.com/expo/expo-server-sdk-node/blob/main/src/ExpoClient.ts
  select p_push_token ~ '^(Exponent|Expo)PushToken\[[^][[:space:]]{1,80}\]$'
    or p_push_token ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$';
$$;
comment on function private.is_expo_token(text) is 'Returns whether a push token has the form of one that Expo issues.';

create function private.canonical_push_token(p_push_token text) returns text
-- Strict: then a match cannot be null, and the planner may use the index, which has no nulls.
language sql immutable strict set search_path = '' as $$
  select case when p_push_token ~ '^[0-9A-Fa-f]+$' then lower(p_push_token)
    else replace(p_push_token, 'ExpoPushToken[', 'ExponentPushToken[') end;
$$;
comment on function private.canonical_push_token(text) is
  'Returns one spelling of a push token: Expo has two, and the hexadecimal ones of APNs have upper or lower case.';

revoke execute on function private.is_expo_token(text), private.canonical_push_token(text) from public;
grant execute on function private.is_expo_token(text), private.canonical_push_token(text) to authenticated, service_role;

-- Texts. Triggers of chat_rooms, pushes and the backfill below run these two.

create function private.one_line(p_text text, p_characters integer default 2000) returns text
language plpgsql immutable set search_path = '' as $$
declare
  -- Character classes, because those of Postgres depend on the locale of the database. The blank of Braille is a space.
  spaces constant text := '\u0009-\u000d\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u2800\u3000';
  -- Controls, marks and overrides of the writing direction, and further characters of Default_Ignorable_Code_Point.
  invisible constant text := '\u0001-\u0008\u000e-\u001f\u007f-\u0084\u0086-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5'
    '\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a'
    '\U000e0000-\U000e001f\U000e0080-\U000e00ff\U000e01f0-\U000e0fff';
  -- Invisible characters that change a neighbour: variation selectors, tags, and joiners (with the Mongolian vowel separator).
  selectors constant text := '\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef';
  tags constant text := '\U000e0020-\U000e007f';
  joiners constant text := '\u180e\u200c\u200d';
  -- What a joiner connects: emoji, and the scripts of the Middle East, India and South-East Asia.
  emoji constant text := '\u2190-\u21ff\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff';
  scripts constant text := '\u0600-\u109f\u1700-\u180d\u180f-\u1cff\ua800-\ua95f\ua980-\uaaff\uabc0-\uabff\U00010a00-\U00011fff'
    '\U0001e900-\U0001e95f';
  -- Combining marks: the general category M of the Basic Multilingual Plane, and marks of the script Inherited.
  marks constant text :=
    '\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u05bf\u05c1-\u05c2\u05c4-\u05c5\u05c7-\u05c9\u0610-\u061a\u064b-\u065f\u0670'
    '\u06d6-\u06dc\u06df-\u06e4\u06e7-\u06e8\u06ea-\u06ed\u0711\u0730-\u074a\u07a6-\u07b0\u07eb-\u07f3\u07fd\u0816-\u0819'
    '\u081b-\u0823\u0825-\u0827\u0829-\u082d\u0859-\u085b\u0897-\u089f\u08ca-\u08e1\u08e3-\u0903\u093a-\u093c\u093e-\u094f'
    '\u0951-\u0957\u0962-\u0963\u0981-\u0983\u09bc\u09be-\u09cd\u09d7\u09e2-\u09e3\u09fe-\u0a03\u0a3c-\u0a51\u0a70-\u0a71'
    '\u0a75\u0a81-\u0a83\u0abc\u0abe-\u0acd\u0ae2-\u0ae3\u0afa-\u0b03\u0b3c\u0b3e-\u0b57\u0b62-\u0b63\u0b82\u0bbe-\u0bcd'
    '\u0bd7\u0c00-\u0c04\u0c3c\u0c3e-\u0c56\u0c62-\u0c63\u0c81-\u0c83\u0cbc\u0cbe-\u0cd6\u0ce2-\u0ce3\u0cf3-\u0d03'
    '\u0d3b-\u0d3c\u0d3e-\u0d4d\u0d57\u0d62-\u0d63\u0d81-\u0d83\u0dca-\u0ddf\u0df2-\u0df3\u0e31\u0e34-\u0e3a\u0e47-\u0e4e'
    '\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u0f18-\u0f19\u0f35\u0f37\u0f39\u0f3e-\u0f3f\u0f71-\u0f84\u0f86-\u0f87\u0f8d-\u0fbc'
    '\u0fc6\u102b-\u103e\u1056-\u1059\u105e-\u1060\u1062-\u1064\u1067-\u106d\u1071-\u1074\u1082-\u108d\u108f\u109a-\u109d'
    '\u135d-\u135f\u1712-\u1715\u1732-\u1734\u1752-\u1753\u1772-\u1773\u17b4-\u17d3\u17dd\u180b-\u180d\u180f\u1885-\u1886'
    '\u18a9\u1920-\u193b\u1a17-\u1a1b\u1a55-\u1a7f\u1ab0-\u1b04\u1b34-\u1b44\u1b6b-\u1b73\u1b80-\u1b82\u1ba1-\u1bad'
    '\u1be6-\u1bf3\u1c24-\u1c37\u1cd0-\u1cd2\u1cd4-\u1ce8\u1ced\u1cf4\u1cf7-\u1cf9\u1dc0-\u1dff\u20d0-\u20f0\u2cef-\u2cf1'
    '\u2d7f\u2de0-\u2dff\u302a-\u302f\u3099-\u309a\ua66f-\ua672\ua674-\ua67d\ua69e-\ua69f\ua6f0-\ua6f1\ua802\ua806\ua80b'
    '\ua823-\ua827\ua82c\ua880-\ua881\ua8b4-\ua8c5\ua8e0-\ua8f1\ua8ff\ua926-\ua92d\ua947-\ua953\ua980-\ua983\ua9b3-\ua9c0'
    '\ua9e5\uaa29-\uaa36\uaa43\uaa4c-\uaa4d\uaa7b-\uaa7d\uaab0\uaab2-\uaab4\uaab7-\uaab8\uaabe-\uaabf\uaac1\uaaeb-\uaaef'
    '\uaaf5-\uaaf6\uabe3-\uabea\uabec-\uabed\ufb1e\ufe00-\ufe0f\ufe20-\ufe2f\U000101fd\U000102e0\U0001133b'
    '\U0001cf00-\U0001cf46\U0001d127-\U0001d128\U0001d167-\U0001d169\U0001d17b-\U0001d182\U0001d185-\U0001d18b'
    '\U0001d1aa-\U0001d1ad\U0001d25b-\U0001d25c\U000e0100-\U000e01ef';
  line text := left(p_text, 2000);
begin
  -- Most texts: words of ASCII with single spaces.
  if line !~ '^[!-~]+( [!-~]+)*$' then
    if line ~ ('[' || invisible || marks || joiners || tags || ']') then
      -- A flag of tags (England) and the first selector after a visible character stay.
      line := normalize(regexp_replace(line,
        '(\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,6}\U000e007f'
        || '|[^' || spaces || invisible || selectors || tags || joiners || '][' || selectors || '])'
        || '|[' || invisible || selectors || tags || ']', '\1', 'g'));
      line := regexp_replace(line,
        '([' || marks || joiners || ']{8})[' || marks || joiners || ']+', '\1', 'g');
      -- A joiner stays between two characters that it connects. The zero width joiner also stays at the end of a word.
      line := regexp_replace(line,
        '(?<![' || scripts || emoji || '][' || marks || ']*)[' || joiners || ']'
        || '|[\u180e\u200c](?![' || marks || ']*[' || scripts || emoji || '])'
        || '|(?<![' || scripts || '][' || marks || ']*)\u200d(?![' || marks || ']*[' || scripts || emoji || '])', '', 'g');
    end if;
    line := btrim(regexp_replace(normalize(line), '[' || spaces || ']+', ' ', 'g'), ' ');
  end if;
  if length(line) > p_characters then
    -- Not before a character that belongs to the one before it. Python counts graphemes (notification.py); Postgres cannot.
    line := rtrim(coalesce(
      case when substr(line, p_characters, 2) !~ '^[ -~]*$' then
        nullif(rtrim(regexp_replace(left(line, p_characters + 1),
          '([\U0001f1e6-\U0001f1ff]+|.(\u200d.|[' || marks || joiners || tags || '\U0001f3fb-\U0001f3ff])*)$', ''), ' '), '')
      end,
      left(line, p_characters)), ' ');
  end if;
  return nullif(line, '');
end $$;
comment on function private.one_line(text, integer) is
  'Returns the text as one line for a lock screen, of at most p_characters: NFC, at most eight combining marks in a row, single '
  'spaces, no controls and no invisible characters, except those that emoji and scripts need. Null if nothing is visible. '
  'It reads the first 2000 characters.';

create function private.message_line(
  p_message text, p_attachments jsonb, p_message_type text, p_characters integer default 2000
) returns text
language plpgsql immutable set search_path = '' as $$
begin
  return coalesce(
    private.one_line(p_message, p_characters),
    case coalesce(p_attachments -> 0 ->> 'type', p_message_type)
      when 'image' then '📷 Photo'
      when 'photo' then '📷 Photo'
      when 'video' then '🎥 Video'
      when 'audio' then '🎤 Voice message'
      when 'voice' then '🎤 Voice message'
      when 'location' then '📍 Location'
      when 'file' then '📎 File'
      else 'New message'
    end
  );
end $$;
comment on function private.message_line(text, jsonb, text, integer) is
  'Returns the text of a message as one line, or the kind of the message if its text has nothing visible.';

revoke execute on function private.one_line(text, integer), private.message_line(text, jsonb, text, integer) from public;

create temporary table columns_before on commit drop as
  select table_name::text, column_name::text from information_schema.columns where table_schema = 'public'
    and table_name in ('users', 'chat_rooms', 'chat_messages', 'message_receipts', 'user_devices', 'user_presence');

-- The app's own triggers are disabled meanwhile: a webhook would be called for each message, and updated_at would change.
create temporary table paused_triggers on commit drop as
  select tgrelid::regclass as on_table, tgname as name from pg_catalog.pg_trigger
  join pg_catalog.pg_class on pg_class.oid = tgrelid
  where relnamespace = 'public'::regnamespace and not tgisinternal and tgenabled = 'O'
    and relname in ('users', 'chat_rooms', 'chat_messages', 'message_receipts', 'user_devices', 'user_presence');
do $$
declare
  paused record;
begin
  for paused in select * from paused_triggers loop
    execute format('alter table %s disable trigger %I', paused.on_table, paused.name);
  end loop;
end $$;

create function pg_temp.ensure_unique(p_table regclass, p_name text, p_columns text[]) returns void
language plpgsql as $$
begin
  if not exists (
    select from pg_catalog.pg_index where indrelid = p_table and indisunique and indpred is null and indexprs is null
      and indnkeyatts = cardinality(p_columns)
      and p_columns @> array(select attname::text from pg_catalog.pg_attribute
        where attrelid = p_table and attnum = any (indkey[0:indnkeyatts - 1]))
  ) then
    execute format('alter table %s add constraint %I unique (%s)', p_table, p_name, array_to_string(p_columns, ', '));
  end if;
end $$;

create function pg_temp.ensure_key(p_table regclass, p_column text) returns void
language plpgsql as $$
begin
  -- Rows of a table that Realtime publishes cannot be changed without a primary key.
  if not exists (select from pg_catalog.pg_index where indrelid = p_table and indisprimary) then
    execute format('alter table %s add primary key (%I)', p_table, p_column);
  end if;
  perform pg_temp.ensure_unique(p_table, replace(p_table::text, 'public.', '') || '_' || p_column || '_key', array[p_column]);
end $$;

-- Tables -----------------------------------------------------------------------------------------
-- Each table is created with its key alone, so that one list of columns serves new and existing tables. A column whose value
-- differs between existing rows gets its default after them.

create table if not exists public.users (
  id uuid primary key references auth.users (id) on delete cascade
);
alter table public.users
  add column if not exists id uuid not null references auth.users (id) on delete cascade,
  add column if not exists display_name text,
  add column if not exists role text default 'tourist' check (role in ('tourist', 'guide')),
  add column if not exists avatar_url text,
  add column if not exists locale text;
select pg_temp.ensure_key('public.users', 'id');
comment on table public.users is 'Profile of each person who chats.';

create table if not exists public.chat_rooms (
  id uuid primary key
);
alter table public.chat_rooms
  add column if not exists id uuid not null,
  add column if not exists user1_id uuid not null references public.users (id) on delete cascade,
  add column if not exists user2_id uuid not null references public.users (id) on delete cascade,
  add column if not exists last_message text,
  add column if not exists last_message_at timestamptz,
  add column if not exists created_at timestamptz,
  add column if not exists updated_at timestamptz,
  add column if not exists tourist_id uuid references public.users (id) on delete set null,
  add column if not exists guide_id uuid references public.users (id) on delete set null,
  add column if not exists unread_count_user1 integer not null default 0,
  add column if not exists unread_count_user2 integer not null default 0,
  add column if not exists archived_by_user1 boolean not null default false,
  add column if not exists archived_by_user2 boolean not null default false,
  add column if not exists accepted_by_user1 boolean not null default false,
  add column if not exists accepted_by_user2 boolean not null default false;
alter table public.chat_rooms
  alter column id set default gen_random_uuid(),
  alter column last_message drop not null,
  alter column last_message_at drop not null,
  alter column created_at set default now(),
  alter column updated_at set default now(),
  alter column tourist_id drop not null,
  alter column guide_id drop not null,
  alter column unread_count_user1 set default 0,
  alter column unread_count_user2 set default 0,
  alter column archived_by_user1 set default false,
  alter column archived_by_user2 set default false;
select pg_temp.ensure_key('public.chat_rooms', 'id');
-- Each message updates its conversation. Free space on the page allows HOT updates, without a new entry in each index.
alter table public.chat_rooms set (fillfactor = 80);
comment on table public.chat_rooms is 'A conversation of two people.';
comment on column public.chat_rooms.last_message is 
  'The newest message as one line of at most 200 characters, or its kind, such as 📷 Photo; kept by triggers.';
comment on column public.chat_rooms.unread_count_user1 is 'Messages that user1 has not read; kept by triggers.';
comment on column public.chat_rooms.accepted_by_user1 is
  'Whether user1 has accepted it: has written in it, or called accept_conversation. Until then, it is a message request of the other one. A '
  'person sees the presence of the other one only when both have accepted.';

create table if not exists public.chat_messages (
  id uuid primary key
);
alter table public.chat_messages
  add column if not exists id uuid not null,
  add column if not exists room_id uuid not null references public.chat_rooms (id) on delete cascade,
  add column if not exists sender_id uuid not null references public.users (id) on delete cascade,
  add column if not exists message text not null,
  add column if not exists message_type varchar(20),
  add column if not exists is_read boolean,
  add column if not exists read_at timestamptz,
  add column if not exists created_at timestamptz,
  add column if not exists updated_at timestamptz,
  add column if not exists client_msg_id text,
  add column if not exists sender_role varchar(20) check (sender_role in ('tourist', 'guide')),
  add column if not exists attachments jsonb not null default '[]' check (jsonb_typeof(attachments) = 'array'),
  add column if not exists edited_at timestamptz,
  add column if not exists deleted_at timestamptz,
  add column if not exists delivered_at timestamptz,
  add column if not exists server_timestamp timestamptz,
  add column if not exists changed_at timestamptz;
alter table public.chat_messages
  alter column id set default gen_random_uuid(),
  alter column message_type set default 'text',
  alter column is_read set default false,
  alter column read_at drop not null,
  alter column created_at set default now(),
  alter column updated_at set default now(),
  alter column client_msg_id drop not null,
  alter column sender_role set default 'tourist',
  alter column attachments set default '[]',
  alter column edited_at drop not null,
  alter column deleted_at drop not null,
  alter column delivered_at drop not null;
select pg_temp.ensure_key('public.chat_messages', 'id');
comment on table public.chat_messages is 'Messages. A push job is stored in the transaction of each message.';
comment on column public.chat_messages.client_msg_id is
  'Created by the app; a message that is sent again is rejected as a duplicate.';
comment on column public.chat_messages.server_timestamp is
  'Order of messages, by the server''s clock; within one conversation also the order of commits.';
comment on column public.chat_messages.changed_at is
  'When the message was inserted, edited, deleted or marked for the last time, by the server''s clock: the cursor of get_changed_messages.';

create table if not exists public.message_receipts (
  id uuid primary key default gen_random_uuid()
);
alter table public.message_receipts
  add column if not exists id uuid not null default gen_random_uuid(),
  add column if not exists message_id uuid not null references public.chat_messages (id) on delete cascade,
  add column if not exists user_id uuid not null references public.users (id) on delete cascade,
  add column if not exists device_id text,
  add column if not exists delivered_at timestamptz,
  add column if not exists read_at timestamptz,
  add column if not exists created_at timestamptz not null default now(),
  add column if not exists read_device_id text;
alter table public.message_receipts
  alter column id set default gen_random_uuid(),
  alter column device_id drop not null,
  alter column delivered_at drop not null,
  alter column read_at drop not null,
  alter column read_device_id drop not null,
  alter column created_at set default now();
select pg_temp.ensure_key('public.message_receipts', 'id');
select pg_temp.ensure_unique('public.message_receipts', 'unique_message_user_receipt', '{message_id,user_id}');
comment on table public.message_receipts is 'When a message reached its recipient and when it was read.';
comment on column public.message_receipts.device_id is 'The first device that reported the delivery.';
comment on column public.message_receipts.read_device_id is 'The device on which the message was read, if its app named it.';

create table if not exists public.user_devices (
  id uuid primary key default gen_random_uuid()
);
alter table public.user_devices
  add column if not exists id uuid not null default gen_random_uuid(),
  add column if not exists user_id uuid not null references public.users (id) on delete cascade,
  add column if not exists device_id text check (length(device_id) between 1 and 200),
  add column if not exists platform varchar(20) not null check (platform in ('ios', 'android', 'web')),
  add column if not exists push_token text,
  add column if not exists push_provider varchar(20) check (push_provider in ('fcm', 'apns', 'expo')),
  add column if not exists app_version text,
  add column if not exists is_active boolean not null default true,
  add column if not exists last_seen_at timestamptz,
  add column if not exists created_at timestamptz not null default now(),
  add column if not exists updated_at timestamptz not null default now(),
  add column if not exists session_id uuid,
  add column if not exists push_environment varchar(20) not null default 'production'
    check (push_environment in ('production', 'sandbox')),
  add column if not exists locale text;
alter table public.user_devices
  alter column id set default gen_random_uuid(),
  alter column push_token drop not null,
  alter column push_provider set default 'expo',
  alter column app_version drop not null,
  alter column locale drop not null,
  alter column is_active set default true,
  alter column last_seen_at set default now(),
  alter column created_at set default now(),
  alter column updated_at set default now();
select pg_temp.ensure_key('public.user_devices', 'id');
comment on table public.user_devices is 'Installations that push notifications are sent to.';
comment on column public.user_devices.session_id is 'The session (auth.sessions.id) that registered the device.';
comment on column public.user_devices.locale is
  'The language of the device as a BCP 47 tag, such as pt-BR; of the fixed texts in its pushes. Null: push.settings.default_language.';
comment on column public.user_devices.push_environment is
  'Of provider apns: the servers of Apple that issued the token; sandbox for a development build from Xcode.';
comment on column public.user_devices.last_seen_at is
  'When the app registered last, by the server''s clock. An answer of Expo to an older push cannot deactivate the device.';

create table if not exists public.user_presence (
  user_id uuid primary key references public.users (id) on delete cascade
);
alter table public.user_presence
  add column if not exists user_id uuid not null references public.users (id) on delete cascade,
  add column if not exists is_online boolean not null default false,
  add column if not exists last_seen_at timestamptz,
  add column if not exists current_conversation_id uuid,
  add column if not exists updated_at timestamptz not null default now();
alter table public.user_presence
  alter column is_online set default false,
  alter column last_seen_at drop not null,
  alter column current_conversation_id drop not null,
  alter column updated_at set default now();
select pg_temp.ensure_key('public.user_presence', 'user_id');
comment on table public.user_presence is
  'Last heartbeat of each person''s app, and the conversation on its screen. It counts for push.settings.presence_fresh_for.';

insert into push.migration_report (what, subject)
select case when before.table_name is null then 'table created' else 'column added' end,
  case when before.table_name is null then now.table_name else now.table_name || '.' || now.column_name end
from information_schema.columns now
left join (select distinct table_name from columns_before) before on before.table_name = now.table_name
where now.table_schema = 'public'
  and now.table_name in ('users', 'chat_rooms', 'chat_messages', 'message_receipts', 'user_devices', 'user_presence')
  and (now.table_name, now.column_name) not in (select table_name, column_name from columns_before)
group by 1, 2 order by 1 desc, 2;

-- Existing rows ----------------------------------------------------------------------------------

with changed as (
  update public.chat_rooms room
  set tourist_id = tourist.id, guide_id = guide.id
  from public.users tourist, public.users guide
  where room.tourist_id is null and room.guide_id is null
    and tourist.id in (room.user1_id, room.user2_id) and tourist.role::text = 'tourist'
    and guide.id in (room.user1_id, room.user2_id) and guide.role::text = 'guide'
  returning 1
)
insert into push.migration_report (what, subject, affected_rows)
select 'rows filled in', 'chat_rooms: tourist_id, guide_id', count(*) from changed having count(*) > 0;

with changed as (
  update public.chat_messages message
  set server_timestamp = coalesce(message.server_timestamp, least(coalesce(message.created_at, message.updated_at), now()), now()),
    changed_at = coalesce(message.changed_at,
      least(coalesce(message.server_timestamp, message.created_at, message.updated_at), now()), now()),
    sender_role = coalesce(message.sender_role, case when message.sender_id
      = (select guide_id from public.chat_rooms where id = message.room_id) then 'guide' else 'tourist' end),
    is_read = coalesce(message.is_read, message.read_at is not null),
    message_type = coalesce(message.message_type, 'text'),
    attachments = coalesce(message.attachments, '[]')
  where message.server_timestamp is null or message.sender_role is null or message.is_read is null
    or message.message_type is null or message.attachments is null or message.changed_at is null
  returning 1
)
insert into push.migration_report (what, subject, affected_rows)
select 'rows filled in', 'chat_messages: server_timestamp, sender_role, is_read, message_type, attachments, changed_at', count(*)
from changed having count(*) > 0;

-- An app may have marked by receipts alone. Such a message could never be marked again, and would count as unread for ever.
with changed as (
  update public.chat_messages message
  set is_read = true, read_at = coalesce(message.read_at, receipt.read_at),
    delivered_at = coalesce(message.delivered_at, receipt.delivered_at, receipt.read_at)
  from public.message_receipts receipt
  where receipt.message_id = message.id and receipt.user_id <> message.sender_id and receipt.read_at is not null
    and not message.is_read
  returning 1
)
insert into push.migration_report (what, subject, affected_rows)
select 'rows filled in', 'chat_messages: is_read, from receipts', count(*) from changed having count(*) > 0;

alter table public.chat_messages
  alter column attachments set not null,
  alter column server_timestamp set default now(),
  alter column server_timestamp set not null,
  alter column changed_at set default now(),
  alter column changed_at set not null;

with changed as (
  update public.chat_rooms room
  set unread_count_user1 = counted.unread1,
    unread_count_user2 = counted.unread2,
    archived_by_user1 = coalesce(room.archived_by_user1, false),
    archived_by_user2 = coalesce(room.archived_by_user2, false),
    accepted_by_user1 = counted.wrote1,
    accepted_by_user2 = counted.wrote2
  from (
    select each.id,
      count(message.id) filter (where message.sender_id = each.user2_id and message.sender_id <> each.user1_id
        and not message.is_read and message.deleted_at is null) as unread1,
      count(message.id) filter (where message.sender_id = each.user1_id and message.sender_id <> each.user2_id
        and not message.is_read and message.deleted_at is null) as unread2,
      coalesce(bool_or(message.sender_id = each.user1_id), false) as wrote1,
      coalesce(bool_or(message.sender_id = each.user2_id), false) as wrote2
    from public.chat_rooms each left join public.chat_messages message on message.room_id = each.id
    group by each.id, each.user1_id, each.user2_id
  ) counted
  where room.id = counted.id
    and (room.unread_count_user1, room.unread_count_user2, room.archived_by_user1 is null, room.archived_by_user2 is null,
        room.accepted_by_user1, room.accepted_by_user2)
      is distinct from (counted.unread1, counted.unread2, false, false, counted.wrote1, counted.wrote2)
  returning 1
)
insert into push.migration_report (what, subject, affected_rows)
select 'rows filled in', 'chat_rooms: unread counters, archive and accept flags', count(*) from changed having count(*) > 0;

alter table public.chat_rooms
  alter column unread_count_user1 set not null,
  alter column unread_count_user2 set not null,
  alter column archived_by_user1 set not null,
  alter column archived_by_user2 set not null;

-- A person who deleted a message expects that its text is gone. The conversations get another last_message below.
with cleared as (
  update public.chat_messages set message = '', attachments = '[]'
  where deleted_at is not null and (message <> '' or attachments <> '[]')
  returning room_id
), emptied as (
  update public.chat_rooms set last_message = null, last_message_at = null
  where id in (select room_id from cleared)
)
insert into push.migration_report (what, subject, affected_rows)
select 'text of deleted messages cleared', 'chat_messages: message, attachments', count(*) from cleared having count(*) > 0;

with changed as (
  update public.chat_rooms room
  set last_message = coalesce(room.last_message,
      private.message_line(newest.message, newest.attachments, newest.message_type, 200)),
    last_message_at = coalesce(room.last_message_at, newest.server_timestamp)
  from (
    select distinct on (room_id) room_id, message, attachments, message_type, server_timestamp
    from public.chat_messages where deleted_at is null
    order by room_id, server_timestamp desc, id
  ) newest
  where newest.room_id = room.id and (room.last_message is null or room.last_message_at is null)
  returning 1
)
insert into push.migration_report (what, subject, affected_rows)
select 'rows filled in', 'chat_rooms: last_message, last_message_at', count(*) from changed having count(*) > 0;

-- Devices: a token of another form is not a token of Expo, and each token belongs to the row that was seen last.
with changed as (
  update public.user_devices device
  set device_id = coalesce(device.device_id, device.id::text),
    push_provider = coalesce(device.push_provider, 'expo'),
    is_active = coalesce(device.is_active, true),
    last_seen_at = coalesce(device.last_seen_at, device.updated_at, device.created_at, now()),
    created_at = coalesce(device.created_at, now()),
    updated_at = coalesce(device.updated_at, now())
  where device.device_id is null or device.push_provider is null or device.is_active is null or device.last_seen_at is null
    or device.created_at is null or device.updated_at is null
  returning 1
)
insert into push.migration_report (what, subject, affected_rows)
select 'rows filled in', 'user_devices: device_id, push_provider, is_active, times', count(*) from changed
having count(*) > 0;

with changed as (
  update public.user_devices
  set push_provider = case platform when 'ios' then 'apns' else 'fcm' end
  where push_provider = 'expo' and push_token is not null
    and not private.is_expo_token(push_token)
  returning 1
)
insert into push.migration_report (what, subject, affected_rows)
select 'token is not Expo''s, not sent to', 'user_devices: push_provider', count(*) from changed having count(*) > 0;

with changed as (
  update public.user_devices device
  set push_token = null, is_active = false
  from (
    select id, row_number() over (
      partition by private.canonical_push_token(push_token) order by last_seen_at desc, id) as rank
    from public.user_devices where push_token is not null
  ) ranked
  where ranked.id = device.id and ranked.rank > 1
  returning 1
)
insert into push.migration_report (what, subject, affected_rows)
select 'token belongs to the row seen last', 'user_devices: push_token, is_active', count(*) from changed
having count(*) > 0;

alter table public.user_devices
  alter column device_id set not null,
  alter column push_provider set not null,
  alter column is_active set not null,
  alter column last_seen_at set not null,
  alter column created_at set not null,
  alter column updated_at set not null;
select pg_temp.ensure_unique('public.user_devices', 'unique_user_device', '{user_id,device_id}');
alter table public.user_devices drop constraint if exists expo_push_token_format;
alter table public.user_devices add constraint expo_push_token_format check (
  push_provider <> 'expo' or private.is_expo_token(push_token)
);

update public.user_presence
set is_online = coalesce(is_online, false), updated_at = coalesce(updated_at, now())
where is_online is null or updated_at is null;
alter table public.user_presence
  alter column is_online set not null,
  alter column updated_at set not null;

do $$
declare
  paused record;
begin
  for paused in select * from paused_triggers loop
    execute format('alter table %s enable trigger %I', paused.on_table, paused.name);
  end loop;
end $$;
drop function pg_temp.ensure_key(regclass, text);
drop function pg_temp.ensure_unique(regclass, text, text[]);

-- get_messages_paginated: pages of a conversation, newest first.
create index if not exists idx_messages_conversation_cursor
  on public.chat_messages (room_id, server_timestamp desc, id);
-- get_missed_messages: messages since a time.
create index if not exists idx_messages_room_after_timestamp
  on public.chat_messages (room_id, server_timestamp);
-- get_changed_messages: changes since a time.
create index if not exists idx_messages_changed
  on public.chat_messages (room_id, changed_at, id);
-- A message that an app sends again is not stored again.
create unique index if not exists idx_messages_client_msg_id_unique
  on public.chat_messages (sender_id, client_msg_id) where client_msg_id is not null;
-- limit_message_rate counts the newest messages of a sender.
create index if not exists idx_messages_sender_timestamp
  on public.chat_messages (sender_id, server_timestamp);
-- Unread counters, mark_messages_read, and the newest unread messages of a conversation for its notification.
create index if not exists idx_messages_unread
  on public.chat_messages (room_id, sender_id, server_timestamp) where is_read is not true;
create index if not exists idx_devices_active
  on public.user_devices (user_id, is_active) where is_active = true;
-- A push token names one installation, so it belongs to one row.
create unique index if not exists idx_devices_push_token_unique
  on public.user_devices (private.canonical_push_token(push_token)) where push_token is not null;
create index if not exists idx_receipts_user on public.message_receipts (user_id);
create index if not exists idx_rooms_user1 on public.chat_rooms (user1_id);
create index if not exists idx_rooms_user2 on public.chat_rooms (user2_id);
create index if not exists idx_rooms_tourist on public.chat_rooms (tourist_id);
create index if not exists idx_rooms_guide on public.chat_rooms (guide_id);
