-- The settings that an operator may change, in two tables of one row each: private.chat_settings bounds what a person may
-- write into the chat; push.settings decides when, how fast and to which devices pushes go. Functions read them at each call.

create table private.chat_settings (
  only_row boolean primary key default true check (only_row),
  message_limit integer not null default 30 check (message_limit > 0),
  message_limit_window interval not null default '10 seconds' check (message_limit_window > '0'),
  message_batch_limit integer not null default 100 check (message_batch_limit > 0),
  message_bytes_limit integer not null default 16384 check (message_bytes_limit >= 1024),
  attachment_limit integer not null default 30 check (attachment_limit > 0),
  attachments_bytes_limit integer not null default 32768 check (attachments_bytes_limit > 0),
  attachment_types text[] default '{image,photo,video,audio,voice,location,file}',
  profile_bytes_limit integer not null default 2048 check (profile_bytes_limit > 0),
  deleted_message_kept_for interval not null default '0' check (deleted_message_kept_for >= '0'),
  new_contact_limit integer not null default 20 check (new_contact_limit > 0),
  new_contact_limit_window interval not null default '1 day' check (new_contact_limit_window > '0'),
  report_reasons text[] not null default '{spam,harassment,hate,violence,sexual,fraud,illegal,other}'
    check (cardinality(report_reasons) > 0),
  report_limit integer not null default 20 check (report_limit > 0),
  report_limit_window interval not null default '1 day' check (report_limit_window > '0'),
  report_kept_for interval not null default '180 days' check (report_kept_for >= '0')
);
insert into private.chat_settings default values;

comment on table private.chat_settings is
  'One row: what a person may write, and what remains of a deleted message. Change it with update private.chat_settings set …; the next insert reads it.';
comment on column private.chat_settings.message_limit is
  'Messages that one person may send within message_limit_window. The insert of one more is rejected with HTTP 429.';
comment on column private.chat_settings.message_limit_window is 'The period over which message_limit counts.';
comment on column private.chat_settings.message_batch_limit is
  'Messages that one statement of a person may insert. A statement with more than message_limit messages passes only after '
  'a pause in which the person could have sent as many one by one, so the rate stays the same.';
comment on column private.chat_settings.message_bytes_limit is 'Bytes of the text of a message, in UTF-8.';
comment on column private.chat_settings.attachment_limit is 'Attachments of one message.';
comment on column private.chat_settings.attachments_bytes_limit is 'Bytes of all attachments of one message together, as JSON.';
comment on column private.chat_settings.attachment_types is
  'The types that an attachment may have. With them, an attachment is an object, and its url is an https URL. Null: attachments '
  'may have any form.';
comment on column private.chat_settings.profile_bytes_limit is 'Bytes of display_name, of avatar_url and of locale, each.';
comment on column private.chat_settings.deleted_message_kept_for is
  'How long private.deleted_messages keeps the text and attachments of a message that was deleted by deleted_at. 0: no copy is '
  'stored, and prune_push deletes those that are there.';
comment on column private.chat_settings.new_contact_limit is
  'Strangers to whom one person may begin to write within new_contact_limit_window: people who have not accepted the conversation. '
  'One more is rejected with HTTP 429.';
comment on column private.chat_settings.new_contact_limit_window is 'The period over which new_contact_limit counts.';
comment on column private.chat_settings.report_reasons is 'The reasons that a report may have.';
comment on column private.chat_settings.report_limit is
  'Reports of one person within report_limit_window. One more is rejected with HTTP 429.';
comment on column private.chat_settings.report_limit_window is 'The period over which report_limit counts.';
comment on column private.chat_settings.report_kept_for is
  'How long a report and its copy of the message are kept after it was resolved. An open report is kept.';

