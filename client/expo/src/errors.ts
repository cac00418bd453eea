// The errors of the client. Each is named for what the caller can do about it.

/** The base of all errors of this package. */
export class ChatError extends Error {
  override name = 'ChatError';
}

/** The server gave no answer, or could not handle the request now. The same request may succeed later. */
export class ServerUnreachable extends ChatError {
  override name = 'ServerUnreachable';
}

/** The server answered with an error of its own, such as a timeout. It may be the request that causes it. */
export class ServerFailed extends ServerUnreachable {
  override name = 'ServerFailed';
}

/** Too many requests. `retryAfter`: seconds to wait. */
export class RateLimited extends ServerUnreachable {
  override name = 'RateLimited';
  readonly retryAfter: number;

  constructor(retryAfter: number, message = 'too many requests') {
    super(`${message}, wait ${retryAfter} seconds`);
    this.retryAfter = retryAfter;
  }
}

/** The person has begun to write to too many strangers. Other conversations go on. */
export class TooManyContacts extends RateLimited {
  override name = 'TooManyContacts';
}

/**
 * The server refuses this request, and would refuse it again.
 *
 * `code`: an SQLSTATE such as 22001, a code of PostgREST, or one of the HTTP API. The message names the wrong field.
 */
export class Rejected extends ChatError {
  override name = 'Rejected';
  readonly code: string;

  constructor(code: string, message: string) {
    super(`${message} (${code})`);
    this.code = code;
  }
}

/** A moderator has stopped this person from writing. `until`: null if nobody knows. */
export class Suspended extends Rejected {
  override name = 'Suspended';
  readonly until: Date | null;

  constructor(message: string, until: Date | null) {
    super('PT403', message);
    this.until = until;
  }
}

/** Supabase Auth does not accept the e-mail address and the password. */
export class SignInRejected extends Rejected {
  override name = 'SignInRejected';
}

/** Nobody is signed in: call signIn. */
export class NotSignedIn extends ChatError {
  override name = 'NotSignedIn';
}

/** The session has ended and could not be renewed: call signIn. The outbox is kept until then. */
export class SessionExpired extends NotSignedIn {
  override name = 'SessionExpired';

  constructor(options?: ErrorOptions) {
    super('the session has ended: sign in again', options);
  }
}

/** The local database belongs to another account. Call signOut to remove its data, or use another file. */
export class OtherAccount extends ChatError {
  override name = 'OtherAccount';
}

/** No message with this id is in the local database. */
export class UnknownMessage extends ChatError {
  override name = 'UnknownMessage';
}

/** The base of all errors of the local database. */
export class DatabaseError extends ChatError {
  override name = 'DatabaseError';
}

/** Another client has opened the local database: use another file, or close that client. */
export class DatabaseInUse extends DatabaseError {
  override name = 'DatabaseInUse';
}

/** The local database could not be written: the disk is full. What was stored before is kept. */
export class DatabaseFull extends DatabaseError {
  override name = 'DatabaseFull';
}

/** The file of the local database is damaged. Close the client, and open it again with `openDatabase`, which saves the outbox. */
export class DatabaseCorrupt extends DatabaseError {
  override name = 'DatabaseCorrupt';
}
