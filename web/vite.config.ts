import { fileURLToPath } from "node:url";

import { tanstackRouter } from "@tanstack/router-plugin/vite";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  plugins: [
    tanstackRouter({
      target: "react",
      autoCodeSplitting: true,
      routesDirectory: here("src/routes"),
      generatedRouteTree: here("src/app/route-tree.gen.ts"),
    }),
    react(),
  ],
  resolve: { alias: { "@": here("src") } },
  // the server puts a new nonce for each request in its place
  html: { cspNonce: "%nonce%" },
  build: {
    outDir: here("../src/modelkeep/console"),
    emptyOutDir: true,
    // the policy has no place for what is written into the page
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2023",
    manifest: "manifest.json",
    license: { fileName: "licenses.md" },
    reportCompressedSize: false,
  },
  server: { proxy: { "/api": "http://127.0.0.1:8080" } },
  test: { environment: "jsdom", include: ["src/**/*.test.{ts,tsx}"] },
});
