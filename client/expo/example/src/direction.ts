// Right to left. Phones mirror the app by themselves, browsers do not.

import { getLocales } from 'expo-localization';
import { Platform } from 'react-native';

const isMirrored = Platform.OS === 'web' && getLocales()[0]?.textDirection === 'rtl';

/** For the outermost view. */
export const direction = isMirrored ? { dir: 'rtl' } : {};

/** Where a line begins, for textAlign. On phones, React Native swaps left and right. */
export const start = isMirrored ? 'right' : 'left';
