-- What every hosted Supabase database holds before the first migration, as far as the migrations rely on it. Run by
-- supabase_admin on a database that belongs to postgres. (Vault: vault.sql.)

grant usage on schema public to anon, authenticated, service_role;

create schema extensions authorization postgres;
grant usage on schema extensions to anon, authenticated, service_role;

create publication supabase_realtime;
alter publication supabase_realtime owner to postgres;
