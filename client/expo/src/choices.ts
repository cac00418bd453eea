// What the person chooses: mute, sound, block, report, requests, snooze, quiet hours, previews. All of it is on the server.

import {
  blockedPersonOf,
  preferencesOf,
  type BlockedPerson,
  type NotificationPreferences,
  type PreferenceChanges,
  type Preview,
  type Row,
} from './models.ts';
import type { Server } from './server.ts';
import type { Store } from './store.ts';
import type { Sync } from './sync.ts';

/**
 * Each call needs the server. It throws Rejected, which names the wrong value, RateLimited, ServerUnreachable and
 * NotSignedIn.
 */
export class Choices {
  readonly #store: Store;
  readonly #server: Server;
  readonly #sync: Sync;
  readonly #leave: (conversationId: string) => void;

  /** `leave` ends what is live of a conversation. */
  constructor(store: Store, server: Server, sync: Sync, leave: (conversationId: string) => void) {
    this.#store = store;
    this.#server = server;
    this.#sync = sync;
    this.#leave = leave;
  }

  // Conversations --------------------------------------------------------------------------------

  /** No notification and no badge of it until a time; null: until `unmuteConversation`. */
  async muteConversation(conversationId: string, until: Date | null = null): Promise<void> {
    await this.#server.rpc('mute_conversation', { p_room_id: conversationId, p_until: until?.toISOString() ?? null });
  }

  /** Later messages make a notification again. */
  async unmuteConversation(conversationId: string): Promise<void> {
    await this.#server.rpc('unmute_conversation', { p_room_id: conversationId });
  }

  /** The name of a sound of the app, or none; null: the default. */
  async setConversationSound(conversationId: string, sound: string | null): Promise<void> {
    await this.#server.rpc('set_conversation_sound', { p_room_id: conversationId, p_sound: sound });
  }

  /** It is no message request any more. An answer accepts it, too. */
  async acceptConversation(conversationId: string): Promise<void> {
    await this.#server.rpc('accept_conversation', { p_room_id: conversationId });
    await this.#sync.conversation(conversationId);
  }

  // People ---------------------------------------------------------------------------------------

  /** Nothing more of this person, who does not notice. Their conversation is removed from the local database. */
  async blockUser(userId: string): Promise<void> {
    await this.#server.rpc('block_user', { p_user_id: userId });
    for (const conversation of await this.#store.conversations()) {
      if (conversation.partner.id !== userId) continue;
      this.#leave(conversation.id);
      await this.#store.removeConversation(conversation.id);
    }
    // One that began before the block may have stored the conversation again.
    this.#sync.request();
  }

  /** Ends the block. What was sent or edited meanwhile stays hidden. A sync brings the conversation back. */
  async unblockUser(userId: string): Promise<void> {
    await this.#server.rpc('unblock_user', { p_user_id: userId });
    this.#sync.request();
  }

  /** Whom the person blocks, the newest first. */
  async blockedUsers(): Promise<BlockedPerson[]> {
    return (await this.#server.rows('my_blocked_users', {})).map(blockedPersonOf);
  }

  /** Tells the moderators of a message of another person. `reason`: one of the app's. Returns the id of the report. */
  reportMessage(messageId: string, reason: string, details: string | null = null): Promise<string> {
    return this.#server.text('report_message', { p_message_id: messageId, p_reason: reason, p_details: details });
  }

  /** Tells the moderators of a person. Returns the id of the report. */
  reportUser(userId: string, reason: string, details: string | null = null): Promise<string> {
    return this.#server.text('report_user', { p_user_id: userId, p_reason: reason, p_details: details });
  }

  // Notifications --------------------------------------------------------------------------------

  /** Changes what holds for all conversations. What is left out stays. */
  async setNotificationPreferences({ snoozedUntil, quietHours, whileQuiet, preview }: PreferenceChanges): Promise<void> {
    const changes = {
      snoozed_until: snoozedUntil && snoozedUntil.toISOString(),
      quiet_hours: quietHours,
      while_quiet: whileQuiet,
      preview,
    };
    await this.#server.rpc('set_notification_preferences', { p_preferences: changes }); // JSON leaves out what is undefined
  }

  /** What notifications show on this device, which must be registered; null: as setNotificationPreferences says. */
  async setDevicePreview(preview: Preview | null): Promise<void> {
    await this.#server.rpc('set_device_preview', { p_device_id: this.#store.deviceId, p_preview: preview });
  }

  /** All that a settings screen shows. */
  async myNotificationPreferences(): Promise<NotificationPreferences> {
    return preferencesOf((await this.#server.rpc('my_notification_preferences')) as Row);
  }
}
