-- Two copies of chat_messages without our triggers, with the same columns, indexes, foreign keys, policies and rows.
-- bench.event_messages sends each new row to both people by the trigger that Supabase's guide recommends
-- (https://supabase.com/docs/guides/realtime/subscribing-to-database-changes).
create schema bench;
grant usage on schema bench to authenticated;
do $$
declare
  name text;
begin
  foreach name in array array['bare_messages', 'event_messages'] loop
    execute format('create table bench.%I (like public.chat_messages including all)', name);
    execute format('insert into bench.%I table public.chat_messages', name);
    execute format('alter table bench.%I
      add foreign key (room_id) references public.chat_rooms (id) on delete cascade,
      add foreign key (sender_id) references public.users (id) on delete cascade,
      enable row level security', name);
    execute format('grant select, insert on bench.%I to authenticated', name);
    execute format('create policy insert_sender on bench.%I for insert to authenticated
      with check (sender_id = (select auth.uid()) and room_id in (select private.my_rooms()))', name);
  end loop;
end $$;

create function bench.send_changes() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  perform realtime.broadcast_changes('user:' || person, tg_op, tg_op, tg_table_name, tg_table_schema, new, old)
  from public.chat_rooms room cross join lateral unnest(array[user1_id, user2_id]) person where room.id = new.room_id;
  return null;
end $$;
create trigger send_changes after insert or update or delete on bench.event_messages
  for each row execute function bench.send_changes();
