import { infiniteQueryOptions, type QueryClient } from "@tanstack/react-query";

import { type Schema, said, server } from "@/api/client";

export type Approval = Schema<"Approval">;
export const STATES = ["pending", "approved", "refused", "used", "expired"] as const satisfies readonly Approval["state"][];

const A_PAGE = 50;
const LOOK_AGAIN_MS = 10_000;

/** What was asked for that one may do, too, newest first. */
export const approvals = (state: Approval["state"] | undefined) =>
  infiniteQueryOptions({
    queryKey: ["approvals", state],
    queryFn: ({ pageParam, signal }) =>
      said(server.GET("/api/v1/approvals", { params: { query: { state: state ?? null, limit: A_PAGE, cursor: pageParam } }, signal })),
    initialPageParam: null as string | null,
    getNextPageParam: (last) => last.next_cursor,
    refetchInterval: LOOK_AGAIN_MS,
  });

/** Agree to what another person asked. */
export const approve = (id: string) =>
  said(server.POST("/api/v1/approvals/{approval_id}/approve", { params: { path: { approval_id: id } } }));

/** Refuse it, and say why. */
export const refuse = (id: string, reason: string) =>
  said(server.POST("/api/v1/approvals/{approval_id}/refuse", { params: { path: { approval_id: id } }, body: { reason } }));

export const changed = (queries: QueryClient) => queries.invalidateQueries({ queryKey: ["approvals"] });
