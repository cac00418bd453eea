// Configuration of Supabase Lite in the local cloud; project.py sets the environment.
import { PostgrestConnection } from "./postgrest.mjs";

// Lite 0.10.0 turns the JSON arguments of functions and the users' metadata into strings of JSON before it hands them
// to the driver. Its own serializer would then make JSON strings of them, where PostgREST and GoTrue pass objects.
const serialize = (value) =>
  typeof value === "string" && /^\s*[[{]/.test(value) ? value : JSON.stringify(value);

// Lite answers with times as Postgres prints them. GoTrue's are RFC 3339, and the Python client rejects others.
const time = {
  to: 1184,
  from: [1184],
  serialize: (value) => (value instanceof Date ? value.toISOString() : value),
  parse: (text) => text.replace(" ", "T").replace(/([+-]\d\d)$/, "$1:00"),
};

export default {
  connection: new PostgrestConnection({
    url: process.env.LITE_DATABASE_URL,
    postgresOptions: {
      types: {
        timestamptz: time,
        json: { to: 114, from: [114], serialize, parse: JSON.parse },
        jsonb: { to: 3802, from: [3802], serialize, parse: JSON.parse },
      },
    },
  }),
  api: {
    port: Number(process.env.LITE_PORT),
    schemas: ["public"],
    pg_safe_update: true, // UPDATE and DELETE need a WHERE, as in the hosted Data API
  },
  auth: {
    enabled: true,
    jwt_secret: process.env.LITE_JWT_SECRET,
    publishable_key: process.env.SUPABASE_PUBLISHABLE_KEY,
    secret_key: process.env.SUPABASE_SECRET_KEY,
  },
  storage: { enabled: true },
};
