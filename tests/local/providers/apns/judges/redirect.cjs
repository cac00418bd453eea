// Preloaded before a client whose port cannot be set: connections to port 443 of Apple's hosts go to FAKE_APNS_PORT of
// this machine. The name of the host stays the one that the certificate is checked for.
const tls = require("node:tls");

const { connect } = tls;
tls.connect = (options, ...rest) =>
  connect(
    /\.push\.apple\.com$/.test(options.host) && Number(options.port) === 443
      ? { servername: options.host, ...options, host: "127.0.0.1", port: Number(process.env.FAKE_APNS_PORT) }
      : options,
    ...rest,
  );
