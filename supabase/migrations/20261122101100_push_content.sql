-- The content of a push: title, body and image. An app may replace push.display_name and push.message_preview by functions of
-- its own. So push.compose cleans what they return, and push.compose_jobs isolates each message for which they fail.

create function push.display_name(p_user_id uuid) returns text
language sql stable set search_path = '' as $$
  -- A column that users does not have is null, by this row. So the query reads names only, and needs no dynamic SQL.
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
  ) found;
$$;
comment on function push.display_name(uuid) is
  'Returns the title of a push, the name of the sender: the first of the usual columns of users with a visible character. Null: '
  'the push gets a neutral title. An app may replace this function.';

create function push.message_preview(p_message public.chat_messages) returns text
language sql immutable set search_path = '' as $$
  select private.message_line(p_message.message, p_message.attachments, p_message.message_type);
$$;
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

create function push.compose(p_message_id uuid, p_project_url text) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  sent public.chat_messages;
begin
  select * into strict sent from public.chat_messages where id = p_message_id;
  -- Older rows and rows of backends may be of any size and form. A push shows 200 characters.
  sent.message := left(sent.message, 2000);
  if pg_column_size(sent.attachments) > 65536 or jsonb_typeof(sent.attachments) is distinct from 'array' then
    sent.attachments := '[]';
  end if;
  return jsonb_build_object(
    'title', private.one_line(push.display_name(sent.sender_id)),
    'body', coalesce(private.one_line(push.message_preview(sent)), 'New message'),
    'image_url', (select url from push.message_image(sent, p_project_url) url where length(url) <= 2048)
  );
end $$;
comment on function push.compose(uuid, text) is
  'Returns title and body of a push as one line each, and image_url. It calls functions that an app may replace, so it may raise any error.';

create function push.compose_jobs(
  p_message_ids uuid[], p_project_url text, p_at timestamptz,
  out jobs jsonb, out failed uuid[], out postponed uuid[], out devices integer
)
language plpgsql set search_path = '' as $$
declare
  began_at constant timestamptz := clock_timestamp();
  job record;
  composed jsonb[] := '{}';
begin
  failed := '{}';
  postponed := '{}';
  devices := 0;
  for job in
    select jsonb_build_object(
      'message_id', due.message_id,
      'room_id', sent.room_id,
      'sender_id', sent.sender_id,
      'recipient_id', due.recipient_id,
      'badge', unread.total,
      'sent_at', sent.server_timestamp,
      'attempt', due.attempts + 1,
      'devices', device.list
    ) as fields, due.message_id
    from push.jobs due
    join public.chat_messages sent on sent.id = due.message_id
    cross join lateral (
      -- The badge on the icon of the app counts the messages of all conversations.
      select coalesce(sum(case when room.user1_id = due.recipient_id
        then room.unread_count_user1 else room.unread_count_user2 end), 0) as total
      from public.chat_rooms room
      where room.user1_id = due.recipient_id or room.user2_id = due.recipient_id
    ) unread
    cross join lateral (
      -- Empty, if the last device was deactivated between the decision and this query.
      select coalesce(jsonb_agg(jsonb_build_object(
        'device_id', sendable.device_id, 'push_token', sendable.push_token)), '[]') as list
      from push.sendable_devices sendable where sendable.message_id = due.message_id and sendable.due_at <= p_at
    ) device
    where due.message_id = any(p_message_ids)
    order by sent.server_timestamp
  loop
    -- A function of the app may be slow, and the worker waits five seconds for its claim: a few jobs are better than none.
    if clock_timestamp() > began_at + interval '2 seconds' then
      postponed := postponed || job.message_id;
      continue;
    end if;
    begin
      composed := composed || (job.fields || push.compose(job.message_id, p_project_url));
      devices := devices + jsonb_array_length(job.fields -> 'devices');
    exception when others or assert_failure then
      -- One message that cannot be composed must not stop the others. The error text is not logged: it may quote the message.
      raise warning 'Chat Push: message % cannot be composed: SQLSTATE %', job.message_id, sqlstate;
      failed := failed || job.message_id;
    end;
  end loop;
  jobs := to_jsonb(composed);
end $$;
comment on function push.compose_jobs(uuid[], text, timestamptz) is
  'Composes the jobs of these messages. Returns jobs (what a worker needs to send them, with devices and push tokens), the '
  'number of their devices, and the messages for which composing failed, or was postponed because time ran out.';

revoke execute on all functions in schema push from public;
