import type { components } from "@/api/schema.gen";

type Document = components["schemas"]["Problem"];
type Said = Omit<Document, "type"> & { retryAfter?: number | null };
type FieldError = components["schemas"]["FieldError"];

/** Whoever should have answered did not: it is down, or the way there is. */
export const UNREACHABLE = "unreachable";
/** Something answered that is not Modelkeep, as a proxy does that cannot reach it. */
export const NOT_OURS = "not_ours";

/** What went wrong, as the server says it: `code` is for programs and stays the same, `message` is for people. */
export class Problem extends Error {
  override readonly name = "Problem";

  readonly status: number;
  readonly code: string;
  readonly title: string;
  readonly fields: readonly FieldError[];
  readonly requestId: string;
  /** After how many seconds it may go better; null where the server does not say. */
  readonly retryAfter: number | null;

  constructor(said: Said) {
    super(said.detail);
    this.status = said.status;
    this.code = said.code;
    this.title = said.title;
    this.fields = said.errors ?? [];
    this.requestId = said.request_id ?? "";
    this.retryAfter = said.retryAfter ?? null;
  }

  /** Whether the same request may succeed in a moment, with nothing changed. */
  get passes(): boolean {
    return this.code === UNREACHABLE || [429, 502, 503, 504].includes(this.status);
  }
}

/** Return what an answer that is no success says of itself. */
export async function problemOf(response: Response): Promise<Problem> {
  const document = read(response, await response.text()) ?? {
    status: response.status,
    code: NOT_OURS,
    title: "No answer of Modelkeep",
    detail: `The answer (${response.status}) is not Modelkeep's: a proxy on the way may have given it.`,
  };
  const request_id = document.request_id ?? response.headers.get("x-request-id") ?? "";
  return new Problem({ ...document, request_id, retryAfter: seconds(response) });
}

/** Return that nobody answered. */
export function unreachable(): Problem {
  const detail = "The server cannot be reached. Is it running, and this machine connected?";
  return new Problem({ status: 0, code: UNREACHABLE, title: "No answer", detail });
}

function read(response: Response, said: string): Said | null {
  if (!(response.headers.get("content-type") ?? "").startsWith("application/problem+json")) {
    return null;
  }
  try {
    return JSON.parse(said) as Document;
  } catch {
    return null; // broken off on the way
  }
}

function seconds(response: Response): number | null {
  const said = response.headers.get("retry-after") ?? "";
  return /^\d+$/.test(said) ? Number(said) : null;
}
