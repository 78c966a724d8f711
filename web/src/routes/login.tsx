import { createFileRoute, useRouter } from "@tanstack/react-router";

import { Login } from "@/features/session/doors";

interface Search {
  to?: string | undefined;
  refused?: string | undefined;
}

export const Route = createFileRoute("/login")({
  validateSearch: (said: Record<string, unknown>): Search => ({ to: here(said["to"]), refused: text(said["refused"]) }),
  component: Page,
});

function Page() {
  const { to = "/", refused } = Route.useSearch();
  const router = useRouter();
  return <Login to={to} refused={refused} went={() => router.history.push(to)} />;
}

/** Return a page of ours; whoever wrote the address may have named another's. */
function here(said: unknown): string | undefined {
  const path = text(said);
  return path !== undefined && /^\/(?![/\\])/.test(path) ? path : undefined;
}

function text(said: unknown): string | undefined {
  return typeof said === "string" && said !== "" ? said : undefined;
}
