-- The content of a push: title, body and image. An app may replace push.display_name and push.message_preview by functions of
-- its own. So push.compose cleans what they return, and push.finish_unreadable isolates
-- each message for which they fail.

create function push.display_name(p_user_id uuid) returns text
language plpgsql stable set search_path = '' as $$
begin
  -- A column that users does not have is null, by this row. So the query reads names only, and needs no dynamic SQL.
  return (
    select found.name
    from (select null::text as full_name, null::text as name, null::text as first_name, null::text as last_name,
      null::text as nickname, null::text as username) absent
    cross join lateral (
      select coalesce(private.one_line(display_name::text), private.one_line(full_name::text),
        case when pg_typeof(name) <> all ('{json,jsonb}'::regtype[]) then private.one_line(name::text) end,
        -- A name that is older than its limit may have megabytes.
        private.one_line(concat_ws(' ', left(first_name::text, 500), left(last_name::text, 500))),
        private.one_line(nickname::text), private.one_line(username::text)) as name
      from (select * from public.users where id = p_user_id) person
    ) found
  );
end $$;
comment on function push.display_name(uuid) is
  'Returns the title of a push, the name of the sender: the first of the usual columns of users with a visible character. Null: '
  'the push gets a neutral title. An app may replace this function.';

create function push.message_preview(p_message public.chat_messages) returns text
language plpgsql immutable set search_path = '' as $$
begin
  return private.message_line(p_message.message, p_message.attachments, p_message.message_type);
end $$;
comment on function push.message_preview(public.chat_messages) is
  'Returns the body of a push, before it is cut to length. An app may replace this function.';

create function push.message_image(p_message public.chat_messages, p_project_url text) returns text
language sql stable set search_path = '' as $$
  -- A JSON path in lax mode accepts any JSON that an older row holds, and reads at most 100 attachments of it.
  select found ->> 'url'
  from jsonb_path_query(p_message.attachments, 'lax $[0 to 99] ? (@.type == "image" || @.type == "photo")')
    with ordinality as listed (found, position)
  where found ->> 'url' ~ '^[!-~]+$' and octet_length(found ->> 'url') <= 2048
    -- No segment that leads out of the path of the prefix.
    and found ->> 'url' !~* '(\.\.|\\|%2e|%2f|%5c)'
    and exists (
      select from push.settings, unnest(image_url_prefixes || (p_project_url || '/storage/v1/')) prefix
      where starts_with(found ->> 'url', prefix)
    )
  order by position limit 1;
$$;
comment on function push.message_image(public.chat_messages, text) is
  'Returns the URL of the first image that a push may show, or null. Allowed are the storage of the project and the prefixes '
  'in push.settings.image_url_prefixes.';

create function push.compose_line(p_message public.chat_messages) returns text
language plpgsql stable set search_path = '' as $$
begin
  -- Older rows and rows of backends may be of any size and form. A push shows 200 characters.
  p_message.message := left(p_message.message, 2000);
  if pg_column_size(p_message.attachments) > 65536 or jsonb_typeof(p_message.attachments) is distinct from 'array' then
    p_message.attachments := '[]';
  end if;
  return coalesce(private.one_line(push.message_preview(p_message)), 'New message');
end $$;
comment on function push.compose_line(public.chat_messages) is
  'Returns a message as a line of a push. It calls a function that an app may replace, so it may raise any error.';

create function push.compose(p_sender_id uuid, p_line_ids uuid[], p_project_url text) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  message_id uuid;
  sent public.chat_messages;
  lines text[] := '{}';
  fixed_lines integer[] := '{}';
  image_url text;
begin
  foreach message_id in array p_line_ids loop
    select * into strict sent from public.chat_messages where id = message_id;
    if lines = '{}' and sent.attachments <> '[]' and pg_column_size(sent.attachments) <= 65536 then
      image_url := push.message_image(sent, p_project_url);
    end if;
    -- The kind of a message without a text: the worker knows its translations.
    if private.one_line(sent.message) is null then
      fixed_lines := fixed_lines || cardinality(lines);
    end if;
    lines := lines || push.compose_line(sent);
  end loop;
  return jsonb_build_object(
    'title', private.one_line(push.display_name(p_sender_id)),
    'body', array_to_string(lines, e'\n'),
    'fixed_lines', fixed_lines,
    'image_url', case when length(image_url) <= 2048 then image_url end
  );
end $$;
comment on function push.compose(uuid, uuid[], text) is
  'Returns title, body, image_url and fixed_lines of a notification that shows these messages, the newest first: the title as one line, the '
  'body as one line for each message, and which of these lines are the kind of a message without text, from 0.';

create function push.neutral_title(p_sender_id uuid) returns text
language plpgsql stable set search_path = '' as $$
begin
  return private.one_line(push.display_name(p_sender_id));
exception when others or assert_failure then
  return null;
end $$;
comment on function push.neutral_title(uuid) is
  'Returns the title of the push that replaces a deleted text. If the name cannot be read, null: the push must be sent anyway.';

create function push.finish_unreadable(p_plan push.plan) returns uuid[]
language plpgsql set search_path = '' as $$
declare
  line_id uuid;
  failed uuid[] := '{}';
begin
  foreach line_id in array p_plan.line_ids loop
    begin
      perform push.compose(null, array[line_id], null);
    exception when others or assert_failure then
      failed := failed || line_id;
    end;
  end loop;
  if failed = '{}' then
    -- The name of the sender fails, or the messages fail only together: none of them can be shown.
    failed := p_plan.open_ids;
  end if;
  insert into push.decisions as known (message_id, job_id, outcome, reason, finished_at)
  select id, (p_plan.job).id, 'failed', 'unreadable', clock_timestamp() from unnest(failed) id
  on conflict (message_id) do update
    set reason = 'unreadable', finished_at = coalesce(known.finished_at, clock_timestamp()),
      outcome = coalesce(known.outcome, greatest(known.best, 'failed'));
  return failed;
end $$;
comment on function push.finish_unreadable(push.plan) is
  'Ends the decisions about messages of a job that cannot be composed, so that no push shows them. Returns these messages.';

revoke execute on all functions in schema push from public;
