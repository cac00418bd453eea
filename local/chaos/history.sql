-- What a chaos run is judged by: each change of the tables that decide about pushes, in the change's own transaction,
-- so that it is known whatever became of the answer to whoever made it.

create schema chaos;

create table chaos.history (
  seq bigint generated always as identity primary key,
  relation text not null,
  operation text not null,
  by_user uuid,
  record jsonb not null
);

comment on column chaos.history.by_user is 'The signed-in person who changed it; null: a worker or the owner.';

create function chaos.remember() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  insert into chaos.history (relation, operation, by_user, record)
  values (tg_table_name, tg_op, auth.uid(), to_jsonb(coalesce(new, old)) - 'message' - 'attachments');
  return null;
end $$;

do $$
declare
  relation regclass;
begin
  foreach relation in array array[
    'public.chat_messages', 'public.user_devices', 'public.user_presence', 'push.jobs', 'push.deliveries']::regclass[]
  loop
    execute format(
      'create trigger zz_remember after insert or update or delete on %s for each row execute function chaos.remember()',
      relation);
    -- Also of rows that are written with triggers off.
    execute format('alter table %s enable always trigger zz_remember', relation);
  end loop;
end $$;
