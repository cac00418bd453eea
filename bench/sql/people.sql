-- 80,000 users with 100,000 devices, and 10,000 conversations of a tourist with one of 500 guides. Ids are computed from
-- numbers: md5('person7'), md5('room7').

insert into auth.users (id) select md5('person' || n)::uuid from generate_series(1, 80000) n;
insert into public.users (id, display_name, role)
select md5('person' || n)::uuid, 'Person ' || n, case when n <= 500 then 'guide' else 'tourist' end
from generate_series(1, 80000) n;

insert into public.user_devices (user_id, device_id, platform, push_token, is_active, last_seen_at)
select md5('person' || n)::uuid, 'phone ' || phone, case when n % 2 = 0 then 'ios' else 'android' end,
  format('ExponentPushToken[%s-%s]', n, phone), random() < 0.95, now() - random() * interval '50 days'
from generate_series(1, 80000) n, generate_series(1, 2) phone
where phone = 1 or n % 4 = 0;

-- One user in fifty has the app open until the end of the benchmark.
insert into public.user_presence (user_id, is_online, current_conversation_id, last_seen_at, updated_at)
select md5('person' || n)::uuid, n % 50 = 0, md5('room' || n)::uuid, at, at
from generate_series(1, 80000) n,
  lateral (select now() - case when n % 50 = 0 then interval '-1 day' else n * interval '20 seconds' end as at) seen;

-- Both people have written before: the first message of each costs more, once.
insert into public.chat_rooms (id, user1_id, user2_id, tourist_id, guide_id, accepted_by_user1, accepted_by_user2)
select md5('room' || n)::uuid, tourist, guide, tourist, guide, true, true
from generate_series(1, 10000) n,
  lateral (select md5('person' || 500 + n)::uuid as tourist, md5('person' || 1 + n % 500)::uuid as guide) people;

insert into push.receipt_runs (id, began_at, state, receipts)
select gen_random_uuid(), now() - n * interval '15 minutes', 'finished', 1000 from generate_series(1, 2880) n;
