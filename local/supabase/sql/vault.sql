-- Stand-in for the extension supabase_vault 0.3.1: its interface and its rights as in its own sql/supabase_vault--0.3.0.sql
-- and as hosted Supabase grants them. Only the cipher differs: it uses sha256, because libsodium is not
-- available here. As in the extension, the key is not in the database, so a dump restored elsewhere cannot be decrypted.
-- The key is the server's setting vault.root_key (local/supabase/postgres.py).

create schema vault;

-- A ciphertext is a tag, which only the same key makes of the same message, and the message, changed byte by byte.

create function vault._xor(message bytea, nonce bytea) returns bytea
language plpgsql stable set search_path = '' as $$
declare
  key bytea := convert_to(current_setting('vault.root_key'), 'UTF8');
  hex text := encode(message, 'hex');
  stream text := '';
  changed bytea := '';
begin
  for block in 0 .. length(message) / 32 loop
    stream := stream || encode(sha256(key || nonce || int4send(block)), 'hex');
  end loop;
  for digit in 1 .. length(hex) by 16 loop  -- eight bytes at a time; what is short of that counts as zeros
    changed := changed || int8send(
      ('x' || rpad(substr(hex, digit, 16), 16, '0'))::bit(64)::bigint # ('x' || substr(stream, digit, 16))::bit(64)::bigint);
  end loop;
  return substr(changed, 1, length(message));
end $$;

create function vault._tag(message bytea, additional bytea, nonce bytea) returns bytea
language plpgsql stable set search_path = '' as $$
begin
  return sha256(
    convert_to(current_setting('vault.root_key'), 'UTF8') || sha256(additional) || sha256(nonce) || message);
end $$;

create function vault._crypto_aead_det_encrypt(
  message bytea, additional bytea, key_id bigint, context bytea default 'pgsodium', nonce bytea default null
) returns bytea
language sql stable set search_path = '' as $$
  select vault._tag(message, additional, nonce) || vault._xor(message, nonce)
$$;

create function vault._crypto_aead_det_decrypt(
  message bytea, additional bytea, key_id bigint, context bytea default 'pgsodium', nonce bytea default null
) returns bytea
language plpgsql stable security definer set search_path = '' as $$  -- no role may call the helpers above directly
declare
  decrypted bytea := vault._xor(substr(message, 33), nonce);
begin
  if substr(message, 1, 32) is distinct from vault._tag(decrypted, additional, nonce) then
    raise data_exception using message = 'pgsodium_crypto_aead_det_decrypt_by_id: invalid ciphertext';
  end if;
  return decrypted;
end $$;

create function vault._crypto_aead_det_noncegen() returns bytea
language sql set search_path = '' as $$ select uuid_send(gen_random_uuid()) $$;

create table vault.secrets (
  id uuid primary key default gen_random_uuid(),
  name text,
  description text not null default '',
  secret text not null,
  key_id uuid,
  nonce bytea default vault._crypto_aead_det_noncegen(),
  created_at timestamptz not null default current_timestamp,
  updated_at timestamptz not null default current_timestamp
);
create unique index on vault.secrets (name) where name is not null;

create view vault.decrypted_secrets as
  select id, name, description, secret,
    convert_from(vault._crypto_aead_det_decrypt(
      message => decode(secret, 'base64'), additional => convert_to(id::text, 'UTF8'), key_id => 0, nonce => nonce
    ), 'UTF8') as decrypted_secret,
    key_id, nonce, created_at, updated_at
  from vault.secrets;

create function vault.create_secret(
  new_secret text, new_name text default null, new_description text default '', new_key_id uuid default null
) returns uuid
language plpgsql security definer set search_path = '' as $$
declare
  created vault.secrets;
begin
  insert into vault.secrets (secret, name, description) values (new_secret, new_name, new_description)
    returning * into created;
  update vault.secrets set secret = encode(vault._crypto_aead_det_encrypt(
    message => convert_to(new_secret, 'UTF8'), additional => convert_to(created.id::text, 'UTF8'), key_id => 0,
    nonce => created.nonce
  ), 'base64') where secrets.id = created.id;
  return created.id;
end $$;

create function vault.update_secret(
  secret_id uuid, new_secret text default null, new_name text default null, new_description text default null,
  new_key_id uuid default null
) returns void
language plpgsql security definer set search_path = '' as $$
declare
  -- The extension, too, decrypts what it is about to replace, and so fails where that cannot be decrypted.
  decrypted_secret text := (
    select decrypted_secrets.decrypted_secret from vault.decrypted_secrets where decrypted_secrets.id = secret_id);
begin
  update vault.secrets set
    secret = coalesce(encode(vault._crypto_aead_det_encrypt(
      message => convert_to(new_secret, 'UTF8'), additional => convert_to(secrets.id::text, 'UTF8'), key_id => 0,
      nonce => secrets.nonce
    ), 'base64'), secrets.secret),
    name = coalesce(new_name, secrets.name),
    description = coalesce(new_description, secrets.description),
    updated_at = now()
  where secrets.id = secret_id;
end $$;

-- Only the owner of the extension writes the table.
revoke execute on all functions in schema vault from public;
grant usage on schema vault to postgres with grant option;
grant select, delete, truncate, references on vault.secrets, vault.decrypted_secrets to postgres with grant option;
grant execute on function vault.create_secret, vault.update_secret, vault._crypto_aead_det_decrypt
  to postgres with grant option;
grant usage on schema vault to service_role;
grant select, delete on vault.secrets, vault.decrypted_secrets to service_role;
grant execute on function vault.create_secret, vault.update_secret, vault._crypto_aead_det_decrypt to service_role;
