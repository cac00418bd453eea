-- An app as it stood before Chat Push, on an older Supabase project: people, conversations and messages with only the
-- columns of an older app, its own policies, and ALL granted to every API role by default.

alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges in schema public grant all on functions to anon, authenticated, service_role;

create table public.users (
  id uuid primary key references auth.users (id) on delete cascade,
  email text not null,
  full_name text,
  role varchar(20),
  avatar_url text,
  created_at timestamptz not null default now()
);

create table public.chat_rooms (
  id uuid primary key default gen_random_uuid(),
  user1_id uuid not null references public.users (id),
  user2_id uuid not null references public.users (id),
  last_message text,
  last_message_at timestamptz,
  created_at timestamptz default now(),
  updated_at timestamptz default now()
);

create table public.chat_messages (
  id uuid primary key default gen_random_uuid(),
  room_id uuid not null references public.chat_rooms (id) on delete cascade,
  sender_id uuid not null references public.users (id),
  message text not null,
  message_type varchar(20) default 'text',
  is_read boolean default false,
  read_at timestamptz,
  created_at timestamptz default now(),
  updated_at timestamptz default now()
);
create index chat_messages_room_id_created_at_idx on public.chat_messages (room_id, created_at);

alter table public.users enable row level security;
create policy "Signed-in people see profiles" on public.users for select to authenticated using (true);
create policy "People change their own profile" on public.users for update to authenticated
  using ((select auth.uid()) = id);

alter table public.chat_rooms enable row level security;
create policy "Participants see their rooms" on public.chat_rooms for select to authenticated
  using ((select auth.uid()) in (user1_id, user2_id));
create policy "Participants open rooms" on public.chat_rooms for insert to authenticated
  with check ((select auth.uid()) in (user1_id, user2_id));
create policy "Participants update their rooms" on public.chat_rooms for update to authenticated
  using ((select auth.uid()) in (user1_id, user2_id));

alter table public.chat_messages enable row level security;
create policy "Participants see messages" on public.chat_messages for select to authenticated
  using (room_id in (select id from public.chat_rooms));
create policy "Participants send messages" on public.chat_messages for insert to authenticated
  with check (sender_id = (select auth.uid()) and room_id in (select id from public.chat_rooms));
create policy "Participants mark messages as read" on public.chat_messages for update to authenticated
  using (room_id in (select id from public.chat_rooms));

-- Rows. Every id is an md5 of what it is, so that a failing test fails again.
create function public.example_id(kind text, n integer) returns uuid
language sql immutable set search_path = '' as $$ select md5(kind || n)::uuid $$;

insert into auth.users (id, email)
select public.example_id('user', n), 'user' || n || '@example.com' from generate_series(0, 199) n;

-- 0 to 99 are tourists, 100 to 189 guides; then people with another role or none.
insert into public.users (id, email, full_name, role)
select public.example_id('user', n), 'user' || n || '@example.com', 'User ' || n,
  case when n < 100 then 'tourist' when n < 190 then 'guide' when n < 195 then 'admin' end
from generate_series(0, 199) n;

-- 300 rooms; every seventh guide is user1. The last 20 are of the same two people as the first 20. Some with two
-- tourists, or with people who have no role.
insert into public.chat_rooms (id, user1_id, user2_id, created_at, updated_at)
select public.example_id('room', n),
  case when n % 7 = 0 then other.id else public.example_id('user', n % 280 % 100) end,
  case when n % 7 = 0 then public.example_id('user', n % 280 % 100) else other.id end,
  case when n % 50 <> 0 then timestamptz '2026-01-01' + n * interval '1 hour' end,
  timestamptz '2026-01-01' + n * interval '1 hour'
from generate_series(0, 299) n
cross join lateral (
  select public.example_id('user', case when n % 29 = 3 then (n + 1) % 100 else 100 + n % 280 % 100 end) as id
) other;

-- 6000 messages, from both sides, read, unread and neither; pairs at the same instant. Rooms 290 to 299 stay empty.
insert into public.chat_messages (id, room_id, sender_id, message, message_type, is_read, read_at, created_at, updated_at)
select public.example_id('message', n), room.id, case when n % 3 = 0 then room.user1_id else room.user2_id end,
  case when n % 97 = 0 then '' else 'Message ' || n end,
  case when n % 97 = 0 then 'image' when n % 41 <> 0 then 'text' end,
  case when n % 5 < 3 then true when n % 5 = 3 then false end,
  case when n % 5 < 3 then timestamptz '2026-02-01' + n * interval '5 minutes' end,
  case when n % 211 <> 0 then timestamptz '2026-02-01' + (n / 580) * interval '1 day' + (n % 290) * interval '1 minute' end,
  timestamptz '2026-02-01' + n * interval '1 minute'
from generate_series(0, 5999) n
join public.chat_rooms room on room.id = public.example_id('room', n % 290);

-- The old app kept last_message itself, and forgot to in some rooms.
update public.chat_rooms room
set last_message = newest.message, last_message_at = newest.created_at
from (
  select distinct on (room_id) room_id, message, created_at from public.chat_messages
  where created_at is not null order by room_id, created_at desc
) newest
where newest.room_id = room.id and room.id::text !~ '^[0-3]';

drop function public.example_id(text, integer);
