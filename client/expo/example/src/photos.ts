import type { ChatClient } from 'chat-push-client';
import { randomUUID } from 'expo-crypto';
import { launchImageLibraryAsync } from 'expo-image-picker';

import { supabase } from './supabase';

/** Lets the person choose a photo, uploads it, and sends it. An upload needs a network. Only who knows its URL can see it. */
export async function sendPhoto(chat: ChatClient, conversationId: string): Promise<void> {
  const { assets } = await launchImageLibraryAsync({ mediaTypes: 'images', quality: 0.7 });
  const [photo] = assets ?? [];
  if (!photo) return;
  const content = await (await fetch(photo.uri)).arrayBuffer();
  const contentType = photo.mimeType ?? 'image/jpeg';
  const bucket = supabase.storage.from('chat-photos');
  const { data, error } = await bucket.upload(`${chat.userId}/${randomUUID()}`, content, { contentType });
  if (error) throw error;
  await chat.send(conversationId, '', [{ type: 'image', url: bucket.getPublicUrl(data.path).data.publicUrl }]);
}
