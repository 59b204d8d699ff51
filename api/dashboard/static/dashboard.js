// What pages do beyond links and forms: swap what has changed, sort tables, browse samples by keyboard.
// Without it every page still works; it then shows the moment it was loaded.
"use strict";
(function () {
  const main = document.getElementById("main");

  // ---- live parts -------------------------------------------------------------------------------------------
  // The page asks for itself without its frame and swaps each data-live element whose markup differs, in place:
  // scroll positions, open details and the focus stay, and nothing that is being typed into is touched.
  function swap(fresh) {
    for (const element of document.querySelectorAll("[data-live]")) {
      const next = fresh.querySelector(`[data-live="${CSS.escape(element.dataset.live)}"]`);
      if (!next || element.contains(document.activeElement) && document.activeElement.matches("input")) continue;
      if (element.localName === "script") {
        if (element.textContent !== next.textContent) element.textContent = next.textContent;
      } else if (element.innerHTML !== next.innerHTML) {
        element.innerHTML = next.innerHTML;
        const table = element.closest("table.sortable");
        if (table) resort(table);
      }
    }
    if (window.isoflopDrawFigures) window.isoflopDrawFigures(false);
  }

  async function fetchFragment(address, signal) {
    const url = new URL(address, location.href);
    url.searchParams.set("fragment", "live");
    const response = await fetch(url, { signal, headers: { Accept: "text/html" } });
    if (!response.ok) throw new Error(`the service answered ${response.status}`);
    return new DOMParser().parseFromString(await response.text(), "text/html");
  }

  const connection = document.getElementById("connection");
  const pollMs = () => Number(main.dataset.pollMs || 0);
  let heardAt = Date.now();

  async function poll() {
    if (!document.hidden) {
      try {
        const fresh = await fetchFragment(location.href, AbortSignal.timeout(10_000));
        swap(fresh);
        main.dataset.pollMs = fresh.querySelector("[data-fragment]").dataset.pollMs || 0;
        heardAt = Date.now();
        connection.textContent = "";
      } catch {
        const seconds = Math.round((Date.now() - heardAt) / 1000);
        connection.textContent = `No answer from the service for ${seconds} s; the page shows what was known then.`;
      }
    }
    if (pollMs() > 0) setTimeout(poll, pollMs()); // an ended job has said its last
  }
  if (pollMs() > 0) setTimeout(poll, pollMs());

  // ---- sortable tables --------------------------------------------------------------------------------------
  function sortKey(row, column) {
    const cell = row.children[column];
    const text = cell ? cell.dataset.sort ?? cell.textContent.trim() : "";
    const number = Number(text.replaceAll(",", ""));
    return text !== "" && !Number.isNaN(number) ? number : text.toLowerCase();
  }

  function resort(table) {
    const head = table.querySelector("th[aria-sort]");
    if (!head) return;
    const column = [...head.parentElement.children].indexOf(head);
    const sign = head.getAttribute("aria-sort") === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows].filter((row) => row.cells.length > column);
    rows.sort((one, two) => {
      const [a, b] = [sortKey(one, column), sortKey(two, column)];
      if (typeof a === typeof b) return sign * (a < b ? -1 : a > b ? 1 : 0);
      return typeof a === "number" ? -sign : sign;
    });
    table.tBodies[0].append(...rows);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.sort");
    if (!button) return;
    const head = button.closest("th");
    const first = head.classList.contains("number") ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const next = head.getAttribute("aria-sort") === first ? other : first;
    for (const sibling of head.parentElement.children) sibling.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", next);
    resort(head.closest("table"));
  });

  document.addEventListener("submit", (event) => {
    const question = event.target.dataset.confirm;
    if (question && !confirm(question)) event.preventDefault();
  });

  // ---- sample browser ---------------------------------------------------------------------------------------
  const browser = document.querySelector("[data-browser]");
  if (!browser) return;
  const reading = document.getElementById("reading");
  const rows = [...browser.querySelectorAll("tr[data-sample]")];
  let loading = null;

  const selectedIndex = () => rows.findIndex((row) => row.getAttribute("aria-selected") === "true");

  async function select(row) {
    for (const other of rows) other.removeAttribute("aria-selected");
    row.setAttribute("aria-selected", "true");
    row.scrollIntoView({ block: "nearest" });
    const address = row.querySelector("a").href;
    if (loading) loading.abort();
    loading = new AbortController();
    try {
      const fresh = await fetchFragment(address, loading.signal);
      reading.innerHTML = fresh.querySelector('[data-live="reading"]').innerHTML;
      reading.scrollTop = 0;
      history.replaceState(null, "", address);
    } catch (error) {
      if (error.name !== "AbortError") connection.textContent = `The sample could not be loaded: ${error.message}.`;
    }
  }

  browser.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-sample]");
    if (!row || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    select(row);
  });

  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    const index = selectedIndex();
    if (event.key === "j" && index + 1 < rows.length) select(rows[index + 1]);
    else if (event.key === "k" && index > 0) select(rows[index - 1]);
    else if (event.key === "Enter" && !event.target.closest("a, button, summary") && index >= 0) reading.focus();
    else if (event.key === "Escape" && reading.contains(document.activeElement)) browser.querySelector(".list .scroll").focus();
    else return;
    event.preventDefault();
  });
})();
