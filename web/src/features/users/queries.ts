import { queryOptions } from "@tanstack/react-query";

import { said, server } from "@/api/client";

/** Whether the first administrator is still to be made. */
export const setUpState = () =>
  queryOptions({
    queryKey: ["users", "set-up"],
    queryFn: ({ signal }) => said(server.GET("/api/v1/setup", { signal })),
  });

/** Who asks; a problem with the code `unauthenticated` where nobody is logged in. */
export const me = () =>
  queryOptions({
    queryKey: ["users", "me"],
    queryFn: ({ signal }) => said(server.GET("/api/v1/me", { signal })),
    staleTime: 60_000,
  });
