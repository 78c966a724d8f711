import { TextInput } from "@mantine/core";
import { useDebouncedCallback } from "@mantine/hooks";
import { useEffect, useState } from "react";

const PAUSE_MS = 250;

/** A part of a name to look for: it is asked for once typing pauses. */
export function Search({ label, value, onSearch }: { label: string; value: string; onSearch: (value: string) => void }) {
  const [typed, setTyped] = useState(value);
  const told = useDebouncedCallback(onSearch, PAUSE_MS);
  useEffect(() => setTyped(value), [value]); // the address has changed by itself, as on the way back
  return (
    <TextInput
      type="search"
      aria-label={label}
      placeholder={label}
      maxLength={100}
      value={typed}
      onChange={(event) => {
        setTyped(event.currentTarget.value);
        told(event.currentTarget.value);
      }}
    />
  );
}
