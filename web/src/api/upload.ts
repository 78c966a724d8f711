import { Problem, problemOf, unreachable } from "@/api/problem";
import { session } from "@/api/session";

export interface Sending {
  form: FormData;
  /** What the server knows a second try by, so that it cannot count twice. */
  once: string;
  /** Hears which share has been sent, from 0 to 1. */
  onSent: (share: number) => void;
  signal: AbortSignal;
}

/**
 * Send a form with files, which are read as they go out. `fetch` does not say how much it has sent; the older way does.
 * What has large files is sent in one try: whoever asks here has asked something of the server just before.
 */
export async function upload<Body>(path: string, { form, once, onSent, signal }: Sending): Promise<Body> {
  const word = await session.word();
  const answer = await new Promise<Response>((answered, failed) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.setRequestHeader("x-csrf-token", word);
    request.setRequestHeader("idempotency-key", once);
    request.upload.onprogress = (event) => onSent(event.lengthComputable ? event.loaded / event.total : 0);
    request.onload = () => answered(new Response(request.responseText, { status: request.status, headers: headers(request) }));
    request.onerror = () => failed(unreachable());
    request.onabort = () => failed(cancelled());
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
  if (!answer.ok) {
    throw await problemOf(answer);
  }
  return (await answer.json()) as Body; // as the server describes what it says here
}

/** Return a word that nobody else has; `randomUUID` is missing where a page came without TLS. */
export function fresh(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (one) => one.toString(16).padStart(2, "0")).join("");
}

function headers(request: XMLHttpRequest): Headers {
  const found = new Headers();
  for (const name of ["content-type", "retry-after", "x-request-id"]) {
    const value = request.getResponseHeader(name);
    if (value !== null) {
      found.set(name, value);
    }
  }
  return found;
}

function cancelled(): Problem {
  return new Problem({ status: 0, code: "cancelled", title: "Cancelled", detail: "The upload was cancelled. Nothing of it was kept." });
}
