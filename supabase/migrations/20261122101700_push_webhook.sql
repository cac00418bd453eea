-- The webhook: after the commit of a message, pg_net calls the HTTP API, which queues the id for send_chat_push. pg_net may lose
-- a call; the scheduled sweep then finds the job. push.configure_webhook stores URL and secret in Supabase Vault, and creates
-- the trigger.

create function push.webhook_target(out url text, out secret text)
language plpgsql stable set search_path = '' as $$
begin
  select max(decrypted_secret) filter (where name = 'push_webhook_url'),
    max(decrypted_secret) filter (where name = 'push_webhook_secret')
  into url, secret
  from vault.decrypted_secrets where name in ('push_webhook_url', 'push_webhook_secret');
end $$;
comment on function push.webhook_target() is
  'Returns URL and secret of the webhook; nulls when not configured. Fails when Vault cannot decrypt them, as after a restore.';

create function push.diagnose_webhook_target(out url text, out secret text, out readable boolean)
language plpgsql stable set search_path = '' as $$
begin
  select target.url, target.secret, true into url, secret, readable from push.webhook_target() target;
exception when others then
  readable := false;
end $$;
comment on function push.diagnose_webhook_target() is
  'Returns webhook_target for diagnose_push, which must not fail: readable is false when Vault cannot decrypt the secrets.';

create function push.store_vault_secret(p_name text, p_value text) returns void
language plpgsql set search_path = '' as $$
begin
  -- Not vault.update_secret: it decrypts the old value first. The key of Vault is not in the database. So after a restore into
  -- another project, the old value cannot be decrypted, and vault.update_secret could never replace it.
  delete from vault.secrets where name = p_name;
  perform vault.create_secret(p_value, p_name, 'Chat Push: push.configure_webhook()');
end $$;
comment on function push.store_vault_secret(text, text) is
  'Stores or replaces a secret of Supabase Vault, also one that cannot be decrypted.';

create function push.call_webhook(p_type text, p_message_id uuid, p_room_id uuid) returns void
language plpgsql security definer set search_path = '' as $$
declare
  target record;
begin
  select * into target from push.webhook_target();
  if target.url is null then
    return;
  end if;
  -- The payload of a Supabase Database Webhook, with ids only: no message text leaves the database here.
  perform net.http_post(
    url => target.url,
    body => jsonb_build_object('type', p_type, 'table', 'chat_messages', 'schema', 'public',
      'record', jsonb_build_object('id', p_message_id, 'room_id', p_room_id), 'old_record', null),
    headers => jsonb_build_object('Content-Type', 'application/json', 'x-webhook-secret', target.secret),
    timeout_milliseconds => 5000
  );
exception when others then
  -- The change is stored even if the webhook cannot be called; the sweep sends its push.
  raise warning 'Chat Push: the webhook was not called: %', sqlerrm;
end $$;
comment on function push.call_webhook(text, uuid, uuid) is
  'Calls the webhook after the commit, if it is configured. It never aborts the statement that changed a message.';

create function push.notify_webhook() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
begin
  -- The conversations whose jobs create_push_job, which runs before, has made due. One message of each is enough: it names the job.
  perform push.call_webhook(tg_op, added.id, added.room_id)
  from (
    select distinct on (room_id, sender_id) id, room_id, sender_id from new_messages
    where is_read is not true and deleted_at is null order by room_id, sender_id, server_timestamp desc
  ) added
  join push.jobs job on job.room_id = added.room_id and job.recipient_id <> added.sender_id and job.state <> 'idle'
  where job.next_attempt_at <= clock_timestamp();
  return null;
end $$;
comment on function push.notify_webhook() is 'Calls the webhook for the new messages of each conversation.';

create function push.configure_webhook(url text, secret text) returns void
language plpgsql set search_path = '' as $$
begin
  if url is null or url !~ '^(https://|http://(127\.0\.0\.1|localhost)[:/])' then
    raise invalid_parameter_value using
      message = 'url must start with https://',
      hint = 'Pass the output WebhookUrl of the deployed stack.';
  end if;
  if secret is null or length(secret) < 24 then
    raise invalid_parameter_value using
      message = 'secret must have at least 24 characters',
      hint = 'Pass the current secret of authorize_webhook.';
  end if;
  if to_regnamespace('net') is null then
    raise undefined_object using
      message = 'the extension pg_net is missing',
      hint = 'Enable it: create extension pg_net;';
  end if;
  if to_regclass('vault.secrets') is null then
    raise undefined_object using
      message = 'the extension supabase_vault is missing',
      hint = 'Enable it: create extension supabase_vault;';
  end if;
  perform push.store_vault_secret('push_webhook_url', configure_webhook.url);
  perform push.store_vault_secret('push_webhook_secret', configure_webhook.secret);
  if not exists (
    select from pg_trigger where tgname = 'notify_webhook' and tgrelid = 'public.chat_messages'::regclass
  ) then
    -- Its name sorts after create_push_job, so it runs after it.
    create trigger notify_webhook after insert on public.chat_messages
      referencing new table as new_messages
      for each statement execute function push.notify_webhook();
  end if;
end $$;
comment on function push.configure_webhook(text, text) is
  'Sets URL and secret of the webhook and creates its trigger. Call it again to change them, and after a restore.';

revoke execute on all functions in schema push from public;
