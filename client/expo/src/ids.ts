// Ids of messages and of the installation: random UUIDs.

/** Fills the bytes with random ones of a secure source, and returns them. */
export type Random = (bytes: Uint8Array<ArrayBuffer>) => Uint8Array;

/** The secure source of this JavaScript engine. undefined: it has none, such as Hermes. */
export function ofEngine(): Random | undefined {
  const { crypto } = globalThis as { crypto?: { getRandomValues?: Random } };
  return crypto?.getRandomValues?.bind(crypto);
}

/** A random UUID, version 4. An id that can be guessed, or one that two phones make, would stand for another message. */
export function newId(random: Random): string {
  const bytes = random(new Uint8Array(16));
  const hex = Array.from(bytes, (byte, index) => {
    const kept = index === 6 ? (byte & 0x0f) | 0x40 : index === 8 ? (byte & 0x3f) | 0x80 : byte;
    return kept.toString(16).padStart(2, '0');
  }).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}
