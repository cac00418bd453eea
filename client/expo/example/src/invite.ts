import * as Linking from 'expo-linking';
import { Platform, Share } from 'react-native';

/** Lets the person share a link that opens a chat with them. Returns whether it was copied, in a browser. */
export async function invite(userId: string | null): Promise<boolean> {
  const url = Linking.createURL(`/with/${userId}`);
  const isBrowser = Platform.OS === 'web';
  if (isBrowser) await navigator.clipboard.writeText(url);
  else await Share.share({ message: url });
  return isBrowser;
}
