import { createFileRoute } from "@tanstack/react-router";

import { PushOne } from "@/features/models/push";
import { workspaces } from "@/features/models/pushing";

export const Route = createFileRoute("/_in/push")({
  validateSearch: (said: Record<string, unknown>): { name?: string } =>
    typeof said["name"] === "string" && said["name"] !== "" ? { name: said["name"] } : {},
  loader: ({ context }) => context.queries.prefetchQuery(workspaces()),
  component: Page,
});

function Page() {
  const { name = "" } = Route.useSearch();
  const navigate = Route.useNavigate();
  return (
    <PushOne
      name={name}
      pushed={({ model, number }) => void navigate({ to: "/models/$name/versions/$number", params: { name: model, number } })}
    />
  );
}
