-- A copy of chat_messages without our triggers, with the same columns, indexes, foreign keys, policies and rows.
create schema bench;
grant usage on schema bench to authenticated;
create table bench.bare_messages (like public.chat_messages including all);
insert into bench.bare_messages table public.chat_messages;
alter table bench.bare_messages
  add foreign key (room_id) references public.chat_rooms (id) on delete cascade,
  add foreign key (sender_id) references public.users (id) on delete cascade,
  enable row level security;
grant select, insert on bench.bare_messages to authenticated;
create policy insert_sender on bench.bare_messages for insert to authenticated
  with check (sender_id = (select auth.uid()) and room_id in (select private.my_rooms()));
