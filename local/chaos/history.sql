-- Records each change of the tables that decide about pushes, in the transaction of the change. local/chaos/history.py
-- reads the records.

create schema chaos;

create table chaos.history (
  seq bigint generated always as identity primary key,
  relation text not null,
  operation text not null,
  by_user uuid,
  record jsonb not null
);

comment on column chaos.history.by_user is 'The signed-in user who made the change. Null: a worker or the owner.';

create function chaos.record_change() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  record constant jsonb := to_jsonb(coalesce(new, old));
begin
  insert into chaos.history (relation, operation, by_user, record)
  values (tg_table_name, tg_op, auth.uid(),
    -- A text of an older database may be long.
    record - 'message' - 'attachments' || jsonb_build_object('text', left(record ->> 'message', 100)));
  return null;
end $$;

do $$
declare
  relation regclass;
begin
  foreach relation in array array[
    'public.chat_messages', 'public.user_devices', 'public.user_presence', 'push.jobs', 'push.decisions',
    'push.deliveries', 'private.conversation_preferences']::regclass[]
  loop
    execute format(
      'create trigger zz_record_change after insert or update or delete on %s'
      ' for each row execute function chaos.record_change()',
      relation);
    -- Rows that are written with session_replication_role = replica are recorded too.
    execute format('alter table %s enable always trigger zz_record_change', relation);
  end loop;
end $$;
