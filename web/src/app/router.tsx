import { QueryClient } from "@tanstack/react-query";
import { createRouter } from "@tanstack/react-router";

import { routeTree } from "@/app/route-tree.gen";
import { Shell } from "@/app/shell";
import { Failure } from "@/ui/failure";

const TRIES = 3;

/** What the server has said; asked again by itself only where that may help. */
export const queries = new QueryClient({
  defaultOptions: {
    queries: {
      retry: (failed, error) => failed < TRIES && error.passes,
      retryDelay: (failed, error) => 1000 * (error.retryAfter ?? 2 ** failed),
      staleTime: 5_000,
    },
  },
});

export const router = createRouter({
  routeTree,
  context: { queries },
  defaultPreload: "intent",
  defaultPreloadStaleTime: 0, // how old an answer may be is for queries to say
  defaultErrorComponent: ({ error, reset }) => <Failure error={error as Error} again={reset} />,
  InnerWrap: Shell,
  scrollRestoration: true,
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
