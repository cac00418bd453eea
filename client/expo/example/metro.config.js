const path = require('node:path');
const { getDefaultConfig } = require('expo/metro-config');

const config = getDefaultConfig(__dirname);
const folder = path.resolve(__dirname, '..');
const source = path.join(folder, 'src');

// The package is a link to the folder above. What it imports is what this app has installed, as in any app.
config.watchFolders = [folder];
config.resolver.unstable_conditionNames = [...config.resolver.unstable_conditionNames, 'chat-push-source'];
config.resolver.resolveRequest = (context, name, platform) => {
  const isPeer = context.originModulePath.startsWith(source) && !name.startsWith('.');
  return context.resolveRequest(isPeer ? { ...context, originModulePath: __filename } : context, name, platform);
};

// SQLite for browsers. It needs a SharedArrayBuffer, which browsers give only to isolated pages.
config.resolver.assetExts.push('wasm');
config.server.enhanceMiddleware = (middleware) => (request, response, next) => {
  response.setHeader('Cross-Origin-Opener-Policy', 'same-origin');
  response.setHeader('Cross-Origin-Embedder-Policy', 'credentialless');
  return middleware(request, response, next);
};

module.exports = config;
