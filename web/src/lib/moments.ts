/** Moments as an address keeps them (ISO 8601, in UTC) and as a field of a form has them (in the reader's zone). */

const MINUTE = 60_000;

/** Return the moment of a field `datetime-local`; null where it is empty, or none. */
export function fromField(said: string): string | null {
  const at = new Date(said); // without a zone: the reader's own
  return said === "" || Number.isNaN(at.getTime()) ? null : at.toISOString();
}

/** Return what the field shows of a moment; nothing where it is none. */
export function toField(moment: string | undefined): string {
  const at = new Date(moment ?? "");
  return Number.isNaN(at.getTime()) ? "" : new Date(at.getTime() - at.getTimezoneOffset() * MINUTE).toISOString().slice(0, 16);
}

/** Return the moment in something that came with an address; undefined where it is none. */
export function moment(said: unknown): string | undefined {
  const at = new Date(typeof said === "string" ? said : Number.NaN);
  return Number.isNaN(at.getTime()) ? undefined : at.toISOString();
}