create table push.settings (
  only_row boolean primary key default true check (only_row),
  -- Decisions
  -- FCM rejects a longer one.
  time_to_live interval not null default '24 hours' check (time_to_live > '0' and time_to_live <= '28 days'),
  presence_fresh_for interval not null default '45 seconds' check (presence_fresh_for > '0' and presence_fresh_for <= '1 day'),
  default_language text not null default 'en' check (default_language ~* '^[a-z]{2,8}(-[a-z0-9]{1,8})*$'),
  message_requests text not null default 'none' check (message_requests in ('none', 'except_guides', 'all')),
  image_url_prefixes text[] not null default '{}'
    -- Each is an origin, a slash, and perhaps a path. Without the slash, a user, a port or another host could follow.
    check (image_url_prefixes = '{}' or array_to_string(image_url_prefixes, ' ', '?')
      ~ '^(https://[A-Za-z0-9.-]+(:[0-9]+)?/[!-~]*( (?=.)|$))+$'),
  -- Notifications
  sound_interval interval not null default '30 seconds' check (sound_interval >= '0'),
  silent_after interval not null default '1 hour' check (silent_after >= '0'),
  edit_delay interval not null default '1 second' check (edit_delay >= '0'),
  read_delay interval not null default '3 seconds' check (read_delay >= '0'),
  dismissals_per_hour integer not null default 3 check (dismissals_per_hour > 0),
  -- Leases and attempts
  lease_for interval not null default '30 seconds' check (lease_for > '0'),
  expired_lease_limit integer not null default 10 check (expired_lease_limit > 0),
  max_attempts integer not null default 120 check (max_attempts > 0),
  retry_base interval not null default '1 second' check (retry_base > '0'),
  retry_cap interval not null default '15 minutes' check (retry_cap >= retry_base),
  fault_retry_base interval not null default '1 minute' check (fault_retry_base > '0'),
  fault_retry_cap interval not null default '1 hour' check (fault_retry_cap >= fault_retry_base),
  unanswered_retry_delays interval[] not null default '{1 second, 1 minute, 50 minutes}'
    check ('0' < all (unanswered_retry_delays)),
  -- Rates
  notifications_per_second integer not null default 576 check (notifications_per_second > 0),
  notifications_per_claim integer not null default 500 check (notifications_per_claim > 0),
  recipient_share numeric not null default 0.1 check (recipient_share > 0 and recipient_share <= 1),
  -- Devices and their registrations
  device_limit integer not null default 25 check (device_limit > 0),
  stored_device_limit integer not null default 100 check (stored_device_limit > 0),
  registration_limit integer not null default 20 check (registration_limit > 0),
  registration_limit_window interval not null default '1 minute' check (registration_limit_window > '0'),
  device_unseen_for interval not null default '60 days' check (device_unseen_for > '0'),
  device_kept_for interval not null default '90 days' check (device_kept_for > '0'),
  -- Receipts, dead tokens and old rows
  receipt_after interval not null default '15 minutes' check (receipt_after > '0'),
  receipt_lost_after interval not null default '24 hours' check (receipt_lost_after > receipt_after),
  max_attempts_per_device integer not null default 5 check (max_attempts_per_device > 0),
  breaker_share numeric not null default 0.2 check (breaker_share between 0 and 1),
  breaker_devices integer not null default 20 check (breaker_devices > 0),
  job_kept_for interval not null default '30 days' check (job_kept_for > time_to_live)
);
insert into push.settings default values;

comment on table push.settings is 'One row. Change it with update push.settings set …; the next claim reads it.';
comment on column push.settings.time_to_live is 'A message that is older than this is not pushed.';
comment on column push.settings.presence_fresh_for is
  'How long a presence row counts after its last heartbeat. An app that is killed sends no last heartbeat.';
comment on column push.settings.default_language is
  'The language of fixed texts on devices that registered without a locale, or with one that push.languages does not have.';
comment on column push.settings.message_requests is
  'Whose first messages make a message request until the recipient accepts the conversation: all, those of all people; except_guides, but not those '
  'to the guide of the conversation; none.';
comment on column push.settings.image_url_prefixes is
  'Prefixes of the URLs of images that a push may show, besides the storage of the project. The recipient''s phone downloads '
  'the image by itself, so the host of each URL sees the address of the phone.';
