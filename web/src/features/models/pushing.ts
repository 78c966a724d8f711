import { queryOptions } from "@tanstack/react-query";

import { type Schema, said, server } from "@/api/client";
import { upload } from "@/api/upload";
import type { Version } from "@/features/models/queries";

const MOST_WORKSPACES = 500;
const KEY_DAYS = 30;
const LONGEST_NAME = 63;

/** What is about to be pushed. */
export interface Push {
  name: string;
  file: File;
  format: string;
  description: string;
  sample: File | null;
  labels: File | null;
  hooks: File | null;
  asItIs: boolean;
  workspace: string;
  newWorkspace: string;
}

/** A file that was dropped on one page and is pushed from another: an address cannot carry it. */
export const hand: { file: File | null } = { file: null };

/** Where a new model can be made. */
export const workspaces = () =>
  queryOptions({
    queryKey: ["workspaces", "mine"],
    queryFn: ({ signal }) => said(server.GET("/api/v1/workspaces", { params: { query: { limit: MOST_WORKSPACES } }, signal })),
    staleTime: 60_000,
  });

/** Ask whether it will be taken, and send it: gigabytes are not sent for nothing. */
export async function push(one: Push, once: string, onSent: (share: number) => void, signal: AbortSignal): Promise<Version> {
  const workspace = one.newWorkspace === "" ? one.workspace : await made(one.newWorkspace);
  const query = workspace === "" ? { create: true } : { create: true, workspace };
  await server.POST("/api/v1/models/{name}/versions/check", {
    params: { path: { name: one.name }, query },
    body: { filename: one.file.name, format: one.format, size: one.file.size, hooks: one.hooks !== null },
    signal,
  });
  const asked = new URLSearchParams({ create: "true", ...(workspace === "" ? {} : { workspace }) });
  const path = `/api/v1/models/${encodeURIComponent(one.name)}/versions?${asked.toString()}`;
  return upload<Version>(path, { form: formOf(one), once, onSent, signal });
}

/** Return the parts of an upload: small ones first, so that a refusal comes before the file has been sent. */
export function formOf(one: Push): FormData {
  const form = new FormData();
  for (const [name, text] of [
    ["format", one.format],
    ["description", one.description],
    ["compile", one.asItIs ? "off" : ""],
  ] as const) {
    if (text !== "") {
      form.append(name, text);
    }
  }
  for (const name of ["sample", "labels", "hooks"] as const) {
    const file = one[name];
    if (file !== null) {
      form.append(name, file, file.name);
    }
  }
  form.append("file", one.file, one.file.name);
  return form;
}

/** Return a name for a model that comes in this file: what is before its suffix, in the letters that names have. */
export function nameFor(filename: string): string {
  return filename
    .replace(/\.[^.]*$/, "")
    .toLowerCase()
    .normalize("NFKD")
    .replace(/[^a-z0-9._-]+/g, "-")
    .replace(/^[^a-z0-9]+|[^a-z0-9]+$/g, "")
    .slice(0, LONGEST_NAME);
}

/** Make a key of one's own for pushing from a terminal; its secret is told this once. */
export async function keyForPushing(name: string): Promise<Schema<"IssuedKey">> {
  const scopes: Schema<"Scope">[] = ["models:read", "models:write", "models:code", "predict"];
  return said(server.POST("/api/v1/keys", { body: { name, scopes, expires_in_days: KEY_DAYS, rate: "user", networks: [] } }));
}

/** Return the commands that push a file from a terminal: ours, and one that is everywhere. */
export function commands(name: string, file: string, url: string, secret: string): { ours: string; plain: string } {
  const path = `${url}/api/v1/models/${encodeURIComponent(name)}/versions?create=true`;
  const part = /[",;\\]/.test(file) ? `"${file.replace(/["\\]/g, "\\$&")}"` : file; // curl reads these as its own
  return {
    ours: `modelkeep push ${quoted(file)} --name ${quoted(name)} \\\n  --url ${quoted(url)} \\\n  --key ${quoted(secret)}`,
    plain: `curl --fail-with-body ${quoted(path)} \\\n  -H ${quoted(`X-API-Key: ${secret}`)} \\\n  -F ${quoted(`file=@${part}`)}`,
  };
}

/** Return a word as a shell reads it: a file's name may have anything in it. */
function quoted(word: string): string {
  const safe = word.startsWith("-") ? `./${word}` : word;
  return /^[\w@%+=:,./-]+$/.test(safe) ? safe : `'${safe.replaceAll("'", `'\\''`)}'`;
}

async function made(name: string): Promise<string> {
  await server.POST("/api/v1/workspaces", { body: { name } });
  return name;
}
