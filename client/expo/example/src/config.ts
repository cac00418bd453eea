// Where the project is. Expo replaces these variables when it bundles the app, so each must be written out.

export const supabaseUrl = required('EXPO_PUBLIC_SUPABASE_URL', process.env.EXPO_PUBLIC_SUPABASE_URL);
export const publishableKey = required(
  'EXPO_PUBLIC_SUPABASE_PUBLISHABLE_KEY',
  process.env.EXPO_PUBLIC_SUPABASE_PUBLISHABLE_KEY,
);
export const apiUrl = required('EXPO_PUBLIC_CHAT_PUSH_URL', process.env.EXPO_PUBLIC_CHAT_PUSH_URL);

function required(name: string, value: string | undefined): string {
  if (!value) throw new Error(`${name} is not set: write it to .env.local, as README.md says, and start Expo again`);
  return value;
}
