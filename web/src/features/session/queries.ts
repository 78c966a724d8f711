import { queryOptions } from "@tanstack/react-query";

import { said, server } from "@/api/client";
import { session } from "@/api/session";

/** Whether the first administrator is still to be made. */
export const setUpState = () =>
  queryOptions({
    queryKey: ["set-up"],
    queryFn: ({ signal }) => said(server.GET("/api/v1/setup", { signal })),
    staleTime: 60_000,
  });

/** Who is logged in; a problem with the code `unauthenticated` where nobody is. */
export const me = () =>
  queryOptions({
    queryKey: ["me"],
    queryFn: ({ signal }) => said(server.GET("/api/v1/me", { signal })),
    staleTime: 60_000,
  });

/** Through whom people can log in, beside a password of theirs here. */
export const providers = () =>
  queryOptions({
    queryKey: ["providers"],
    queryFn: ({ signal }) => said(server.GET("/api/v1/auth/providers", { signal })),
    staleTime: 60_000,
  });

export interface Credentials {
  name: string;
  password: string;
}

/** Log in with a password of this installation's, or as a directory knows one. */
export async function logIn({ name, password }: Credentials, directory: string | null): Promise<void> {
  const told =
    directory === null
      ? await said(server.POST("/api/v1/auth/browser/login", { body: { email: name, password } }))
      : await said(
          server.POST("/api/v1/auth/browser/ldap/{provider}/login", {
            params: { path: { provider: directory } },
            body: { login: name, password },
          }),
        );
  session.begin(told);
}

/** Make the first administrator, and log them in. Returns their key, which is told this once. */
export async function setUp(body: { token: string; name: string; email: string; password: string }): Promise<string> {
  const made = await said(server.POST("/api/v1/setup", { body }));
  try {
    await logIn({ name: body.email, password: body.password }, null);
  } catch {
    // the page after this asks for it again and says why not; the key is told now, or never
  }
  return made.key.secret;
}

/** End this browser's session; what the server says to that changes nothing here. */
export async function logOut(): Promise<void> {
  try {
    await server.POST("/api/v1/auth/browser/logout", {});
  } finally {
    session.end();
  }
}