comment on column push.settings.sound_interval is
  'While a conversation is unread, its pushes to a device sound at most once in this time. The first one always sounds. '
  'A push without an answer does not count, because it may be lost.';
comment on column push.settings.silent_after is 'A message that is older at its first send arrives without a sound.';
comment on column push.settings.edit_delay is
  'How long after an edit or a deletion phones are told. Several changes within it cost one push.';
comment on column push.settings.read_delay is
  'How long after a read the other devices are told. What a person reads within it is merged into one push for each device.';
comment on column push.settings.dismissals_per_hour is
  'Pushes that remove notifications, for each iPhone and hour: iOS limits background pushes. Further ones are merged and sent later.';
comment on column push.settings.lease_for is
  'How long a claimed job belongs to its worker. It must be longer than the timeout of send_chat_push.';
comment on column push.settings.expired_lease_limit is
  'A job ends when so many of its leases have expired: its workers died before they reported.';
comment on column push.settings.max_attempts is
  'The last bound on the attempts of a job. time_to_live bounds the attempts in an ordinary outage.';
comment on column push.settings.retry_base is 'Delay after the first failed attempt; it doubles with each further one.';
comment on column push.settings.retry_cap is 'The longest delay between two attempts.';
comment on column push.settings.fault_retry_base is
  'Delay of a device after a configuration fault. It doubles with each further fault, because a person must fix the cause.';
comment on column push.settings.fault_retry_cap is 'The longest delay after a configuration fault.';
comment on column push.settings.unanswered_retry_delays is
  'Delays before a message is sent again to a device after a send without a readable answer. After the last delay the '
  'device gets the message once more, then never again, because each send may have reached the phone.';
comment on column push.settings.notifications_per_second is
  'Rate of all workers together. Expo takes 600 a second from a project; 4 % less leaves room for requests that arrive late.';
comment on column push.settings.notifications_per_claim is
  'A claim leases jobs until their devices are so many; the other jobs stay due. It must be below notifications_per_second.';
comment on column push.settings.recipient_share is
  'Share of notifications_per_second that one recipient may take, averaged over two seconds; further jobs are deferred.';
comment on column push.settings.device_limit is
  'Active devices of one person. Beyond it, the device that was seen longest ago is deactivated.';
comment on column push.settings.stored_device_limit is
  'Active and deactivated devices of one person together. Beyond it, the device that was seen longest ago is deleted. A '
  'value below device_limit counts as device_limit.';
comment on column push.settings.registration_limit is
  'Registrations of one person within registration_limit_window. One more is rejected with HTTP 429.';
comment on column push.settings.registration_limit_window is 'The period over which registration_limit counts.';
comment on column push.settings.device_unseen_for is 'A device that did not register for so long is deactivated.';
comment on column push.settings.device_kept_for is 'A device that was deactivated so long ago is deleted.';
comment on column push.settings.receipt_after is
  'When Expo is asked for a receipt for the first time; the delays between further requests grow.';
comment on column push.settings.receipt_lost_after is
  'When Expo has deleted the receipt, and the requests for it end.';
comment on column push.settings.max_attempts_per_device is
  'Attempts after which a receipt with a temporary error does not send the message to its device again.';
comment on column push.settings.breaker_share is
  'If more than this share of a run''s answers report a dead token, no device is deactivated before an operator decides.';
comment on column push.settings.breaker_devices is 'The breaker needs at least this many dead tokens in one run.';
comment on column push.settings.job_kept_for is 'How long a job and its deliveries are kept after its end.';

-- The push services. Workers report what they know of them: only the workers have the credentials.
create table push.providers (
  provider text primary key check (provider in ('expo', 'fcm', 'apns')),
  seen_at timestamptz not null default clock_timestamp(),
  succeeded_at timestamptz,
  failures integer not null default 0,
  paused_until timestamptz
);
insert into push.providers (provider) values ('expo');
comment on table push.providers is
  'The push services that workers have credentials for. The circuit breaker of FCM and APNs is here: a service that refuses '
  'everything gets nothing until paused_until.';
