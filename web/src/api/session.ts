import type { components } from "@/api/schema.gen";

type Told = components["schemas"]["Browser"];
type Send = (request: Request) => Promise<Response>;

const KEPT = "modelkeep.session";
const SESSION = "/api/v1/auth/browser";
/** What is about to expire is renewed before it is used: the server's clock and this one are not the same. */
const MARGIN_MS = 30_000;
const SAFE = new Set(["GET", "HEAD", "OPTIONS"]);

/** When the tokens end, which are cookies that no script can read. Kept for the pages that come, and all tabs. */
interface Kept {
  expires: number;
  idle: number;
}

/** Whether somebody is logged in here, as far as this browser knows; `stale` wants to be renewed before it is used. */
export type Standing = "none" | "stale" | "good";

/**
 * Sends requests in the session of this browser: with what shows that a page of ours changes something, and renewed in time.
 * Two tabs share one session, so what a tab knows of it may be out of date: it then asks anew, once.
 */
export class Session {
  private csrf = "";
  private renewing: Promise<boolean> | null = null;
  private readonly transport: Send;
  private readonly memory: Storage;
  private readonly now: () => number;

  constructor(transport: Send = (request) => fetch(request), memory: Storage = localStorage, now: () => number = Date.now) {
    this.transport = transport;
    this.memory = memory;
    this.now = now;
  }

  get standing(): Standing {
    const kept = this.kept();
    if (kept === null || kept.idle <= this.now()) {
      return "none";
    }
    return kept.expires - MARGIN_MS <= this.now() ? "stale" : "good";
  }

  /** Take what the server says of a session that has begun, or goes on. */
  begin(told: Told): void {
    this.csrf = told.csrf_token;
    const kept: Kept = { expires: moment(told.expires_at), idle: moment(told.idle_until) };
    this.memory.setItem(KEPT, JSON.stringify(kept));
  }

  /** Somebody may come back logged in from elsewhere: ask, though nothing is known here. */
  expect(): void {
    this.memory.setItem(KEPT, JSON.stringify({ expires: null, idle: null }));
  }

  /** Nobody is logged in any more. */
  end(): void {
    this.csrf = "";
    this.memory.removeItem(KEPT);
  }

  /** Send a request; what the server says is the answer, also where it says no. */
  readonly send: Send = async (request) => {
    if (this.standing === "none") {
      return this.transport(request);
    }
    if (this.standing === "stale") {
      await this.renewed();
    }
    const again = request.clone();
    const answer = await this.once(request);
    if (answer.status === 401 && (await this.renewed())) {
      return this.once(again);
    }
    if (answer.status === 403 && (await codeOf(answer)) === "csrf_refused" && (await this.learned())) {
      return this.once(again); // another tab has renewed the session
    }
    return answer;
  };

  /** Return the word that shows that a page of ours changes something, for what cannot be sent as a request of `send`. */
  async word(): Promise<string> {
    if (this.standing === "stale") {
      await this.renewed();
    }
    if (this.csrf === "") {
      await this.learned();
    }
    return this.csrf;
  }

  private async once(request: Request): Promise<Response> {
    if (SAFE.has(request.method)) {
      return this.transport(request);
    }
    if (this.csrf === "") {
      await this.learned();
    }
    request.headers.set("x-csrf-token", this.csrf);
    return this.transport(request);
  }

  /** Go on with the session; whether that was possible. However many ask for it, it is done once. */
  private renewed(): Promise<boolean> {
    this.renewing ??= this.told("POST", `${SESSION}/refresh`).finally(() => {
      this.renewing = null;
    });
    return this.renewing;
  }

  private learned(): Promise<boolean> {
    return this.told("GET", SESSION);
  }

  private async told(method: string, path: string): Promise<boolean> {
    const answer = await this.transport(new Request(new URL(path, location.origin), { method }));
    if (answer.ok) {
      this.begin((await answer.json()) as Told);
    } else if (answer.status === 401) {
      this.end();
    }
    return answer.ok;
  }

  private kept(): Kept | null {
    const said = this.memory.getItem(KEPT);
    if (said === null) {
      return null;
    }
    try {
      const { expires, idle } = JSON.parse(said) as { expires: number | null; idle: number | null };
      return { expires: expires ?? Infinity, idle: idle ?? Infinity };
    } catch {
      return null; // written by somebody else
    }
  }
}

function moment(said: string | null | undefined): number {
  return said ? Date.parse(said) : Infinity;
}

async function codeOf(answer: Response): Promise<string> {
  try {
    return ((await answer.clone().json()) as { code?: string }).code ?? "";
  } catch {
    return "";
  }
}

/** The session of this browser. */
export const session = new Session();
