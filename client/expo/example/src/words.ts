// What the app says about errors.

import { DatabaseInUse, OtherAccount, RateLimited, ServerUnreachable, SignInRejected } from 'chat-push-client';

/** What went wrong, for the person who uses the app. */
export function problem(error: unknown): string {
  if (error instanceof RateLimited) return `Too many attempts. Try again in ${error.retryAfter} seconds.`;
  if (error instanceof ServerUnreachable) return 'No connection. Try again when you are online.';
  if (error instanceof SignInRejected) return 'The e-mail address or the password is wrong.';
  if (error instanceof OtherAccount) return 'This device has the chats of another account. Sign in with that one.';
  if (isInUse(error)) return 'The chat is open in another window. Close that one, and load this one again.';
  return error instanceof Error ? error.message : String(error);
}

function isInUse(error: unknown): boolean {
  // In a browser, expo-sqlite does not come as far as SQLite: the files of the database are locked.
  return error instanceof DatabaseInUse || (error instanceof Error && error.message.startsWith('NoModificationAllowedError'));
}
