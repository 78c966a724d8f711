import { infiniteQueryOptions, type QueryClient, queryOptions } from "@tanstack/react-query";

import { type Schema, said, server } from "@/api/client";

export type Alert = Schema<"AlertFacts">;
export type OneAlert = Schema<"Alert">;
export const STATES = ["firing", "acknowledged", "resolved"] as const satisfies readonly Alert["state"][];
export const SEVERITIES = ["page", "ticket", "info"] as const satisfies readonly Alert["severity"][];

/** Which alerts are listed. */
export interface Wanted {
  state?: Alert["state"] | undefined;
  severity?: Alert["severity"] | undefined;
}

const A_PAGE = 50;
const LOOK_AGAIN_MS = 10_000;

/** Alerts, the last that was opened first. */
export const alerts = (wanted: Wanted) =>
  infiniteQueryOptions({
    queryKey: ["alerts", "list", wanted],
    queryFn: ({ pageParam, signal }) =>
      said(server.GET("/api/v1/alerts", { params: { query: { state: wanted.state ?? null, severity: wanted.severity ?? null, limit: A_PAGE, cursor: pageParam } }, signal })),
    initialPageParam: null as string | null,
    getNextPageParam: (last) => last.next_cursor,
    refetchInterval: LOOK_AGAIN_MS,
  });

export const alert = (id: string) =>
  queryOptions({
    queryKey: ["alerts", "one", id],
    queryFn: ({ signal }) => said(server.GET("/api/v1/alerts/{alert_id}", { params: { path: { alert_id: id } }, signal })),
    refetchInterval: LOOK_AGAIN_MS,
  });

/** Say that one looks at it, for so many minutes. */
export const acknowledge = (id: string, body: { for_minutes: number; note: string }) =>
  said(server.POST("/api/v1/alerts/{alert_id}/acknowledge", { params: { path: { alert_id: id } }, body }));

/** Say that it is over, and why. */
export const resolve = (id: string, note: string) =>
  said(server.POST("/api/v1/alerts/{alert_id}/resolve", { params: { path: { alert_id: id } }, body: { note } }));

/** What has changed with one alert: it, and every list it may stand in. */
export const changed = (queries: QueryClient) => queries.invalidateQueries({ queryKey: ["alerts"] });
