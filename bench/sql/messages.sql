-- A hundred messages of the last four weeks in each of the first bench.messages / 100 conversations, with the rows that
-- triggers and workers write for them. The rows are in order of time, so that each conversation is scattered over the table.

-- Indexes are built at the end, which is several times faster.
create temporary table later as
select indexrelid::regclass::text as name, pg_get_indexdef(indexrelid) as definition
from pg_index
where indrelid in (
    'public.chat_messages'::regclass, 'public.message_receipts'::regclass, 'push.jobs'::regclass,
    'push.decisions'::regclass, 'push.deliveries'::regclass)
  and not exists (select from pg_constraint where conindid = indexrelid);
do $$
declare
  index record;
begin
  for index in table later loop
    execute 'drop index ' || index.name;
  end loop;
end $$;

insert into public.chat_messages
  (id, room_id, sender_id, sender_role, message, client_msg_id, server_timestamp, created_at, delivered_at, is_read, read_at)
select gen_random_uuid(), room_id, case by_guide when true then guide_id else tourist_id end,
  case by_guide when true then 'guide' else 'tourist' end,
  repeat('Where shall we meet tomorrow? ', 1 + (random() * 4)::integer), gen_random_uuid()::text,
  at, at, at + interval '1 second', is_read, case when is_read then at + interval '1 minute' end
from (
  select room.id as room_id, tourist_id, guide_id, random() < 0.5 as by_guide,
    -- In every fifth conversation the newest message is unread.
    not (place = 1 and number % 5 = 0) as is_read,
    now() - (place - random()) * interval '6.7 hours' as at
  from generate_series(1, current_setting('bench.messages')::integer / 100) number
  join public.chat_rooms room on room.id = md5('room' || number)::uuid,
  generate_series(1, 100) place
) made
order by at;

insert into public.message_receipts (message_id, user_id, device_id, delivered_at, read_at, created_at)
select message.id, case when sender_id = user1_id then user2_id else user1_id end, 'phone 1', delivered_at, read_at,
  delivered_at
from public.chat_messages message join public.chat_rooms room on room.id = room_id
order by server_timestamp;

-- One in a thousand jobs waits for an attempt after the end of the benchmark. The others have nothing to do.
insert into push.jobs (room_id, recipient_id, state, decided_up_to, next_attempt_at, changed_at)
select room_id, user_id, case when waits then 'pending' else 'idle' end::push.job_state, newest,
  case when waits then now() + interval '1 hour' end, newest
from (
  select room_id, user_id, max(server_timestamp) as newest, random() < 0.001 as waits
  from public.message_receipts join public.chat_messages message on message.id = message_id group by room_id, user_id
) received;

-- Three of ten messages were viewed at once.
insert into push.decisions (message_id, job_id, outcome, best, reason, created_at, finished_at)
select message.id, job.id, case when viewed then 'skipped' else 'accepted' end::push.outcome,
  case when viewed then 'skipped' else 'accepted' end::push.outcome, case when viewed then 'viewing' end,
  server_timestamp, server_timestamp + interval '1 second'
from (select *, random() < 0.3 as viewed from public.chat_messages) message
join push.jobs job on job.room_id = message.room_id and job.recipient_id <> message.sender_id
order by server_timestamp;

-- All receipts have come, except those of the last quarter of an hour.
insert into push.deliveries (job_id, device_id, kind, digest, message_ids, line_ids, message_at, badge, sound,
  push_token, status, ticket_id, attempts, sent_at, created_at, updated_at, receipt_due_at)
select job.id, device.id, 'alert', md5(decision.message_id::text), array[decision.message_id], array[decision.message_id],
  decision.created_at, 1, true, push_token, case when fresh then 'accepted' else 'handed_over' end, gen_random_uuid()::text, 1,
  decision.created_at, decision.created_at, decision.created_at,
  case when fresh then decision.created_at + interval '15 minutes' end
from push.decisions decision
join push.jobs job on job.id = decision.job_id
join public.user_devices device on device.user_id = job.recipient_id and device.is_active,
lateral (select decision.created_at > now() - interval '15 minutes' as fresh) age
where outcome = 'accepted'
order by decision.created_at;

update public.chat_rooms room
set last_message = newest.message, last_message_at = newest.server_timestamp,
  unread_count_user1 = (newest.sender_id = user2_id and newest.is_read is not true)::integer,
  unread_count_user2 = (newest.sender_id = user1_id and newest.is_read is not true)::integer
from (
  select distinct on (room_id) * from public.chat_messages order by room_id, server_timestamp desc
) newest
where newest.room_id = room.id;

do $$
declare
  index record;
begin
  for index in table later loop
    execute index.definition;
  end loop;
end $$;
