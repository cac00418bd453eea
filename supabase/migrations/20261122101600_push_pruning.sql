-- Pruning: what cleanup_receipts deletes or ends because of its age. The ages are in push.settings
-- and private.chat_settings.

create index idx_push_decisions_finished on push.decisions (finished_at) where outcome is not null;
create index idx_push_deliveries_updated on push.deliveries (updated_at);
-- diagnose_push counts them.
create index idx_push_deliveries_silenced on push.deliveries (updated_at) where silenced_by is not null;
create index if not exists idx_devices_last_seen on public.user_devices (last_seen_at);
create index if not exists idx_presence_online on public.user_presence (updated_at) where is_online;

create function public.prune_push(p_limit integer default 1000) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  settings push.settings;
  now_at constant timestamptz := clock_timestamp();
  offline integer;
  unseen integer;
  devices integer;
  decisions integer;
  deliveries integer;
  jobs integer;
  copies integer;
  reports integer;
begin
  select * into strict settings from push.settings;

  -- Arrays are computed once. A subquery may run again for each row, and lock other rows each time.
  perform set_config('chat_push.writes_presence_sum', 'yes', true);
  -- updated_at stays: the person was last seen at the last heartbeat.
  update public.user_presence set is_online = false, current_conversation_id = null, last_seen_at = updated_at
  where user_id = any(array(
    select user_id from public.user_presence
    where is_online and updated_at < now_at - settings.presence_fresh_for
    limit p_limit for update skip locked
  ));
  get diagnostics offline = row_count;
  perform set_config('chat_push.writes_presence_sum', '', true);
  delete from private.device_presence
  where (user_id, device_id) in (
    select user_id, device_id from private.device_presence
    where updated_at < now_at - interval '1 day' for update skip locked
  );

  update public.user_devices set is_active = false
  where id = any(array(
    select id from public.user_devices
    where is_active and last_seen_at < now_at - settings.device_unseen_for
    limit p_limit for update skip locked
  ));
  get diagnostics unseen = row_count;

  delete from public.user_devices
  where id = any(array(
    select id from public.user_devices
    where not is_active and updated_at < now_at - settings.device_kept_for
      and last_seen_at < now_at - settings.device_kept_for
    limit p_limit for update skip locked
  ));
  get diagnostics devices = row_count;

  delete from push.decisions
  where message_id = any(array(
    select message_id from push.decisions
    where outcome is not null and finished_at < now_at - settings.job_kept_for
    limit p_limit for update skip locked
  ));
  get diagnostics decisions = row_count;

  delete from push.deliveries
  where id = any(array(
    select id from push.deliveries where updated_at < now_at - settings.job_kept_for limit p_limit for update skip locked
  ));
  get diagnostics deliveries = row_count;

  delete from push.jobs
  where id = any(array(
    select id from push.jobs
    where state = 'idle' and changed_at < now_at - settings.job_kept_for limit p_limit for update skip locked
  ));
  get diagnostics jobs = row_count;

  delete from private.deleted_messages
  where message_id = any(array(
    select message_id from private.deleted_messages
    where deleted_at <= now_at - (select deleted_message_kept_for from private.chat_settings)
    limit p_limit for update skip locked
  ));
  get diagnostics copies = row_count;

  delete from private.reports
  where id = any(array(
    select id from private.reports
    where resolved_at <= now_at - (select report_kept_for from private.chat_settings)
    limit p_limit for update skip locked
  ));
  get diagnostics reports = row_count;

  delete from private.new_contacts
  where (sender_id, room_id) in (
    select sender_id, room_id from private.new_contacts
    where began_at < now_at - (select new_contact_limit_window from private.chat_settings)
    limit p_limit for update skip locked
  );

  delete from push.recipient_rates
  where recipient_id = any(array(
    select recipient_id from push.recipient_rates
    where greatest(free_at, queued_until) < now_at - interval '1 minute' for update skip locked
  ));
  delete from push.receipt_runs where state <> 'held' and began_at < now_at - settings.job_kept_for;

  return jsonb_build_object(
    'presence_offline', offline, 'devices_deactivated', unseen, 'devices_deleted', devices,
    'decisions_deleted', decisions, 'jobs_deleted', jobs,
    'more', greatest(offline, unseen, devices, decisions, deliveries, jobs, copies, reports) >= p_limit
  );
end $$;
comment on function public.prune_push(integer) is
  'Sets stale presence offline, deactivates and deletes unseen devices, deletes old decisions, deliveries and jobs, and old reports and copies of deleted messages: at '
  'most p_limit rows of each kind, so that no lock lasts. Returns how many; call it again while `more` is true.';

revoke execute on function
  public.prune_push(integer)
from public, anon, authenticated;
grant execute on function
  public.prune_push(integer)
to service_role;
