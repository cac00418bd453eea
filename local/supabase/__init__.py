"""The parts of Supabase: Postgres, Data API, Auth and pg_net."""
