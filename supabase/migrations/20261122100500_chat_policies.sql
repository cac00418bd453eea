-- Row level security, policies and grants: who may see and write which rows and columns of the chat tables. Each table's
-- policies stand before its grants. Grants are explicit, because Supabase has no default grants since 2026-10-30. Columns
-- that no grant names are written by the server only.

-- These functions run as their owner, so that policies which refer to each other do not recurse. `rows 20`: a person has
-- tens of conversations; without it, the planner would assume 1000.
create function private.my_rooms() returns setof uuid
language sql stable security definer rows 20 set search_path = '' as $$
  select id from public.chat_rooms where user1_id = (select auth.uid())
  union all
  select id from public.chat_rooms where user2_id = (select auth.uid());
$$;
comment on function private.my_rooms() is 'Returns the ids of the conversations of the caller.';

create function private.my_partners() returns setof uuid
language sql stable security definer rows 20 set search_path = '' as $$
  select user2_id from public.chat_rooms where user1_id = (select auth.uid())
  union all
  select user1_id from public.chat_rooms where user2_id = (select auth.uid());
$$;
comment on function private.my_partners() is 'Returns the ids of the people with whom the caller has a conversation.';

create function private.my_contacts() returns setof uuid
language sql stable security definer rows 20 set search_path = '' as $$
  select user2_id from public.chat_rooms
  where user1_id = (select auth.uid()) and accepted_by_user1 and accepted_by_user2
    and user2_id not in (select blocker_id from private.blocks where blocked_id = (select auth.uid()) and upper_inf(during))
    and user2_id not in (select blocked_id from private.my_blocks() where upper_inf(during))
  union all
  select user1_id from public.chat_rooms
  where user2_id = (select auth.uid()) and accepted_by_user1 and accepted_by_user2
    and user1_id not in (select blocker_id from private.blocks where blocked_id = (select auth.uid()) and upper_inf(during))
    and user1_id not in (select blocked_id from private.my_blocks() where upper_inf(during));
$$;
comment on function private.my_contacts() is
  'Returns the ids of the people with whom the caller has a conversation that both have accepted, without a block of either: the '
  'caller may see their presence.';

revoke execute on function private.my_rooms(), private.my_partners(), private.my_contacts() from public;
grant execute on function private.my_rooms(), private.my_partners(), private.my_contacts() to authenticated;

-- users: an existing app keeps its own policies and grants. Without row level security, the table gets ours.
do $$
begin
  if not (select relrowsecurity from pg_class where oid = 'public.users'::regclass) then
    alter table public.users enable row level security;
    create policy users_select_self_and_partners on public.users for select to authenticated
      using (id = (select auth.uid()) or id in (select private.my_partners()));
    create policy users_insert_self on public.users for insert to authenticated
      with check (id = (select auth.uid()));
    create policy users_update_self on public.users for update to authenticated
      using (id = (select auth.uid())) with check (id = (select auth.uid()));
    revoke all on public.users from public, anon, authenticated, service_role;
    grant select, insert (id, display_name, role, avatar_url, locale),
      update (display_name, avatar_url, locale) on public.users to authenticated;
    grant all on public.users to service_role;
  end if;
end $$;

alter table public.chat_rooms enable row level security;
alter table public.chat_messages enable row level security;
alter table public.message_receipts enable row level security;
alter table public.user_devices enable row level security;
alter table public.user_presence enable row level security;

-- Older policies are dropped: permissive policies add up, so an older one would allow what the policies below forbid.
do $$
declare
  older record;
begin
  for older in
    select policyname, tablename from pg_policies where schemaname = 'public'
      and tablename in ('chat_rooms', 'chat_messages', 'message_receipts', 'user_devices', 'user_presence')
  loop
    execute format('drop policy %I on public.%I', older.policyname, older.tablename);
    insert into push.migration_report (what, subject)
    values ('policy replaced', older.tablename || ': ' || older.policyname);
  end loop;
end $$;

