-- The doorbell: tells send_chat_push at once that a message is there. pg_net may lose it; the sweep finds the job.

create function push.webhook_target(out url text, out secret text)
language plpgsql stable set search_path = '' as $$
begin
  select max(decrypted_secret) filter (where name = 'push_webhook_url'),
    max(decrypted_secret) filter (where name = 'push_webhook_secret')
  into url, secret
  from vault.decrypted_secrets where name in ('push_webhook_url', 'push_webhook_secret');
end $$;
comment on function push.webhook_target() is
  'Where to ring and with which secret; nulls when not configured. Fails when Vault cannot decrypt them, as after a restore.';

create function push.diagnose_webhook_target(out url text, out secret text, out readable boolean)
language plpgsql stable set search_path = '' as $$
begin
  select target.url, target.secret, true into url, secret, readable from push.webhook_target() target;
exception when others then
  readable := false;
end $$;
comment on function push.diagnose_webhook_target() is
  'What webhook_target says, for diagnose_push, which must tell of an unreadable Vault and not fail of it.';

create function push.store_vault_secret(p_name text, p_value text) returns void
language plpgsql set search_path = '' as $$
begin
  -- Not vault.update_secret: it decrypts the old value first. Vault's key is no part of the database, so after a restore
  -- into another project the old value cannot be decrypted, and could never be replaced.
  delete from vault.secrets where name = p_name;
  perform vault.create_secret(p_value, p_name, 'Chat Push: push.configure_webhook()');
end $$;
comment on function push.store_vault_secret(text, text) is 'Stores or replaces a secret of Supabase Vault, readable or not.';

create function push.notify_webhook() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  target record;
begin
  select * into target from push.webhook_target();
  -- The payload of a Supabase Database Webhook, but with ids only: no message text leaves the database here.
  perform net.http_post(
    url => target.url,
    body => jsonb_build_object('type', tg_op, 'table', tg_table_name, 'schema', tg_table_schema,
      'record', jsonb_build_object('id', new.id, 'room_id', new.room_id), 'old_record', null),
    headers => jsonb_build_object('Content-Type', 'application/json', 'x-webhook-secret', target.secret),
    timeout_milliseconds => 5000
  );
  return null;
exception when others then
  -- Whatever is wrong with the doorbell, the message is stored, and the sweep sends its push.
  raise warning 'Chat Push: the webhook did not ring: %', sqlerrm;
  return null;
end $$;
comment on function push.notify_webhook() is 'Rings the webhook after the commit; never aborts the insert of a message.';

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
    -- For messages that have a job, as create_push_job does.
    create trigger notify_webhook after insert on public.chat_messages
      for each row when (new.is_read is not true and new.deleted_at is null)
      execute function push.notify_webhook();
  end if;
end $$;
comment on function push.configure_webhook(text, text) is
  'Sets target and secret of the webhook and installs its trigger; call it again to change either, and after a restore.';

revoke execute on function push.webhook_target(), push.diagnose_webhook_target(), push.store_vault_secret(text, text), push.notify_webhook(),
  push.configure_webhook(text, text) from public;
