// The packages of Expo that the app installs. One that is not in the app throws when it is used, not when it is imported.

import { ChatError } from './errors.ts';

interface Modules {
  'expo-application': typeof import('expo-application');
  'expo-constants': typeof import('expo-constants');
  'expo-crypto': typeof import('expo-crypto');
  'expo-device': typeof import('expo-device');
  'expo-notifications': typeof import('expo-notifications');
  'expo-secure-store': typeof import('expo-secure-store');
  'expo-task-manager': typeof import('expo-task-manager');
}

/** A package of Expo is not installed, or its native module is not in this build of the app. `cause`: what its import threw. */
export class MissingModule extends ChatError {
  override name = 'MissingModule';
  /** Such as expo-notifications. */
  readonly package: string;

  constructor(name: string, cause: unknown) {
    super(`${name} is not in this build: run \`npx expo install ${name}\`, and build the app again`, { cause });
    this.package = name;
  }
}

const missing = new Map<keyof Modules, MissingModule>();

// A static import would end the app at its start. `import()` would be too late for the background task. Metro lets a package be
// missing if its name is a literal in a `require` directly in a `try` block.
declare function require<Name extends keyof Modules>(name: Name): Modules[Name];

export let Application: Modules['expo-application'];
try {
  Application = require('expo-application');
} catch (cause) {
  Application = absent('expo-application', cause);
}

export let Constants: Modules['expo-constants'];
try {
  Constants = require('expo-constants');
} catch (cause) {
  Constants = absent('expo-constants', cause);
}

export let Crypto: Modules['expo-crypto'];
try {
  Crypto = require('expo-crypto');
} catch (cause) {
  Crypto = absent('expo-crypto', cause);
}

export let ExpoDevice: Modules['expo-device'];
try {
  ExpoDevice = require('expo-device');
} catch (cause) {
  ExpoDevice = absent('expo-device', cause);
}

export let Notifications: Modules['expo-notifications'];
try {
  Notifications = require('expo-notifications');
} catch (cause) {
  Notifications = absent('expo-notifications', cause);
}

export let SecureStore: Modules['expo-secure-store'];
try {
  SecureStore = require('expo-secure-store');
} catch (cause) {
  SecureStore = absent('expo-secure-store', cause);
}

export let TaskManager: Modules['expo-task-manager'];
try {
  TaskManager = require('expo-task-manager');
} catch (cause) {
  TaskManager = absent('expo-task-manager', cause);
}

/** The first of these packages that is missing. */
export function missingOf(...names: (keyof Modules)[]): MissingModule | undefined {
  return names.map((name) => missing.get(name)).find((error) => error !== undefined);
}

/** Stands for a package: each use of it throws MissingModule. */
function absent<Name extends keyof Modules>(name: Name, cause: unknown): Modules[Name] {
  const error = new MissingModule(name, cause);
  missing.set(name, error);
  const get = () => {
    throw error;
  };
  return new Proxy({}, { get }) as Modules[Name];
}
