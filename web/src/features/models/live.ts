import { useQueryClient } from "@tanstack/react-query";
import { useEffect } from "react";

import { type Version, version } from "@/features/models/queries";

/** Hear of a version's changes as they come, until it has settled. Where the stream fails, its page goes on asking. */
export function useLive(name: string, number: number, settled: boolean): void {
  const queries = useQueryClient();
  useEffect(() => {
    if (settled) {
      return;
    }
    const stream = new EventSource(`/api/v1/models/${encodeURIComponent(name)}/versions/${number}/events`);
    stream.addEventListener("state", (event: MessageEvent<string>) => {
      const heard = JSON.parse(event.data) as Version; // as the server describes its events
      const { queryKey } = version(name, number);
      void queries.cancelQueries({ queryKey }).then(() => {
        queries.setQueryData(queryKey, heard);
        if (heard.state === "ready" || heard.state === "rejected") {
          stream.close();
          return queries.invalidateQueries({ queryKey: ["models"] });
        }
        return undefined;
      });
    });
    return () => stream.close();
  }, [queries, name, number, settled]);
}
