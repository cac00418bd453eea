-- The settings that an operator may change.

create table push.settings (
  only_row boolean primary key default true check (only_row),
  time_to_live interval not null default '24 hours' check (time_to_live > '0'),
  presence_fresh_for interval not null default '45 seconds' check (presence_fresh_for > '0'),
  lease_for interval not null default '30 seconds' check (lease_for > '0'),
  max_attempts integer not null default 100 check (max_attempts > 0),
  retry_base interval not null default '5 seconds' check (retry_base > '0'),
  retry_cap interval not null default '15 minutes' check (retry_cap >= retry_base),
  notifications_per_second integer not null default 576 check (notifications_per_second > 0),
  device_limit integer not null default 25 check (device_limit > 0),
  message_limit integer not null default 30 check (message_limit > 0),
  message_limit_window interval not null default '10 seconds' check (message_limit_window > '0')
);
insert into push.settings default values;

comment on table push.settings is 'One row. Change it with update push.settings set …; the next claim reads it.';
comment on column push.settings.time_to_live is 'A message older than this is not pushed any more.';
comment on column push.settings.presence_fresh_for is
  'How long a presence row counts after its last heartbeat. An app that was killed never says goodbye.';
comment on column push.settings.lease_for is
  'How long a claimed job belongs to its worker. Must be longer than the timeout of send_chat_push.';
comment on column push.settings.max_attempts is
  'Backstop against a job that fails for ever; ordinary outages are bounded by time_to_live.';
comment on column push.settings.retry_base is 'Wait after the first failed attempt; doubles with each further one.';
comment on column push.settings.retry_cap is 'The longest wait between two attempts.';
comment on column push.settings.notifications_per_second is
  'Pace of all workers together. Expo takes 600 a second of a project; 4 % less leaves room for requests that arrive late.';
comment on column push.settings.device_limit is
  'Active devices that one person may have; the least recently seen one goes.';
comment on column push.settings.message_limit is
  'Messages that one person may send within message_limit_window; more are refused with HTTP 429.';
