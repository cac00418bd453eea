// The entry of the app. Android runs the background task of a closed app without a screen, so without the root layout.

import './src/push';
import 'expo-router/entry';
