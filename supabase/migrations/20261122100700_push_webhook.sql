-- The doorbell: tells send_chat_push at once that a message is there. pg_net may lose it; the sweep finds the job.

create table push.webhook (
  only_row boolean primary key default true check (only_row),
  url text not null,
  secret text not null
);
comment on table push.webhook is 'Target and secret of the webhook where there is no Vault to keep them.';

create function push.webhook_target(out url text, out secret text)
language plpgsql stable set search_path = '' as $$
begin
  if to_regclass('vault.decrypted_secrets') is null then
    select webhook.url, webhook.secret into url, secret from push.webhook;
  else
    select max(decrypted_secret) filter (where name = 'push_webhook_url'),
      max(decrypted_secret) filter (where name = 'push_webhook_secret')
    into url, secret from vault.decrypted_secrets;
  end if;
end $$;
comment on function push.webhook_target() is 'Where to ring and with which secret; nulls when not configured.';

create function push.keep_in_vault(p_name text, p_value text) returns void
language plpgsql set search_path = '' as $$
declare
  known uuid;
begin
  select id into known from vault.secrets where name = p_name;
  if found then
    perform vault.update_secret(known, p_value);
  else
    perform vault.create_secret(p_value, p_name);
  end if;
end $$;
comment on function push.keep_in_vault(text, text) is 'Stores or replaces a secret of Supabase Vault.';

create function push.ring_doorbell() returns trigger
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
comment on function push.ring_doorbell() is 'Rings the webhook after the commit; never aborts the insert of a message.';

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
    insert into push.webhook (url, secret) values (configure_webhook.url, configure_webhook.secret)
    on conflict (only_row) do update set url = excluded.url, secret = excluded.secret;
  else
    perform push.keep_in_vault('push_webhook_url', configure_webhook.url);
    perform push.keep_in_vault('push_webhook_secret', configure_webhook.secret);
  end if;
  if not exists (
    select from pg_trigger where tgname = 'ring_doorbell' and tgrelid = 'public.chat_messages'::regclass
  ) then
    -- For messages that have a job, as create_push_job does.
    create trigger ring_doorbell after insert on public.chat_messages
      for each row when (new.is_read is not true and new.deleted_at is null)
      execute function push.ring_doorbell();
  end if;
end $$;
comment on function push.configure_webhook(text, text) is
  'Sets target and secret of the webhook and installs its trigger; call it again to change either.';

revoke execute on function push.webhook_target(), push.keep_in_vault(text, text), push.ring_doorbell(),
  push.configure_webhook(text, text) from public;
