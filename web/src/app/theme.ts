import { createTheme } from "@mantine/core";

/** Colours are tokens with a meaning, in light and dark; system fonts, so that nothing has to be fetched for words. */
export const theme = createTheme({
  primaryColor: "blue",
  autoContrast: true,
  cursorType: "pointer",
  respectReducedMotion: true,
  fontFamily: "system-ui, sans-serif",
  fontFamilyMonospace: "ui-monospace, monospace",
});
