-- The fixed texts of pushes, such as "New message", in the languages of devices. The source is the English text; the worker looks it up
-- (texts.py). An app adds languages and texts by inserts.

create table push.languages (
  language text primary key check (language ~ '^[a-z]{2,8}(-[a-z0-9]{1,8})*$' and language <> 'en'),
  plurals jsonb not null default '{}' check (jsonb_typeof(plurals) = 'object'),
  texts jsonb not null default '{}'
);
comment on table push.languages is 'The languages of push.translations: BCP 47 tags in lower case. English needs no row.';
comment on column push.languages.plurals is
  'The plural categories of the numbers from 0 to 99, as of CLDR: {category: [[from, before], …]}. A number that is in none is other.';
comment on column push.languages.texts is
  'push.translations as claims return it: {source: {forms: {category: text}, plurals}}. Written by push.collect_texts.';

create table push.translations (
  language text not null references push.languages (language) on delete cascade,
  source text not null,
  category text not null default 'other' check (category in ('zero', 'one', 'two', 'few', 'many', 'other')),
  translation text not null,
  primary key (language, source, category)
);
comment on table push.translations is
  'Fixed texts in other languages. A source that a language does not have is taken from the language without its last subtag, then from '
  'push.settings.default_language, then from English.';
comment on column push.translations.source is 'The English text, with placeholders in braces.';
comment on column push.translations.category is 'Of a source with {count}: the plural category.';

create function push.collect_texts() returns trigger
language plpgsql set search_path = '' as $$
begin
  update push.languages set texts = collected.texts
  from (
    select known.language, coalesce(jsonb_object_agg(source, jsonb_build_object('forms', forms, 'plurals', known.plurals))
      filter (where source is not null), '{}') as texts
    from push.languages known left join (
      select language, source, jsonb_object_agg(category, translation) as forms from push.translations group by language, source
    ) translated on translated.language = known.language
    group by known.language
  ) collected
  where collected.language = languages.language and collected.texts <> languages.texts;
  return null;
end $$;
comment on function push.collect_texts() is
  'Keeps push.languages.texts. Translations seldom change, and each claim reads them.';

create trigger collect_texts after insert or update or delete or truncate on push.translations
  for each statement execute function push.collect_texts();
create trigger collect_texts after update of plurals on push.languages
  for each statement execute function push.collect_texts();

-- Plural categories are those of CLDR; a test compares them with ICU's.
insert into push.languages (language, plurals) values
  ('ar', '{"zero": [[0, 1]], "one": [[1, 2]], "two": [[2, 3]], "few": [[3, 11]], "many": [[11, 100]]}'),
  ('de', '{"one": [[1, 2]]}'), ('es', '{"one": [[1, 2]]}'), ('fr', '{"one": [[0, 2]]}'), ('pt', '{"one": [[0, 2]]}'),
  ('ja', '{}'), ('th', '{}'), ('zh', '{}');