-- An app's own columns stay writable as before, in the rows that the policies below allow to write.
create temporary table own_columns on commit drop as
  select relname, attname, privilege
  from pg_catalog.pg_attribute join pg_catalog.pg_class on pg_class.oid = attrelid
  cross join unnest('{insert,update}'::text[]) privilege
  where relnamespace = 'public'::regnamespace and attnum > 0 and not attisdropped and attgenerated = ''
    and has_column_privilege('authenticated', attrelid, attnum, privilege)
    and ((relname = 'chat_rooms' and attname <> all ('{id,user1_id,user2_id,last_message,last_message_at,created_at,
        updated_at,tourist_id,guide_id,unread_count_user1,unread_count_user2,archived_by_user1,archived_by_user2,
        accepted_by_user1,accepted_by_user2}'))
      or (relname = 'chat_messages' and attname <> all ('{id,room_id,sender_id,message,message_type,is_read,read_at,
        created_at,updated_at,client_msg_id,sender_role,attachments,edited_at,deleted_at,delivered_at,server_timestamp,
        changed_at}'))
      or (relname = 'message_receipts' and attname <> all (
        '{id,message_id,user_id,device_id,delivered_at,read_at,read_device_id,created_at}'))
      or (relname = 'user_devices' and attname <> all ('{id,user_id,device_id,platform,push_token,push_provider,app_version,
        is_active,last_seen_at,created_at,updated_at,session_id,push_environment,locale}'))
      or (relname = 'user_presence' and attname <> all (
        '{user_id,is_online,last_seen_at,current_conversation_id,updated_at}')));

revoke all on public.chat_rooms, public.chat_messages, public.message_receipts, public.user_devices,
  public.user_presence from public, anon, authenticated, service_role;
grant all on public.chat_rooms, public.chat_messages, public.message_receipts, public.user_devices,
  public.user_presence to service_role;

-- A person archives conversations and never deletes them: a delete archives, too (archive_deleted_room). The columns behind
-- the first line of a grant are granted because old apps name them; triggers decide what is stored.
-- A conversation is hidden from a person who blocks the other one: its last_message and counters are what the other one should see.
create policy chat_rooms_select_participants on public.chat_rooms for select to authenticated
  using ((select auth.uid()) in (user1_id, user2_id) and id not in (select private.my_blocked_rooms()));
create policy chat_rooms_insert_participant on public.chat_rooms for insert to authenticated
  with check ((select auth.uid()) in (user1_id, user2_id));
create policy chat_rooms_update_participant on public.chat_rooms for update to authenticated
  using ((select auth.uid()) in (user1_id, user2_id)) with check ((select auth.uid()) in (user1_id, user2_id));
create policy chat_rooms_delete_participant on public.chat_rooms for delete to authenticated
  using ((select auth.uid()) in (user1_id, user2_id));
grant select, delete,
  insert (id, user1_id, user2_id,
    last_message, last_message_at, created_at, updated_at, tourist_id, guide_id, unread_count_user1, unread_count_user2,
    archived_by_user1, archived_by_user2),
  update (archived_by_user1, archived_by_user2,
    last_message, last_message_at, updated_at, unread_count_user1, unread_count_user2)
  on public.chat_rooms to authenticated;

-- A person deletes messages by deleted_at: a delete sets it, too (soft_delete_messages). The recipient marks messages by
-- receipts, or by an update of unread messages, which writes receipts (guard_message_change, create_receipts).
-- private.my_blocks is called once for a query, not for each row. `nullif … is not null` means `not exists`, of which the planner would
-- expect that it removes half of the messages: a page of a conversation would then read all of them.
create policy chat_messages_select_participants on public.chat_messages for select to authenticated
  using (room_id in (select private.my_rooms()) and nullif(exists (
    select from private.my_blocks() block
    where block.blocked_id = sender_id and (server_timestamp <@ block.during or edited_at::timestamptz <@ block.during)
  ), true) is not null);
create policy chat_messages_insert_sender on public.chat_messages for insert to authenticated
  with check (sender_id = (select auth.uid()) and room_id in (select private.my_rooms()));
create policy chat_messages_update_sender_or_unread on public.chat_messages for update to authenticated
  using ((sender_id = (select auth.uid()) or is_read is not true) and room_id in (select private.my_rooms()) and not exists (
    select from private.my_blocks() block
    where block.blocked_id = sender_id
      and (upper_inf(block.during) or server_timestamp <@ block.during or edited_at::timestamptz <@ block.during)
  ))
  with check (room_id in (select private.my_rooms()));
create policy chat_messages_delete_sender on public.chat_messages for delete to authenticated
  using (sender_id = (select auth.uid()) and room_id in (select private.my_rooms()));
grant select, delete,
  insert (id, room_id, sender_id, message, message_type, client_msg_id, attachments,
    is_read, read_at, created_at, updated_at, sender_role, edited_at, deleted_at, delivered_at, server_timestamp),
  update (message, attachments, deleted_at,
    is_read, read_at, delivered_at, created_at, updated_at, edited_at)
  on public.chat_messages to authenticated;

do $$
declare
  own record;
begin
  for own in select * from own_columns loop
    execute format('grant %s (%I) on public.%I to authenticated', own.privilege, own.attname, own.relname);
  end loop;
  insert into push.migration_report (what, subject)
  select 'right of an app''s own column kept', format('%s.%s: %s', relname, attname, string_agg(privilege, ', ' order by privilege))
  from own_columns group by relname, attname order by relname, attname;
end $$;

-- Users cannot delete receipts. user_id and message_id are granted for update because an upsert names them. The array of partners
-- is computed once and read by an index; the policy of chat_messages then selects the receipts of shared conversations.
create policy receipts_select_participants on public.message_receipts for select to authenticated
  using (
    user_id = (select auth.uid())
    or (user_id = any (array(select private.my_partners()))
      and exists (select from public.chat_messages message where message.id = message_receipts.message_id))
  );
create policy receipts_insert_own on public.message_receipts for insert to authenticated
  with check (user_id = (select auth.uid()) and exists (
    select from public.chat_messages message
    where message.id = message_receipts.message_id and message.sender_id <> message_receipts.user_id
  ));
create policy receipts_update_own on public.message_receipts for update to authenticated
  using (user_id = (select auth.uid()))
  with check (user_id = (select auth.uid()) and exists (
    select from public.chat_messages message
    where message.id = message_receipts.message_id and message.sender_id <> message_receipts.user_id
  ));
grant select, insert (message_id, user_id, device_id, delivered_at, read_at, read_device_id),
  update (message_id, user_id, device_id, delivered_at, read_at, read_device_id) on public.message_receipts to authenticated;

create policy devices_select_own on public.user_devices for select to authenticated
  using (user_id = (select auth.uid()));
create policy devices_insert_own on public.user_devices for insert to authenticated
  with check (user_id = (select auth.uid()));
create policy devices_update_own on public.user_devices for update to authenticated
  using (user_id = (select auth.uid())) with check (user_id = (select auth.uid()));
create policy devices_delete_own on public.user_devices for delete to authenticated
  using (user_id = (select auth.uid()));
-- The times are granted because apps send them, here and in user_presence; triggers replace them by the server's clock.
grant select, delete,
  insert (user_id, device_id, platform, push_token, push_provider, push_environment, app_version, locale, is_active,
    last_seen_at, created_at, updated_at),
  update (user_id, device_id, platform, push_token, push_provider, push_environment, app_version, locale, is_active,
    last_seen_at, created_at, updated_at)
  on public.user_devices to authenticated;

-- A policy cannot hide one column. So the row of a person who views a conversation with a third person is hidden meanwhile.
create policy presence_select_self_and_contacts on public.user_presence for select to authenticated
  using (
    user_id = (select auth.uid())
    or (user_id in (select private.my_contacts())
      and (current_conversation_id is null or current_conversation_id in (select private.my_rooms())))
  );
create policy presence_insert_own on public.user_presence for insert to authenticated
  with check (user_id = (select auth.uid()));
create policy presence_update_own on public.user_presence for update to authenticated
  using (user_id = (select auth.uid())) with check (user_id = (select auth.uid()));
create policy presence_delete_own on public.user_presence for delete to authenticated
  using (user_id = (select auth.uid()));
grant select, delete,
  insert (user_id, is_online, last_seen_at, current_conversation_id, updated_at),
  update (user_id, is_online, last_seen_at, current_conversation_id, updated_at)
  on public.user_presence to authenticated;

-- Realtime: the tables whose changes apps subscribe to. With REPLICA IDENTITY FULL, its event of an update would have the old
-- row, which is the text of a message that is being deleted (realtime.apply_rls in https://github.com/supabase/realtime).
do $$
declare
  name text;
begin
  if not exists (select from pg_publication where pubname = 'supabase_realtime') then
    create publication supabase_realtime;
  end if;
  foreach name in array array['chat_messages', 'chat_rooms', 'message_receipts', 'user_presence'] loop
    if not exists (
      select from pg_publication_tables
      where pubname = 'supabase_realtime' and schemaname = 'public' and tablename = name
    ) then
      execute format('alter publication supabase_realtime add table public.%I', name);
    end if;
    if (select relreplident from pg_class where oid = format('public.%I', name)::regclass) = 'f' then
      execute format('alter table public.%I replica identity default', name);
      insert into push.migration_report (what, subject) values ('replica identity set to default', name);
    end if;
  end loop;
end $$;
