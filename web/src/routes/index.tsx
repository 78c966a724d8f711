import { createFileRoute } from "@tanstack/react-router";

import { setUpState } from "@/features/users/queries";
import { Welcome } from "@/features/users/welcome";

export const Route = createFileRoute("/")({
  loader: ({ context }) => context.queries.prefetchQuery(setUpState()),
  component: Welcome,
});