insert into push.translations (language, source, translation)
select given.language, given.source, given.translation from (values
  ('de', 'New message', 'Neue Nachricht'), ('de', '{count} new messages', '{count} neue Nachrichten'),
  ('de', 'New message request', 'Neue Nachrichtenanfrage'), ('de', 'Message deleted', 'Nachricht gelöscht'),
  ('de', 'Open the app to read it', 'Zum Lesen die App öffnen'), ('de', '📷 Photo', '📷 Foto'), ('de', '🎥 Video', '🎥 Video'),
  ('de', '🎤 Voice message', '🎤 Sprachnachricht'), ('de', '📍 Location', '📍 Standort'), ('de', '📎 File', '📎 Datei'),
  ('es', 'New message', 'Mensaje nuevo'), ('es', '{count} new messages', '{count} mensajes nuevos'),
  ('es', 'New message request', 'Nueva solicitud de mensaje'), ('es', 'Message deleted', 'Mensaje eliminado'),
  ('es', 'Open the app to read it', 'Abre la app para leerlo'), ('es', '📷 Photo', '📷 Foto'), ('es', '🎥 Video', '🎥 Vídeo'),
  ('es', '🎤 Voice message', '🎤 Mensaje de voz'), ('es', '📍 Location', '📍 Ubicación'), ('es', '📎 File', '📎 Archivo'),
  ('fr', 'New message', 'Nouveau message'), ('fr', '{count} new messages', '{count} nouveaux messages'),
  ('fr', 'New message request', 'Nouvelle demande de message'), ('fr', 'Message deleted', 'Message supprimé'),
  ('fr', 'Open the app to read it', 'Ouvrez l’application pour le lire'), ('fr', '📷 Photo', '📷 Photo'), ('fr', '🎥 Video', '🎥 Vidéo'),
  ('fr', '🎤 Voice message', '🎤 Message vocal'), ('fr', '📍 Location', '📍 Position'), ('fr', '📎 File', '📎 Fichier'),
  ('pt', 'New message', 'Nova mensagem'), ('pt', '{count} new messages', '{count} novas mensagens'),
  ('pt', 'New message request', 'Nova solicitação de mensagem'), ('pt', 'Message deleted', 'Mensagem apagada'),
  ('pt', 'Open the app to read it', 'Abra o app para ler'), ('pt', '📷 Photo', '📷 Foto'), ('pt', '🎥 Video', '🎥 Vídeo'),
  ('pt', '🎤 Voice message', '🎤 Mensagem de voz'), ('pt', '📍 Location', '📍 Localização'), ('pt', '📎 File', '📎 Arquivo'),
  ('ar', 'New message', 'رسالة جديدة'), ('ar', '{count} new messages', '{count} رسالة جديدة'),
  ('ar', 'New message request', 'طلب مراسلة جديد'), ('ar', 'Message deleted', 'تم حذف الرسالة'),
  ('ar', 'Open the app to read it', 'افتح التطبيق لقراءتها'), ('ar', '📷 Photo', '📷 صورة'), ('ar', '🎥 Video', '🎥 فيديو'),
  ('ar', '🎤 Voice message', '🎤 رسالة صوتية'), ('ar', '📍 Location', '📍 موقع'), ('ar', '📎 File', '📎 ملف'),
  ('th', 'New message', 'ข้อความใหม่'), ('th', '{count} new messages', 'ข้อความใหม่ {count} ข้อความ'),
  ('th', 'New message request', 'คำขอส่งข้อความใหม่'), ('th', 'Message deleted', 'ลบข้อความแล้ว'),
  ('th', 'Open the app to read it', 'เปิดแอปเพื่ออ่าน'), ('th', '📷 Photo', '📷 รูปภาพ'), ('th', '🎥 Video', '🎥 วิดีโอ'),
  ('th', '🎤 Voice message', '🎤 ข้อความเสียง'), ('th', '📍 Location', '📍 ตำแหน่ง'), ('th', '📎 File', '📎 ไฟล์'),
  ('ja', 'New message', '新着メッセージ'), ('ja', '{count} new messages', '新着メッセージ{count}件'), ('ja', '{name} ({count})', '{name}（{count}）'),
  ('ja', 'New message request', '新しいメッセージリクエスト'), ('ja', 'Message deleted', 'メッセージが削除されました'),
  ('ja', 'Open the app to read it', 'アプリを開いてお読みください'), ('ja', '📷 Photo', '📷 写真'), ('ja', '🎥 Video', '🎥 動画'),
  ('ja', '🎤 Voice message', '🎤 音声メッセージ'), ('ja', '📍 Location', '📍 位置情報'), ('ja', '📎 File', '📎 ファイル'),
  ('zh', 'New message', '新消息'), ('zh', '{count} new messages', '{count} 条新消息'), ('zh', '{name} ({count})', '{name}（{count}）'),
  ('zh', 'New message request', '新的消息请求'), ('zh', 'Message deleted', '消息已删除'),
  ('zh', 'Open the app to read it', '打开应用查看'), ('zh', '📷 Photo', '📷 照片'), ('zh', '🎥 Video', '🎥 视频'),
  ('zh', '🎤 Voice message', '🎤 语音消息'), ('zh', '📍 Location', '📍 位置'), ('zh', '📎 File', '📎 文件')
) given (language, source, translation);
insert into push.translations (language, source, category, translation) values
  ('ar', '{count} new messages', 'two', 'رسالتان جديدتان'),
  ('ar', '{count} new messages', 'few', '{count} رسائل جديدة');

create function push.language_chain(p_locale text) returns text[]
language plpgsql immutable set search_path = '' as $$
declare
  -- An older column of an app may hold de_DE.
  tag text := lower(replace(p_locale, '_', '-'));
  chain text[] := '{}';
begin
  while tag <> '' loop
    chain := chain || tag;
    tag := substring(tag from '^(.*)-');
  end loop;
  return chain;
end $$;
comment on function push.language_chain(text) is
  'Returns a BCP 47 tag in lower case, followed by it without its last subtag, and so on: zh-hant-tw, zh-hant, zh.';

create function push.language_of(p_locale text, p_default text, p_known text[]) returns text
language plpgsql immutable set search_path = '' as $$
declare
  locale text;
  tag text;
begin
  foreach locale in array array[p_locale, p_default] loop
    foreach tag in array push.language_chain(locale) loop
      if tag = 'en' then
        return '';
      elsif tag = any(p_known) then
        return tag;
      end if;
    end loop;
  end loop;
  return '';
end $$;
comment on function push.language_of(text, text, text[]) is
  'Returns the first language of a locale, then of the default, that is known; empty: English.';

create function push.texts_of(p_languages text[]) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  default_chain constant text[] := push.language_chain((select default_language from push.settings));
  found jsonb := '{}';
  texts jsonb;
  language text;
  tag text;
begin
  foreach language in array p_languages loop
    continue when language = '';
    texts := '{}';
    foreach tag in array push.language_chain(language) || default_chain loop
      -- What follows English is not asked.
      exit when tag = 'en';
      -- A text that is there already stays.
      texts := coalesce((select known.texts from push.languages known where known.language = tag), '{}') || texts;
    end loop;
    found := found || jsonb_build_object(language, texts);
  end loop;
  return found;
end $$;
comment on function push.texts_of(text[]) is
  'Returns the fixed texts of these languages: {language: texts as in push.languages}.';

revoke execute on all functions in schema push from public;
