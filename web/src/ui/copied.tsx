import { Box, Button, Code } from "@mantine/core";
import { useRef, useState } from "react";

const SAID_MS = 2000;

/** Text for somewhere else, with a button that copies it; where the browser gives no clipboard, as without TLS, it is selected. */
export function Copied({ text, label = "text" }: { text: string; label?: string }) {
  const block = useRef<HTMLPreElement>(null);
  const [done, setDone] = useState<"" | "Copied" | "Selected">("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setDone("Copied");
    } catch {
      if (block.current !== null) {
        window.getSelection()?.selectAllChildren(block.current);
      }
      setDone("Selected");
    }
    setTimeout(() => setDone(""), SAID_MS);
  };
  return (
    <Box pos="relative">
      <Code block ref={block} tabIndex={0} role="region" aria-label={label} pr={90} style={{ overflowX: "auto" }}>
        {text}
      </Code>
      <Button size="compact-xs" variant="default" pos="absolute" top={8} right={8} aria-label={`Copy ${label}`} onClick={() => void copy()}>
        <span aria-live="polite">{done || "Copy"}</span>
      </Button>
    </Box>
  );
}
