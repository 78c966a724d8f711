import type { LinkProps } from "@tanstack/react-router";

/** Where one can go from everywhere, in the order in which it is shown. */
export const PAGES = [
  { to: "/models", label: "Models" },
  { to: "/deployments", label: "Deployments" },
  { to: "/predictions", label: "Predictions" },
  { to: "/alerts", label: "Alerts" },
  { to: "/approvals", label: "Approvals" },
] as const satisfies readonly { to: LinkProps["to"]; label: string }[];
