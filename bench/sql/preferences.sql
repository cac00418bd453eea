-- What people choose, for each of the users of people.sql: quiet hours, a preview, a language, a sound and an ended mute of each
-- conversation, and a block of somebody else. So each lookup of a claim and of an insert finds a row.

insert into private.notification_preferences (user_id, quiet_zone, quiet_from, quiet_until, quiet_days, preview)
select md5('person' || n)::uuid, (array['Europe/Berlin', 'Asia/Bangkok', 'America/Sao_Paulo'])[1 + n % 3], '22:00', '07:00',
  '{1,2,3,4,5,6,7}', case when n % 3 = 0 then 'name' else 'full' end
from generate_series(1, 80000) n;

insert into private.conversation_preferences (user_id, room_id, muted_until, sound)
select person, id, now() - interval '1 day', 'chime'
from public.chat_rooms, lateral (values (user1_id), (user2_id)) people (person);

insert into private.blocks (blocker_id, blocked_id, during)
select md5('person' || n)::uuid, md5('person' || 1 + (n + 40000) % 80000)::uuid, tstzrange(now() - interval '1 day', null)
from generate_series(1, 80000) n;

update public.user_devices set locale = (array['de-DE', 'pt-BR', 'en-GB', 'th'])[1 + length(push_token) % 4];
