-- Triggers of message_receipts. A receipt gets its times from the server's clock, then marks its message.

create function private.stamp_receipt() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
declare
  before public.message_receipts;
  now_at constant timestamptz := clock_timestamp();
begin
  if tg_op = 'UPDATE' then
    before := old;
    -- Apps name it in an upsert. With the times of another message, one could be read before it was sent.
    new.message_id := old.message_id;
  else
    perform private.lock_messages(array[new.message_id]);
  end if;
  -- Who is blocked gets no mark. No error: an app marks many messages at once.
  if exists (
    select from public.chat_messages message
    join private.blocks block on block.blocker_id = new.user_id and block.blocked_id = message.sender_id
    where message.id = new.message_id and (
      upper_inf(block.during) or message.server_timestamp <@ block.during or message.edited_at::timestamptz <@ block.during)
  ) then
    return null;
  end if;
  -- The first value stays, and a message that was read has been delivered.
  new.read_at := coalesce(before.read_at, case when new.read_at is not null then now_at end);
  new.delivered_at := coalesce(before.delivered_at,
    case when coalesce(new.delivered_at, new.read_at) is not null then now_at end);
  new.device_id := coalesce(before.device_id, new.device_id);
  new.read_device_id := case
    when before.read_at is not null then before.read_device_id
    when new.read_at is not null then new.read_device_id
  end;
  return new;
end $$;
comment on function private.stamp_receipt() is
  'Sets the times of a receipt by the server''s clock, once. Locks the message first, as the order of locks demands. Stores no receipt '
  'for a sender who is blocked, nor for a message that a block hides.';

create function private.mark_messages_of_receipts() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off set jit = off as $$
begin
  perform private.lock_messages(array(select message_id from new_receipts));
  update public.chat_messages message
  set delivered_at = coalesce(message.delivered_at, receipt.delivered_at),
    is_read = message.is_read is true or receipt.read_at is not null,
    read_at = coalesce(message.read_at, receipt.read_at)
  from new_receipts receipt
  where message.id = receipt.message_id and message.sender_id <> receipt.user_id
    and ((message.delivered_at is null and receipt.delivered_at is not null)
      or (message.is_read is not true and receipt.read_at is not null));
  return null;
end $$;
comment on function private.mark_messages_of_receipts() is
  'Marks messages as delivered and read, by their receipts.';

create trigger stamp_receipt before insert or update on public.message_receipts
  for each row execute function private.stamp_receipt();
create trigger serialize_writes before insert or update on public.message_receipts
  for each statement execute function private.serialize_writes(4);

create function private.limit_receipt() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  if tg_op = 'INSERT' or new.device_id is distinct from old.device_id then
    perform private.limit_bytes('device_id', new.device_id, 800);
  end if;
  if tg_op = 'INSERT' or new.read_device_id is distinct from old.read_device_id then
    perform private.limit_bytes('read_device_id', new.read_device_id, 800);
  end if;
  return new;
end $$;
comment on function private.limit_receipt() is
  'Limits the device ids of a receipt to the bytes that device_id of user_devices can have.';

create trigger limit_receipt before insert or update on public.message_receipts
  for each row when (octet_length(new.device_id) > 800 or octet_length(new.read_device_id) > 800)
  execute function private.limit_receipt();
create trigger mark_messages_after_insert after insert on public.message_receipts
  referencing new table as new_receipts
  for each statement execute function private.mark_messages_of_receipts();
create trigger mark_messages_after_update after update on public.message_receipts
  referencing new table as new_receipts
  for each statement execute function private.mark_messages_of_receipts();

revoke execute on function
  private.stamp_receipt(), private.mark_messages_of_receipts(), private.limit_receipt()
from public;
