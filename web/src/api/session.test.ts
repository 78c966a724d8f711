import { beforeEach, expect, test } from "vitest";

import { Session } from "@/api/session";

const MINUTE = 60_000;
const BASE = "http://localhost:3000";

/** A server with one session, whose token is renewed by `refresh`; it keeps what it was asked. */
class Server {
  now = Date.UTC(2026, 0, 1);
  asked: string[] = [];
  token = 1;
  expires = this.now + 30 * MINUTE;
  over = false;

  readonly session = new Session((request) => this.answer(request), localStorage, () => this.now);

  told() {
    return {
      csrf_token: `csrf-${this.token}`,
      session: "ses_1",
      expires_at: new Date(this.expires).toISOString(),
      idle_until: new Date(this.now + 120 * MINUTE).toISOString(),
    };
  }

  private async answer(request: Request): Promise<Response> {
    const path = new URL(request.url).pathname;
    this.asked.push(`${request.method} ${path}`);
    if (path.endsWith("/refresh")) {
      if (this.over) {
        return problem(401, "refresh_refused");
      }
      this.renew();
      return Response.json(this.told());
    }
    if (this.over || this.now >= this.expires) {
      return problem(401, "unauthenticated");
    }
    if (path === "/api/v1/auth/browser") {
      return Response.json(this.told());
    }
    if (request.method !== "GET" && request.headers.get("x-csrf-token") !== `csrf-${this.token}`) {
      return problem(403, "csrf_refused");
    }
    return Response.json({ body: await request.text() });
  }

  renew() {
    this.token += 1;
    this.expires = this.now + 30 * MINUTE;
  }

  ask(method = "GET") {
    const init = method === "GET" ? { method } : { method, body: "what is said" };
    return this.session.send(new Request(`${BASE}/api/v1/models`, init));
  }
}

function problem(status: number, code: string): Response {
  return Response.json({ status, code }, { status });
}

beforeEach(() => localStorage.clear());

test("who is not logged in asks for nothing else", async () => {
  const server = new Server();
  server.over = true;
  expect(server.session.standing).toBe("none");
  expect((await server.ask()).status).toBe(401);
  expect(server.asked).toEqual(["GET /api/v1/models"]);
});

test("what changes something says that a page of ours asks", async () => {
  const server = new Server();
  server.session.begin(server.told());
  expect(await (await server.ask("POST")).json()).toEqual({ body: "what is said" });
  expect(server.asked).toEqual(["POST /api/v1/models"]);
});

test("a page that was loaded anew learns first what it needs", async () => {
  const server = new Server();
  server.session.begin(server.told());
  const anew = new Server();
  expect(anew.session.standing).toBe("good");
  expect((await anew.ask("POST")).ok).toBe(true);
  expect(anew.asked).toEqual(["GET /api/v1/auth/browser", "POST /api/v1/models"]);
});

test("what is about to expire is renewed before, once for all that ask", async () => {
  const server = new Server();
  server.session.begin(server.told());
  server.now += 29.9 * MINUTE;
  expect(server.session.standing).toBe("stale");
  const answers = await Promise.all([server.ask(), server.ask("POST"), server.ask()]);
  expect(answers.map((one) => one.ok)).toEqual([true, true, true]);
  expect(server.asked.filter((one) => one.endsWith("refresh"))).toHaveLength(1);
  expect(server.asked[0]).toBe("POST /api/v1/auth/browser/refresh");
});

test("a tab whose session another one has renewed asks anew, and says the same again", async () => {
  const server = new Server();
  server.session.begin(server.told());
  server.renew();
  expect(await (await server.ask("POST")).json()).toEqual({ body: "what is said" });
  expect(server.asked).toEqual(["POST /api/v1/models", "GET /api/v1/auth/browser", "POST /api/v1/models"]);
});

test("where a session is over, it is renewed no more", async () => {
  const server = new Server();
  server.session.begin(server.told());
  server.over = true;
  expect((await server.ask()).status).toBe(401);
  expect(server.session.standing).toBe("none");
  await server.ask();
  expect(server.asked).toEqual(["GET /api/v1/models", "POST /api/v1/auth/browser/refresh", "GET /api/v1/models"]);
});

test("after its idle time nobody is logged in", () => {
  const server = new Server();
  server.session.begin(server.told());
  server.now += 121 * MINUTE;
  expect(server.session.standing).toBe("none");
});

test("who comes back from a provider of identities may be logged in", async () => {
  const server = new Server();
  server.session.expect();
  expect(server.session.standing).toBe("good");
  expect((await server.ask("POST")).ok).toBe(true);
});

test("what somebody else wrote where the session is kept is nobody's session", () => {
  localStorage.setItem("modelkeep.session", "{");
  expect(new Server().session.standing).toBe("none");
});
