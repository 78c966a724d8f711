import { createTheme, Modal, type CSSVariablesResolver, type MantineTheme } from "@mantine/core";

const TINTED = ["gray", "red", "green", "yellow", "blue"] as const;

/** Colours are tokens with a meaning, in light and dark; system fonts, so that nothing has to be fetched for words. */
export const theme = createTheme({
  primaryColor: "blue",
  primaryShade: 8,
  autoContrast: true,
  cursorType: "pointer",
  respectReducedMotion: true,
  fontFamily: "system-ui, sans-serif",
  fontFamilyMonospace: "ui-monospace, monospace",
  components: {
    Modal: Modal.extend({
      // its header is none of the page's: only one is where the page itself is named
      defaultProps: { centered: true, closeButtonProps: { "aria-label": "Close" }, attributes: { header: { role: "presentation" } } },
    }),
  },
});

/** Words stand out from what is behind them by 4.5 to 1, which Mantine's own shades do not (WCAG 2.2, 1.4.3). */
export const readable: CSSVariablesResolver = (of) => ({
  variables: {},
  light: { "--mantine-color-dimmed": of.colors.gray[7], "--mantine-color-error": of.colors.red[9], ...words(of, 9) },
  dark: { "--mantine-color-dimmed": of.colors.dark[1], "--mantine-color-error": of.colors.red[4], ...words(of, 3) },
});

function words(of: MantineTheme, shade: 3 | 9): Record<string, string> {
  const found = TINTED.flatMap((colour) => [
    [`--mantine-color-${colour}-text`, of.colors[colour][shade]],
    [`--mantine-color-${colour}-light-color`, of.colors[colour][shade]],
  ]);
  return { ...Object.fromEntries(found), "--mantine-color-anchor": of.colors.blue[shade === 9 ? 8 : 3] };
}
