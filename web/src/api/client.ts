import createFetchClient, { type Middleware } from "openapi-fetch";
import type { Readable } from "openapi-typescript-helpers";

import { Problem, problemOf, unreachable } from "@/api/problem";
import type { components, paths } from "@/api/schema.gen";
import { session } from "@/api/session";

/** What is no success is thrown, as a `Problem`: whoever asks gets an answer or that. */
const problems: Middleware = {
  async onResponse({ response }) {
    if (!response.ok) {
      throw await problemOf(response);
    }
  },
  onError({ error }) {
    const given = error instanceof Problem || (error instanceof DOMException && error.name === "AbortError");
    return given ? error : unreachable();
  },
};

/** The server, by method and path, as it describes itself. */
export const server = createFetchClient<paths>({ baseUrl: "/", fetch: session.send });
server.use(problems);

/** Something that the server says, by its name in the server's description. */
export type Schema<Name extends keyof components["schemas"]> = Readable<components["schemas"][Name]>;

/** Return what an answer says; a `Problem` is thrown where there is none. */
export async function said<Body>(answer: Promise<{ data?: Body }>): Promise<Body> {
  const { data } = await answer;
  return data as Body; // there is one: `problems` has thrown otherwise
}

declare module "@tanstack/react-query" {
  interface Register {
    defaultError: Problem;
  }
}
