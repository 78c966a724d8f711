import { infiniteQueryOptions, queryOptions, useMutation, useQueryClient } from "@tanstack/react-query";

import { type Schema, said, server } from "@/api/client";

export type Model = Schema<"Model">;
export type Version = Schema<"Version">;
export type Tensor = Schema<"Tensor">;

const A_PAGE = 50;
/** Which models are listed: those in use, with those put away too, or those in the trash. */
export type Shelf = "active" | "archived" | "trashed";

/** Models, page by page; those alone whose names have `search` in them. */
export const models = (shelf: Shelf, search = "") =>
  infiniteQueryOptions({
    queryKey: ["models", "list", shelf, search],
    queryFn: ({ pageParam, signal }) =>
      said(
        server.GET("/api/v1/models", {
          params: {
            query: { limit: A_PAGE, cursor: pageParam, archived: shelf === "archived", trashed: shelf === "trashed", search },
          },
          signal,
        }),
      ),
    initialPageParam: null as string | null,
    getNextPageParam: (last) => last.next_cursor,
  });

export const model = (name: string) =>
  queryOptions({
    queryKey: ["models", "one", name],
    queryFn: ({ signal }) => said(server.GET("/api/v1/models/{name}", { params: { path: { name } }, signal })),
  });

/** A model's versions, newest first, page by page. */
export const versions = (name: string) =>
  infiniteQueryOptions({
    queryKey: ["models", "versions", name],
    queryFn: ({ pageParam, signal }) =>
      said(
        server.GET("/api/v1/models/{name}/versions", {
          params: { path: { name }, query: { limit: A_PAGE, cursor: pageParam } },
          signal,
        }),
      ),
    initialPageParam: null as string | null,
    getNextPageParam: (last) => last.next_cursor,
    // what is being validated changes by itself
    refetchInterval: (query) => (unsettled(query.state.data?.pages.flatMap((page) => page.items)) ? 1000 : false),
  });

export const version = (name: string, number: number) =>
  queryOptions({
    queryKey: ["models", "version", name, number],
    queryFn: ({ signal }) =>
      said(server.GET("/api/v1/models/{name}/versions/{number}", { params: { path: { name, number } }, signal })),
    // its events come by themselves; this is for where they do not
    refetchInterval: (query) => (unsettled(query.state.data && [query.state.data]) ? 3000 : false),
  });

/** Where a version came from, and what came of it. */
export const lineage = (name: string, number: number) =>
  queryOptions({
    queryKey: ["models", "lineage", name, number],
    queryFn: ({ signal }) =>
      said(server.GET("/api/v1/models/{name}/versions/{number}/lineage", { params: { path: { name, number } }, signal })),
  });

/** What happened in the life of a version, newest first, page by page. */
export const changes = (name: string, number: number) =>
  infiniteQueryOptions({
    queryKey: ["models", "changes", name, number],
    queryFn: ({ pageParam, signal }) =>
      said(
        server.GET("/api/v1/models/{name}/versions/{number}/changes", {
          params: { path: { name, number }, query: { limit: A_PAGE, cursor: pageParam } },
          signal,
        }),
      ),
    initialPageParam: null as string | null,
    getNextPageParam: (last) => last.next_cursor,
  });

/** Say something else of a version; its card is then another. */
export function useDescribe(name: string, number: number) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (description: string) =>
      said(server.PATCH("/api/v1/models/{name}/versions/{number}", { params: { path: { name, number } }, body: { description } })),
    onSuccess: () => queries.invalidateQueries({ queryKey: ["models"] }),
  });
}

/** Have a model answer with a version; deployments know it, too. */
export function usePromote(name: string, number: number) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (reason: string) =>
      said(server.POST("/api/v1/deployments/{name}/promote", { params: { path: { name } }, body: { version: number, reason } })),
    onSuccess: () =>
      Promise.all([queries.invalidateQueries({ queryKey: ["models"] }), queries.invalidateQueries({ queryKey: ["deployments"] })]),
  });
}

function unsettled(found: readonly Version[] | undefined): boolean {
  return (found ?? []).some((one) => one.state === "received" || one.state === "validating");
}
