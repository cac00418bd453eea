-- The bucket for photos. Whoever knows the URL of a photo can see it, and each URL has a random UUID.
insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types)
values ('chat-photos', 'chat-photos', true, 10485760, '{image/jpeg,image/png,image/webp,image/heic}')
on conflict (id) do nothing;

drop policy if exists "People upload photos into their own folder" on storage.objects;
create policy "People upload photos into their own folder" on storage.objects for insert to authenticated
  with check (bucket_id = 'chat-photos' and (storage.foldername(name))[1] = (select auth.uid())::text);
