-- The local database. Times are microseconds since 1970 by the server's clock, unless a comment says otherwise.
-- messages and conversations are what the server has; outbox and read_up_to are laid over them when they are read.

create table if not exists meta (  -- user_id, session, cursor, device_id
  key text primary key,
  value text not null
) without rowid;

create table if not exists people (
  id text primary key,
  display_name text,
  avatar_url text,
  role text
) without rowid;

create table if not exists conversations (
  id text primary key,
  partner_id text not null,
  last_message text,
  last_message_at integer not null,  -- unread counts the messages up to here; 0: none
  unread integer not null,
  archived integer not null,
  is_request integer not null,
  updated_at integer not null,
  read_up_to integer not null default 0  -- what this person has read on this device; the server may not know it yet
) without rowid;

create table if not exists messages (
  id text primary key,
  conversation_id text not null,
  sender_id text not null,
  text text not null,
  attachments text not null,  -- JSON
  message_type text not null,
  client_msg_id text,
  server_timestamp integer not null,
  changed_at integer not null,
  edited_at integer,
  deleted_at integer,
  delivered_at integer,
  read_at integer,
  is_read integer not null
) without rowid;
create index if not exists messages_by_time on messages (conversation_id, server_timestamp, id);

-- At most one entry for each message, so a later edit replaces an earlier one.
create table if not exists outbox (
  seq integer primary key autoincrement,
  id text not null unique,
  conversation_id text not null,
  kind text not null,
  text text not null default '',
  attachments text not null default '[]',
  created_at real not null,  -- seconds since 1970 by the phone's clock, as all times here
  attempts integer not null default 0,
  tried_at real not null default 0,
  next_try real not null default 0,
  edited integer not null default 0,  -- changed since an attempt, which may have stored the older text
  state text not null default 'pending',
  error text
);

-- Marks that the server does not have yet.
create table if not exists delivered_marks (message_id text primary key) without rowid;
create table if not exists read_marks (
  conversation_id text primary key,
  message_id text not null,
  server_timestamp integer not null
) without rowid;
