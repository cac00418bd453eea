"""What Supabase hosts: Postgres, the Data API, Auth and pg_net."""
