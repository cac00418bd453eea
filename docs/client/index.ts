// The entry of an app with Expo Router: `"main": "index.ts"` in package.json.

import './client'; // Android runs the background task of a closed app without a screen, so without the root layout
import 'expo-router/entry';
