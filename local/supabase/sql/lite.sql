-- Supabase Lite logs in as this role, which does the work of two hosted roles: supabase_auth_admin, which owns the
-- schema auth, and authenticator, which becomes anon, authenticated or service_role for each request.
create role supabase_lite login in role anon, authenticated, service_role;
alter role supabase_lite set statement_timeout = '8s';  -- as authenticator has it
grant create on database postgres to supabase_lite;  -- it runs `create schema if not exists` at each start

create schema auth authorization supabase_lite;
grant usage on schema auth to postgres, anon, authenticated, service_role;
alter default privileges for role supabase_lite in schema auth grant all on tables to postgres;

-- Lite creates its three roles if they are missing; it keeps the history of migrations where the Supabase CLI does, and
-- both alter those tables. The CLI logs in as postgres, so postgres has the rights of their owner, supabase_lite.
create schema supabase_migrations authorization supabase_lite;
grant supabase_lite to postgres;

-- At its first request Lite grants ALL on everything to anon, authenticated and service_role, in every schema that has
-- a table with RLS. Hosted Supabase does not, and nothing would test the migrations' own grants. So supabase_lite may
-- pass on no right. But it needs one right on each object. Without any, GRANT is an error instead of a warning, and Lite
-- cannot see the tables in information_schema.
alter default privileges for role postgres grant usage on schemas to supabase_lite;
alter default privileges for role postgres grant references on tables to supabase_lite;
alter default privileges for role postgres grant usage on sequences to supabase_lite;
grant usage on schema realtime to supabase_lite;
grant references on all tables in schema realtime to supabase_lite;
