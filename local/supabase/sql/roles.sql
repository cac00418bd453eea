-- The roles of a hosted Supabase server, as github.com/supabase/postgres sets them up. Run once per server by its
-- superuser, which is called supabase_admin there and here.

create role anon nologin;
create role authenticated nologin;
create role service_role nologin bypassrls;
-- service_role has no limit of its own: it keeps that of the role as which the Data API logs in, 8 s (lite.sql).
alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';

-- Migrations run as this role. It is no superuser: what only a superuser may do fails here as it would when hosted.
create role postgres login createdb createrole replication bypassrls;
grant anon, authenticated, service_role to postgres with admin option;
alter database postgres owner to postgres;
