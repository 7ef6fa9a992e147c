"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const by = (id) => document.getElementById(id);

  /* Tables: a button in each header sorts; what has no value comes last in either order. Each body is sorted by itself,
     so that the controls of a leaderboard stay below the methods. */
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
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", order);
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !row.matches(".title")).map((row) => ({ row, key: keyOf(row, place) }));
      rows.sort((a, b) => {
        if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
        return sign * compare(a.key, b.key);
      });
      body.append(...rows.map((one) => one.row));
    }
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
  const gallery = by("samples");
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
    if (ordered.some((card, place) => gallery.children[place] !== card)) gallery.append(...ordered);
    const fitting = new Set(found);
    let seen = 0;
    for (const card of ordered) card.hidden = !fitting.has(card) || ++seen > room;
    for (const part of all("[data-method]", gallery)) part.hidden = Boolean(wanted.method) && part.dataset.method !== wanted.method;
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
    const first = samples.length && [...gallery.children].filter((card) => !card.hidden).length;
    room += STEP;
    show();
    const next = [...gallery.children].filter((card) => !card.hidden)[first];
    if (next) next.querySelector("summary").focus();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || dialog.open || viewer.open) return;
    const open = event.target.closest && event.target.closest("details[open]");
    if (open) {
      open.open = false;
      open.querySelector("summary").focus();
    }
  });
  show();

  /* A large view: arrow keys go through the pictures of a case, then to the next case; Esc closes it and gives focus back. */
  const viewer = by("viewer");
  let view = null;
  const isSeen = (node, root) => {
    const hidden = node.closest("[hidden]");
    return !hidden || !root.contains(hidden);
  };
  const viewsOf = (one) => all("img[data-view]", one).filter((image) => isSeen(image, one));
  const casesOf = (one) => {
    const root = one.closest("[data-cases]");
    return all("[data-case]", root).filter((other) => isSeen(other, root) && viewsOf(other).length);
  };
  const look = (image) => {
    const one = image.closest("[data-case]");
    const views = viewsOf(one);
    view = image;
    by("viewer-image").src = image.src;
    by("viewer-image").alt = image.alt;
    by("viewer-title").textContent = one.dataset.case;
    by("viewer-words").textContent = `${image.dataset.view} (${views.indexOf(image) + 1} of ${views.length})`;
    by("viewer-before").disabled = !neighbour(-1);
    by("viewer-after").disabled = !neighbour(1);
  };
  const nextCase = (step) => {
    const cases = casesOf(view);
    return cases[cases.indexOf(view.closest("[data-case]")) + step];
  };
  const neighbour = (step) => {
    const views = viewsOf(view.closest("[data-case]"));
    const near = views[views.indexOf(view) + step];
    const other = near ? null : nextCase(step);
    return near || (other ? viewsOf(other).at(step > 0 ? 0 : -1) : null);
  };
  const go = (image) => { if (image) look(image); };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.view");
    if (!button) return;
    look(button.querySelector("img"));
    viewer.showModal();
  });
  viewer.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1 };
    const jumps = { ArrowUp: -1, ArrowDown: 1 };
    if (!(event.key in steps) && !(event.key in jumps)) return;
    event.preventDefault();
    if (event.key in steps) return go(neighbour(steps[event.key]));
    const other = nextCase(jumps[event.key]);
    go(other && viewsOf(other)[0]);
  });
  by("viewer-before").addEventListener("click", () => go(neighbour(-1)));
  by("viewer-after").addEventListener("click", () => go(neighbour(1)));
  by("viewer-close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("click", (event) => {
    if (event.target === viewer) viewer.close();
  });

  /* An address that names something folded or filtered away unfolds it. */
  const reveal = () => {
    const target = location.hash && by(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    if (target.matches("details.sample") && target.hidden) {
      for (const field of form.elements) if (field.name) field.value = field.name === "metric" ? "s" : "";
      room = samples.length;
      show();
    }
    for (let node = target; node; node = node.parentElement) if (node.matches("details")) node.open = true;
    target.scrollIntoView();
    if (target.matches("details.sample")) target.querySelector("summary").focus({ preventScroll: true });
  };
  window.addEventListener("hashchange", reveal);
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]:not([href^="#def-"])');
    if (link && link.getAttribute("href") === location.hash) setTimeout(reveal);
  });

  /* The contents mark the section that is read. */
  const entries = new Map(all("nav a").map((link) => [by(link.getAttribute("href").slice(1)), link]));
  const reading = new Set();
  const watcher = new IntersectionObserver((changes) => {
    for (const change of changes) reading[change.isIntersecting ? "add" : "delete"](change.target);
    const current = [...entries.keys()].filter((part) => reading.has(part)).at(0);
    if (!current) return;
    for (const [part, link] of entries) part === current ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
  }, { rootMargin: "-15% 0px -60% 0px" });
  for (const part of entries.keys()) watcher.observe(part);

  /* Narrow screens start with the contents and the checks of the verdicts folded; print shows all but the samples. */
  const contents = by("contents");
  const checks = all("details.checks[open]");
  const fold = (query, parts) => {
    const follow = () => { for (const one of parts) one.open = !query.matches; };
    query.addEventListener("change", follow);
    follow();
  };
  const narrow = matchMedia("(max-width: 70rem)");
  fold(narrow, [contents]);
  fold(matchMedia("(max-width: 40rem)"), checks);
  contents.addEventListener("click", (event) => {
    if (event.target.closest("a") && narrow.matches) contents.open = false;
  });
  let folded = [];
  window.addEventListener("beforeprint", () => {
    folded = all("details.fold:not([open]), details.checks:not([open])");
    for (const one of folded) one.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const one of folded) one.open = false;
  });
  reveal();
})();
