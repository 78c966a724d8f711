import { infiniteQueryOptions, type QueryClient, queryOptions } from "@tanstack/react-query";

import { type Schema, said, server } from "@/api/client";

export type Deployment = Schema<"Deployment">;
export type Revision = Schema<"DeploymentRevision">;
export type Plan = Schema<"Plan">;
/** What is to be changed: shares by version, a null takes one away; a version to promote. */
export interface Change {
  version?: number;
  traffic?: { split: Record<string, number | null> };
}

const A_PAGE = 50;
const LOOK_AGAIN_MS = 5000;
const seen = (revision: number) => ({ "if-match": `"${revision}"` });

/** Deployments by name, page by page. */
export const deployments = () =>
  infiniteQueryOptions({
    queryKey: ["deployments", "list"],
    queryFn: ({ pageParam, signal }) =>
      said(server.GET("/api/v1/deployments", { params: { query: { limit: A_PAGE, cursor: pageParam } }, signal })),
    initialPageParam: null as string | null,
    getNextPageParam: (last) => last.next_cursor,
    refetchInterval: LOOK_AGAIN_MS,
  });

export const deployment = (name: string) =>
  queryOptions({
    queryKey: ["deployments", "one", name],
    queryFn: ({ signal }) => said(server.GET("/api/v1/deployments/{name}", { params: { path: { name } }, signal })),
    refetchInterval: LOOK_AGAIN_MS,
  });

/** What a deployment was, newest first. */
export const revisions = (name: string) =>
  infiniteQueryOptions({
    queryKey: ["deployments", "revisions", name],
    queryFn: ({ pageParam, signal }) =>
      said(
        server.GET("/api/v1/deployments/{name}/revisions", {
          params: { path: { name }, query: { limit: A_PAGE, cursor: pageParam } },
          signal,
        }),
      ),
    initialPageParam: null as string | null,
    getNextPageParam: (last) => last.next_cursor,
  });

/** The newest versions of a model that could answer. */
export const candidates = (model: string) =>
  queryOptions({
    queryKey: ["deployments", "candidates", model],
    queryFn: ({ signal }) =>
      said(server.GET("/api/v1/models/{name}/versions", { params: { path: { name: model }, query: { limit: A_PAGE } }, signal })),
    select: (page) => page.items.filter((one) => one.state === "ready" && one.archived_at === null).map((one) => one.number),
  });

/** What a change would do; it does nothing. */
export const plan = (name: string, change: Change) =>
  said(server.POST("/api/v1/deployments/{name}/plan", { params: { path: { name } }, body: change }));

/** Make a change; one of somebody else since `revision` refuses it. */
export const make = (name: string, change: Change, revision: number, reason: string) =>
  said(server.PATCH("/api/v1/deployments/{name}", { params: { path: { name }, header: seen(revision) }, body: { ...change, reason } }));

/** Go back to a revision, or with null to what answered before. */
export const goBack = (name: string, to: number | null, revision: number, reason: string) =>
  said(
    server.POST("/api/v1/deployments/{name}/rollback", {
      params: { path: { name }, header: seen(revision) },
      body: { revision: to, reason },
    }),
  );

/** What has changed with a deployment: it, its history, lists, and the models that show what answers. */
export const changed = (queries: QueryClient) =>
  Promise.all([queries.invalidateQueries({ queryKey: ["deployments"] }), queries.invalidateQueries({ queryKey: ["models"] })]);
