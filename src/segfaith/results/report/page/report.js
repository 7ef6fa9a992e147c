"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const by = (id) => document.getElementById(id);

  /* Tables: a button in each header sorts; what has no value comes last in either order. */
  const keyOf = (row, place) => {
    const cell = row.cells[place];
    if (!("value" in cell.dataset)) return null;
    const value = cell.dataset.value;
    return value !== "" && Number.isFinite(Number(value)) ? Number(value) : value;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  const sortBy = (button) => {
    const header = button.closest("th");
    const table = button.closest("table");
    const place = header.cellIndex;
    const turned = { ascending: "descending", descending: "ascending" };
    const order = turned[header.getAttribute("aria-sort")] || button.dataset.first;
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows].map((row) => ({ row, key: keyOf(row, place) }));
    rows.sort((a, b) => {
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
      return sign * compare(a.key, b.key);
    });
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", order);
    table.tBodies[0].append(...rows.map((one) => one.row));
  };
  for (const button of all("button.sort")) button.addEventListener("click", () => sortBy(button));

  /* Definitions open in a dialog where they are asked for; the browser closes it with Esc and gives focus back. */
  const dialog = by("definition");
  const define = (id) => {
    const entry = by(id);
    by("definition-title").textContent = entry.querySelector("dt").textContent;
    by("definition-text").replaceChildren(...[...entry.querySelector("dd").childNodes].map((node) => node.cloneNode(true)));
    dialog.showModal();
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#def-"]');
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || !dialog.showModal) return;
    event.preventDefault();
    define(link.getAttribute("href").slice(1));
  });
  by("definition-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });

  /* Gallery: the cards that meet all conditions, in the order asked for, some at a time. */
  const form = by("filters");
  const cards = by("cards");
  const samples = all("details.sample");
  const data = JSON.parse(by("scores-data").textContent);
  const STEP = 24;
  let room = STEP;
  const scoresOf = (one, metric, method) => {
    if (metric === "s") return one.s === null ? [] : [one.s];
    const asked = method ? [method] : Object.keys(one.methods);
    return asked.map((name) => (one.methods[name] || {})[metric]).filter((value) => value !== undefined);
  };
  const fits = (one, wanted) => {
    if (wanted.run && one.run !== wanted.run) return false;
    if (wanted.class && one.class !== wanted.class) return false;
    if (wanted.method && !(wanted.method in one.methods)) return false;
    if (wanted.status === "bad" ? one.status === "ok" : wanted.status === "undefined" ? !one.undefined : wanted.status && one.status !== wanted.status)
      return false;
    if (wanted.low === "" && wanted.high === "") return true;
    const low = wanted.low === "" ? -Infinity : Number(wanted.low);
    const high = wanted.high === "" ? Infinity : Number(wanted.high);
    return scoresOf(one, wanted.metric, wanted.method).some((value) => value >= low && value <= high);
  };
  const extreme = (one, wanted) => {
    const values = scoresOf(one, wanted.metric, wanted.method);
    return values.length ? (wanted.order === "low" ? Math.min(...values) : -Math.max(...values)) : Infinity;
  };
  const show = () => {
    const wanted = { run: "", ...Object.fromEntries(new FormData(form)) };
    const found = samples.filter((card) => fits(data[card.dataset.place], wanted));
    const rank = new Map(samples.map((card) => {
      const place = Number(card.dataset.place);
      return [card, wanted.order ? [extreme(data[place], wanted), place] : [0, place]];
    }));
    const ordered = [...samples].sort((a, b) => {
      const [x, y] = [rank.get(a), rank.get(b)];
      return x[0] === y[0] ? x[1] - y[1] : x[0] < y[0] ? -1 : 1;
    });
    if (ordered.some((card, place) => cards.children[place] !== card)) cards.append(...ordered);
    const fitting = new Set(found);
    let seen = 0;
    for (const card of ordered) card.hidden = !fitting.has(card) || ++seen > room;
    for (const part of all("[data-method]", cards)) part.hidden = Boolean(wanted.method) && part.dataset.method !== wanted.method;
    const visible = Math.min(room, found.length);
    by("shown").textContent = found.length === 0 ? "No sample meets all conditions."
      : `${visible} of ${found.length} matching samples shown (${samples.length} in the gallery)`;
    const more = by("more");
    more.hidden = found.length <= room;
    more.textContent = `Show ${Math.min(STEP, found.length - room)} more`;
  };
  form.addEventListener("input", () => { room = STEP; show(); });
  form.addEventListener("reset", () => setTimeout(() => { room = STEP; show(); }));
  form.addEventListener("submit", (event) => event.preventDefault());
  by("more").addEventListener("click", () => {
    const first = samples.length && [...cards.children].filter((card) => !card.hidden).length;
    room += STEP;
    show();
    const next = [...cards.children].filter((card) => !card.hidden)[first];
    if (next) next.querySelector("summary").focus();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || dialog.open) return;
    const open = event.target.closest && event.target.closest("details[open]");
    if (open) {
      open.open = false;
      open.querySelector("summary").focus();
    }
  });
  show();

  /* Narrow screens start with the contents folded; a link to what is folded unfolds it; print shows all but the gallery's insides. */
  const contents = by("contents");
  const narrow = matchMedia("(max-width: 70rem)");
  const fold = () => { contents.open = !narrow.matches; };
  narrow.addEventListener("change", fold);
  fold();
  contents.addEventListener("click", (event) => {
    if (event.target.closest("a") && narrow.matches) contents.open = false;
  });
  let folded = [];
  window.addEventListener("beforeprint", () => {
    folded = all("details.fold:not([open])");
    for (const one of folded) one.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const one of folded) one.open = false;
  });
})();
