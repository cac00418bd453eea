// The stand-ins of this folder have the types of the modules that they stand for. This file is type-checked, never run.

import type * as Application from 'expo-application';
import type Constants from 'expo-constants';
import type * as Device from 'expo-device';
import type * as Crypto from 'expo-crypto';
import type * as Notifications from 'expo-notifications';
import type * as SecureStore from 'expo-secure-store';
import type * as TaskManager from 'expo-task-manager';
import type * as ReactNative from 'react-native';

import * as application from './expo-application.ts';
import constants from './expo-constants.ts';
import * as device from './expo-device.ts';
import * as crypto from './expo-crypto.ts';
import * as notifications from './expo-notifications.ts';
import * as secureStore from './expo-secure-store.ts';
import * as taskManager from './expo-task-manager.ts';
import * as reactNative from './react-native.ts';

type Enums = 'AndroidImportance' | 'IosAuthorizationStatus'; // The stand-in has one member of each.
type Some<T> = { [K in keyof T]?: Partial<T[K]> };

application satisfies Partial<typeof Application>;
constants satisfies Partial<typeof Constants>;
device satisfies Partial<typeof Device>;
crypto satisfies Partial<typeof Crypto>;
notifications satisfies Partial<Omit<typeof Notifications, Enums>>;
secureStore satisfies Partial<typeof SecureStore>;
({ defineTask: taskManager.defineTask }) satisfies Partial<typeof TaskManager>;
reactNative satisfies Some<Pick<typeof ReactNative, 'Platform'>>;
reactNative.AppState.currentState satisfies typeof ReactNative.AppState.currentState;

// These types come from packages that those modules import. If such a package is missing, its types accept anything:
// then the next lines are without error, and TypeScript reports the directives.
// @ts-expect-error
0 satisfies Notifications.NotificationPermissionsStatus['granted'];
// @ts-expect-error
0 satisfies Notifications.EventSubscription;
// @ts-expect-error
0 satisfies typeof Constants.expoConfig;
// @ts-expect-error
0 satisfies typeof Constants.easConfig;
