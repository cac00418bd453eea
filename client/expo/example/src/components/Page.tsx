import { Stack } from 'expo-router';
import type { ReactNode } from 'react';
import { ScrollView } from 'react-native';

import { themed } from '../theme';

/** A screen of settings. */
export function Page({ title, children }: { readonly title: string; readonly children: ReactNode }) {
  const styles = useStyles();
  return (
    <ScrollView contentContainerStyle={styles.content}>
      <Stack.Screen options={{ title }} />
      {children}
    </ScrollView>
  );
}

const useStyles = themed(() => ({
  content: { gap: 24, padding: 16, width: '100%', maxWidth: 640, alignSelf: 'center' },
}));
