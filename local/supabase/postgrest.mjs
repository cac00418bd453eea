// Supabase Lite's connection to Postgres, with the limits and the answers of PostgREST, which hosted Supabase has
// in its place. Read in PostgREST's Error.hs (mapSQLtoHTTP) and in its documentation, "Transactions" and "Errors".
import { sql } from "kysely";
import { PostgresConnection } from "@supabase/lite/postgres";

// The first match wins. Everything else is 400: raise exception, a failed check, a wrong value.
const STATUS = [
  [/^08/, 503], // connection
  [/^09/, 500], // triggered action
  [/^0[LP]/, 403], // grantor, role
  [/^2350[35]$/, 409], // foreign key, unique
  [/^25006$/, 405], // a write in a read-only transaction
  [/^21000$/, 500], // cardinality
  [/^(25|2D|38|39|3B|40)/, 500], // transaction state, external routine, rollback: deadlock, serialization
  [/^28/, 403], // authorization
  [/^42P01$/, 404], // a table that a function names; Lite itself checks the table of a request
  [/^53400$/, 500], // configuration limit
  [/^53/, 503], // resources
  [/^(54|55)/, 500], // too complex, not in the state for it: lock timeout
  [/^57P01$/, 503], // the server shuts down
  [/^(57|58|F0|HV|XX)/, 500], // operator: statement timeout; system; internal
  [/^P0001$/, 400], // raise exception
  [/^P0/, 500], // plpgsql
];

// Lite answers these as PostgREST does. Some depend on the role and on the names in the request.
const LITES_OWN = /^(PGRST|PT...|42(?!P01)...)$/;
const WITHOUT_WHERE = /requires a WHERE clause$/; // 21000 of pg_safe_update is the caller's fault

export class PostgrestConnection extends PostgresConnection {
  /** A transaction of the Data API with the settings of its role, which SET ROLE does not apply. */
  async withContext(vars, run, options) {
    if (!vars?.auth) return super.withContext(vars, run, options);
    const rpc = options?.rpc && { ...options.rpc, readOnly: options.rpc.readOnly || (await this.#isReadOnly(options.rpc)) };
    const limited = async (transaction) => {
      await sql`
        select set_config(split_part(setting, '=', 1), substr(setting, strpos(setting, '=') + 1), true)
        from pg_roles, unnest(rolconfig) setting where rolname = current_user
      `.execute(transaction);
      return run(transaction);
    };
    return super.withContext(vars, limited, rpc ? { ...options, rpc } : options);
  }

  // PostgREST makes all settings of a request in one statement. Lite has one for each: half of its statements.

  async applyJwtSessionContext(transaction, { auth, storage }) {
    const role = auth?.role || "anon";
    await set(transaction, {
      role,
      "request.jwt.claim.sub": String(auth?.uid ?? ""),
      "request.jwt.claim.role": role,
      "storage.operation": String(storage?.operation ?? ""),
      ...(auth?.jwt && typeof auth.jwt === "object" && { "request.jwt.claims": JSON.stringify(auth.jwt) }),
    });
  }

  async applyRpcRequestGucs(transaction, { method, path, requestHeaders }) {
    await set(transaction, {
      "response.status": "",
      "response.headers": "",
      "request.method": method,
      "request.path": path,
      "request.headers": JSON.stringify(requestHeaders ?? {}),
    });
  }

  /** Whether no function of this name is volatile. Lite by itself lets stable functions write, unless by GET. */
  async #isReadOnly({ path }) {
    const name = path.slice(path.lastIndexOf("/") + 1);
    const { functions } = await this.introspect({ useCache: true });
    const named = functions.filter((candidate) => candidate.schema === "public" && candidate.name === name);
    return named.length > 0 && named.every((candidate) => candidate.volatility !== "v");
  }

  /** Lite answers 500 "SUP" to most errors of Postgres; but it lets an error with the code PGRST name its answer. */
  normalizeDbError(error) {
    if (error?.name === "PostgresError") {
      if (LITES_OWN.test(error.code) || WITHOUT_WHERE.test(error.message)) return error;
      const [, status] = STATUS.find(([codes]) => codes.test(error.code)) ?? [null, 400];
      return answer(status, error.code, error.message, error.detail, error.hint);
    }
    // The driver's own: it has no connection, or lost it.
    if (/^E?CONN/.test(error?.code)) return answer(503, "PGRST001", LOST, error.message);
    return error;
  }
}

function set(transaction, settings) {
  const each = Object.entries(settings).map(([name, value]) => sql`set_config(${name}, ${value}, true)`);
  return sql`select ${sql.join(each)}`.execute(transaction);
}

const LOST = "Database client error. Retrying the connection.";

function answer(status, code, message, details = null, hint = null) {
  return Object.assign(new Error(JSON.stringify({ code, message, details, hint })), {
    code: "PGRST",
    detail: JSON.stringify({ status, headers: { "Proxy-Status": `PostgREST; error=${code}` } }),
  });
}
