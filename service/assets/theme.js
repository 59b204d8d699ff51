// Runs before the first paint: applies the reader's stored choice of light or dark.
// Without one, the style sheet follows the system. Storage may be refused (file://, private windows).
"use strict";
(function () {
  const key = "isoflop-theme";
  let stored = null;
  try { stored = localStorage.getItem(key); } catch { /* no storage: the system decides */ }
  if (stored === "light" || stored === "dark") document.documentElement.dataset.theme = stored;

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-theme-toggle]");
    if (!button) return;
    const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    const next = (document.documentElement.dataset.theme || system) === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try { localStorage.setItem(key, next); } catch { /* holds for this page only */ }
    document.dispatchEvent(new Event("themechange"));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
    document.dispatchEvent(new Event("themechange")));
})();