comment on column push.providers.seen_at is 'When a worker last claimed with credentials of this service, to the minute.';
comment on column push.providers.succeeded_at is 'When it last accepted a push, to the minute.';
comment on column push.providers.failures is 'How many times in a row it refused everything.';
comment on column push.providers.paused_until is 'Until then it gets nothing; null: it is not paused.';

create function push.configured_providers() returns text[]
language plpgsql stable set search_path = '' as $$
begin
  -- Workers keep a secret for five minutes. While no worker runs, nothing changes.
  return (
    select array(
      select provider::text from push.providers
      where seen_at > (select max(seen_at) from push.providers) - interval '15 minutes')
  );
end $$;
comment on function push.configured_providers() is
  'Returns the push services that the workers of the last 15 minutes have credentials for. Expo needs none, so it is always there.';

create function push.note_providers(p_providers text[]) returns void
language plpgsql set search_path = '' as $$
begin
  -- Most claims have nothing to note.
  if not exists (
    select from unnest(p_providers) asked (provider) left join push.providers known on known.provider = asked.provider
    where known.provider is null or known.seen_at < clock_timestamp() - interval '1 minute'
  ) then
    return;
  end if;
  insert into push.providers (provider)
  select provider from unnest(p_providers) provider
  where provider not in (select known.provider from push.providers known)
  on conflict do nothing;
  -- Once a minute, and without waiting for another claim that does it.
  update push.providers set seen_at = clock_timestamp()
  where provider in (
    select provider from push.providers
    where provider = any(p_providers) and seen_at < clock_timestamp() - interval '1 minute'
    for no key update skip locked);
end $$;
comment on function push.note_providers(text[]) is 'Notes the push services that a worker has credentials for.';

create function push.paused_providers(p_providers text[]) returns jsonb
language plpgsql stable set search_path = '' as $$
begin
  return (
    select coalesce(jsonb_object_agg(provider, until), '{}') from (
      select provider, case when provider = any(p_providers) then paused_until
        -- This worker has an old secret. Another one, or this one later, sends to the device.
        else clock_timestamp() + interval '1 minute' end as until
      from push.providers
    ) known where until > clock_timestamp()
  );
end $$;
comment on function push.paused_providers(text[]) is
  'Returns until when a worker with credentials for these push services must send nothing to a service: {provider: time}.';

create function push.note_provider_report(p_report jsonb) returns void
language sql set search_path = '' as $$
  update push.providers
  set failures = case when report.fault is null then 0
      -- Workers that sent at the same time report one failure.
      else failures + (coalesce(paused_until, '-infinity') <= clock_timestamp())::integer end,
    succeeded_at = case when report.has_succeeded then clock_timestamp() else succeeded_at end,
    -- Short, because new messages wait for it. The retries of a device wait longer (push.retry_at).
    paused_until = case when report.fault is not null then clock_timestamp() + greatest(
      report.retry_after_seconds * interval '1 second',
      case report.fault
        when 'configuration_fault' then least(interval '5 minutes', settings.fault_retry_base * power(2, least(failures, 20)))
        else least(interval '1 minute', settings.retry_base * power(2, least(failures, 20))) end) end
  from push.settings settings,
    jsonb_to_record(p_report) report (provider text, has_succeeded boolean, fault text, retry_after_seconds double precision)
  where providers.provider = report.provider
    -- Every worker reports, so the row is seldom written.
    and (report.fault is not null or failures > 0
      or (report.has_succeeded and coalesce(succeeded_at, '-infinity') < clock_timestamp() - interval '1 minute'));
$$;
comment on function push.note_provider_report(jsonb) is
  'Notes what a worker reports of a push service: {provider, has_succeeded, fault, retry_after_seconds}. With a fault (retry or '
  'configuration_fault) the service is paused: for 1 second doubling to a minute, or 1 minute doubling to 5; retry_after_seconds '
  'is a lower bound.';
