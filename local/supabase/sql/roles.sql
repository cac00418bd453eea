-- The roles of a hosted Supabase server, as github.com/supabase/postgres sets them up. Run once per server by its
-- superuser, which is called supabase_admin there and here.

create role anon nologin;
create role authenticated nologin;
create role service_role nologin bypassrls;
-- service_role has no limit of its own: it keeps the 8 s of the login role of the Data API (lite.sql).
alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';

-- Migrations run as this role. It is not a superuser, so what needs a superuser fails here as on hosted Supabase.
create role postgres login createdb createrole replication bypassrls;
grant anon, authenticated, service_role to postgres with admin option;
alter database postgres owner to postgres;

-- Owns the schema realtime. postgres may create policies on its tables.
create role supabase_realtime_admin noinherit nologin;
grant supabase_realtime_admin to postgres;
