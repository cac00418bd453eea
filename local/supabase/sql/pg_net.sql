-- Stand-in for the extension pg_net 0.20.4, as far as the project uses it: the tables and http_post as in its own
-- sql/pg_net.sql. local/supabase/pg_net.py sends the requests. A commit wakes it, as it wakes pg_net's worker.

create schema net;

create unlogged table net.http_request_queue (
  id bigserial,
  method text not null,
  url text not null,
  headers jsonb,
  body bytea,
  timeout_milliseconds int not null
);

create unlogged table net._http_response (
  id bigint,
  status_code int,
  content_type text,
  headers jsonb,
  content text,
  timed_out bool,
  error_msg text,
  created timestamptz not null default now()
);
create index on net._http_response (created);

create function net.wake() returns void
language sql as $$ select pg_notify('pg_net', '') $$;

create function net._urlencode_string(string text) returns text
language sql immutable as $$
  select string_agg(
    case
      when c ~ '[A-Za-z0-9._~-]' then c
      else regexp_replace(upper(encode(convert_to(c, 'UTF8'), 'hex')), '(..)', '%\1', 'g')
    end,
    '' order by n
  )
  from regexp_split_to_table(string, '') with ordinality as characters (c, n)
$$;

create function net.http_post(
  url text,
  body jsonb default '{}',
  params jsonb default '{}',
  headers jsonb default '{"Content-Type": "application/json"}',
  timeout_milliseconds int default 5000
) returns bigint  -- the request's id
language plpgsql as $$
declare
  request_id bigint;
  content_type text;
  query text;
begin
  select value into content_type
    from jsonb_each_text(coalesce(headers, '{}')) where lower(key) = 'content-type' limit 1;
  if content_type is null then
    headers := headers || '{"Content-Type": "application/json"}';
  elsif content_type <> 'application/json' then
    raise exception 'Content-Type header must be "application/json"';
  end if;

  select string_agg(net._urlencode_string(key) || '=' || net._urlencode_string(value), '&') into query
    from jsonb_each_text(params);

  insert into net.http_request_queue (method, url, headers, body, timeout_milliseconds)
    values (
      'POST',
      url || coalesce(case when strpos(url, '?') > 0 then '&' else '?' end || query, ''),
      headers,
      convert_to(body::text, 'UTF8'),
      timeout_milliseconds
    )
    returning id into request_id;
  perform net.wake();
  return request_id;
end $$;

-- As the extension does: any role may queue a request, and may read what is queued.
grant usage on schema net to public;
grant all on all sequences in schema net to public;
grant all on all tables in schema net to public;
