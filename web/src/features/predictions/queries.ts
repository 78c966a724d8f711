import { infiniteQueryOptions, queryOptions } from "@tanstack/react-query";

import { type Schema, said, server } from "@/api/client";
import type { Wanted } from "@/features/predictions/wanted";

export type Prediction = Schema<"PredictionRecord">;

const A_PAGE = 50;

/** Predictions, newest first, page by page. */
export const predictions = (wanted: Wanted) =>
  infiniteQueryOptions({
    queryKey: ["predictions", "list", wanted],
    queryFn: ({ pageParam, signal }) =>
      said(server.GET("/api/v1/predictions", { params: { query: { ...wanted, limit: A_PAGE, cursor: pageParam } }, signal })),
    initialPageParam: null as string | null,
    getNextPageParam: (last) => last.next_cursor,
  });

export const prediction = (id: string) =>
  queryOptions({
    queryKey: ["predictions", "one", id],
    queryFn: ({ signal }) =>
      said(server.GET("/api/v1/predictions/{prediction_id}", { params: { path: { prediction_id: id } }, signal })),
    staleTime: Number.POSITIVE_INFINITY, // it does not change any more
  });
