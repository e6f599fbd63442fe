// Whether the page is light or dark, if the user does not want what the system wants. It runs before anything is drawn, and so it is
// no module.

"use strict";

(() => {
  const KEY = "airrun.theme";
  const root = document.documentElement;
  const bars = [...document.querySelectorAll('meta[name="theme-color"]')].map((node) => [node, node.content]);

  function chosen() {
    let kept = "";
    try { kept = localStorage.getItem(KEY) ?? ""; } catch { /* as the system does */ }
    return kept === "light" || kept === "dark" ? kept : "";
  }

  function apply() {
    const theme = chosen();
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    // The browser's own bar has the page's colour.
    const own = theme === "dark" ? bars[1][1] : bars[0][1];
    for (const [node, system] of bars) node.content = theme ? own : system;
  }

  globalThis.airrunTheme = {
    chosen,
    choose(theme) {
      try { localStorage.setItem(KEY, theme); } catch { root.dataset.theme = theme; return; }
      apply();
    },
  };
  addEventListener("storage", ({ key }) => { if (key === KEY) apply(); });
  apply();
})();
