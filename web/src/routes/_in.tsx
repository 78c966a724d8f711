import { createFileRoute, Outlet, redirect } from "@tanstack/react-router";

import { Problem } from "@/api/problem";
import { session } from "@/api/session";
import { me, setUpState } from "@/features/session/queries";

/** What pages want whose readers have to be known: who is not, is led to where they can be. */
export const Route = createFileRoute("/_in")({
  beforeLoad: async ({ context: { queries }, location }) => {
    if ((await queries.ensureQueryData(setUpState())).needed) {
      throw redirect({ to: "/setup" });
    }
    const refused = (location.search as { sign_on_error?: string }).sign_on_error;
    const door = redirect({ to: "/login", search: { to: refused === undefined ? location.href : location.pathname, refused } });
    if (session.standing === "none") {
      throw door;
    }
    try {
      await queries.ensureQueryData(me());
    } catch (error) {
      if (error instanceof Problem && error.status === 401) {
        session.end();
        throw door;
      }
      throw error;
    }
  },
  component: Outlet,
});
