// Colours and sizes. A component's styles are a function of the theme, so dark mode and large text change in one place.

import type { Colors } from 'chat-push-client/react-native';
import { Platform, StyleSheet, useColorScheme } from 'react-native';

const light = {
  background: '#ffffff',
  surface: '#f0f2f5',
  text: '#12161c',
  muted: '#586271',
  border: '#dde1e7',
  accent: '#1f6feb',
  onAccent: '#ffffff',
  onAccentMuted: '#dbe8ff',
  link: '#0b57c4',
  danger: '#b3261e',
  notice: '#fff4d6',
};

const dark: typeof light = {
  background: '#0d1117',
  surface: '#1c232d',
  text: '#e9eef5',
  muted: '#9fabba',
  border: '#2c3541',
  accent: '#1f6feb',
  onAccent: '#ffffff',
  onAccentMuted: '#dbe8ff',
  link: '#79b8ff',
  danger: '#ff8a80',
  notice: '#332a10',
};

/** The colours of the chat room. */
function roomColors(of: typeof light): Colors {
  const { background, accent, onAccent, surface, text, muted, link, danger } = of;
  return { background, own: accent, ownText: onAccent, other: surface, otherText: text, quiet: muted, accent: link, problem: danger };
}

/**
 * `text`: a font size. On phones the system makes it larger; browsers leave that to the page. `headerText`: one in the
 * header of a screen, which does not grow.
 */
export interface Theme {
  readonly isDark: boolean;
  readonly colors: typeof light;
  readonly room: Colors;
  readonly text: (size: number) => number;
  readonly headerText: (size: number) => number;
}

/** How much larger the text in a header may be. */
export const HEADER_SCALE = 1.3;

const themes = new Map<string, Theme>();

export function useTheme(): Theme {
  const isDark = useColorScheme() === 'dark';
  const scale = Platform.OS === 'web' ? parseFloat(getComputedStyle(document.documentElement).fontSize) / 16 : 1;
  const key = `${isDark} ${scale}`;
  const theme = themes.get(key) ?? {
    isDark,
    colors: isDark ? dark : light,
    room: roomColors(isDark ? dark : light),
    text: (size) => size * scale,
    headerText: (size) => size * Math.min(scale, HEADER_SCALE),
  };
  themes.set(key, theme);
  return theme;
}

/** A hook with the styles of a component. They are made once for each theme. */
export function themed<T extends StyleSheet.NamedStyles<T>>(create: (theme: Theme) => T): () => T {
  const made = new WeakMap<Theme, T>();
  return () => {
    const theme = useTheme();
    const styles = made.get(theme) ?? StyleSheet.create(create(theme));
    made.set(theme, styles);
    return styles;
  };
}
