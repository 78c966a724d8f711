import { Button, FileButton, Paper, Stack, Text } from "@mantine/core";
import { type DragEvent, type ReactNode, useRef, useState } from "react";

interface Dropped {
  /** Takes the file; a folder is none. */
  onFile: (file: File) => void;
  children: ReactNode;
}

/** A place for a file, by a drop or by its button. */
export function DropPlace({ onFile, action, children }: Dropped & { action: string }) {
  const { over, wrong, on } = useDrop(onFile);
  return (
    <Paper withBorder p="xl" {...on} style={{ borderStyle: "dashed", borderWidth: 2 }} {...(over ? { bg: "blue.light" } : {})}>
      <Stack align="center" gap="sm">
        {children}
        <FileButton onChange={(file) => file && onFile(file)}>{(props) => <Button {...props}>{action}</Button>}</FileButton>
        <Text size="sm" role="status" c={wrong === "" ? "dimmed" : "red"} ta="center">
          {wrong || "or drop it here"}
        </Text>
      </Stack>
    </Paper>
  );
}

/** A part of a page that takes a file that is dropped anywhere on it, and looks as usual until one is about to be. */
export function DropAround({ onFile, children }: Dropped) {
  const { over, wrong, on } = useDrop(onFile);
  return (
    <div {...on} style={over ? { outline: "2px dashed var(--mantine-color-blue-filled)", outlineOffset: 8 } : undefined}>
      {wrong === "" ? null : (
        <Text size="sm" role="alert" c="red">
          {wrong}
        </Text>
      )}
      {children}
    </div>
  );
}

function useDrop(onFile: (file: File) => void) {
  const [over, setOver] = useState(false);
  const [wrong, setWrong] = useState("");
  const inside = useRef(0); // each part within is entered and left by itself
  const count = (by: number) => {
    inside.current = Math.max(0, inside.current + by);
    setOver(inside.current > 0);
  };
  const carries = (event: DragEvent) => event.dataTransfer.types.includes("Files");
  const on = {
    onDragEnter: (event: DragEvent) => carries(event) && count(1),
    onDragLeave: (event: DragEvent) => carries(event) && count(-1),
    onDragOver: (event: DragEvent) => {
      if (carries(event)) {
        event.preventDefault(); // else the browser opens the file
      }
    },
    onDrop: (event: DragEvent) => {
      event.preventDefault();
      inside.current = 0;
      setOver(false);
      const [item, another] = [...event.dataTransfer.items].filter((one) => one.kind === "file");
      const file = item?.getAsFile();
      if (another !== undefined) {
        setWrong("One file at a time, please: a model is one file, or a folder in a ZIP.");
      } else if (!file || item?.webkitGetAsEntry()?.isDirectory) {
        setWrong("A folder cannot be taken from here: put what is in it into a ZIP, or push it from a terminal.");
      } else {
        setWrong("");
        onFile(file);
      }
    },
  };
  return { over, wrong, on };
}
