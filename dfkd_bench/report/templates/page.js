"use strict";
/* Choice of panels, details of a row, highlighting of curves, the theme; DataTables does the rest.
   Text from records is inserted with textContent only. */
(() => {
  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const make = (tag, properties, ...inside) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...inside.filter((part) => part !== null));
    return made;
  };
  const shared = JSON.parse(one("#words").textContent);
  const word = (place) => (place === null || place === undefined ? null : shared.words[place]);
  const plural = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

  /* -- theme: the system's until the reader switches -- */
  const root = document.documentElement, theme = one("#theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const stored = (value) => {
    try { return value ? localStorage.setItem("theme", value) : localStorage.getItem("theme"); } catch { return null; }
  };
  const paint = () => {
    const now = root.dataset.theme || (dark.matches ? "dark" : "light");
    theme.textContent = now === "dark" ? "Light" : "Dark";
    theme.setAttribute("aria-label", `Switch to ${now === "dark" ? "light" : "dark"} colours`);
    return now;
  };
  if (["light", "dark"].includes(stored())) root.dataset.theme = stored();
  theme.hidden = false;
  theme.addEventListener("click", () => { root.dataset.theme = paint() === "dark" ? "light" : "dark"; stored(root.dataset.theme); paint(); });
  dark.addEventListener("change", paint);
  paint();

  /* -- tables -- */
  const decode = (values) => {
    const row = Object.fromEntries(shared.row.map((key, k) => [key, values[k]]));
    for (const key of ["method", "preset", "uses", "owner", "version", "device", "code", "settings", "harness", "commit", "torch", "folder"]) row[key] = word(row[key]);
    row.details = row.details.map(word);
    row.uses = { text: row.uses, marks: shared.marks[row.uses ?? ""] ?? [] };
    row.runs = row.runs.map(([seed, status, last, hash, place, message]) => ({ seed, status: ["complete", "diverged", "failed"][status], last, hash, place: word(place), message: word(message) }));
    return row;
  };
  /* in both sort directions bounds come last, and missing values after the others */
  const place = (row, value) => ({ under: 2 * row.bound + (value === null), value });
  const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  DataTable.ext.errMode = "throw"; /* instead of alert() */
  DataTable.type("placed", { order: {
    asc: (a, b) => a.under - b.under || compare(a.value, b.value),
    desc: (a, b) => a.under - b.under || compare(b.value, a.value),
  } });

  const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
  const signed = (value) => `${value > 0 ? "+" : ""}${value.toFixed(1)} %`;
  const digits = (n) => (value) => value.toFixed(n);
  const number = (key, title, show, node, more = {}) => ({
    title, type: "placed", searchable: false, orderSequence: ["desc", "asc"],
    data: (row, type) => (type !== "display" ? place(row, row[key]) : node ? node(row) : make("span", { textContent: row[key] === null ? "" : show(row[key]) })), ...more,
  });
  const cell = (title, value, node, more = {}) => ({
    title, type: "placed", orderSequence: ["asc", "desc"],
    data: (row, type) => (type === "display" ? node(row) : type === "filter" ? DataTable.util.escapeHtml(value(row)) : place(row, value(row).toLowerCase())), ...more,
  });
  const words = (row) => [row.method, row.preset, ...row.details, row.owner, row.bound ? "bound" : "", row.alarmed ? "alarm" : "", row.diverged ? "diverged" : "", row.failed ? "failed" : ""].filter(Boolean).join("  ");
  const uses = (row) => row.uses.marks.map(([mark, name]) => `${mark} ${name}`).join("  ");

  const methodCell = (row) => {
    const name = make("b", { textContent: row.method });
    const alarm = row.alarmed ? make("span", { className: "alarm", textContent: "!", title: `${plural(row.alarmed, "run")} with a sign of collapse` }) : null;
    if (alarm) { alarm.setAttribute("role", "img"); alarm.setAttribute("aria-label", alarm.title); }
    const info = make("button", { type: "button", className: "info", textContent: "i" });
    info.setAttribute("aria-label", `Where the numbers of ${row.method} ${row.preset} come from`);
    info.setAttribute("aria-expanded", "false");
    const lines = [row.preset, ...row.details].map((text) => make("span", { className: "second", textContent: text }));
    return make("div", {}, make("span", { className: "name" }, name, alarm, info), ...lines);
  };
  const countCell = (row) => make("div", {}, String(row.n), ...["diverged", "failed"].filter((key) => row[key]).map((key) => make("span", { className: "bad", textContent: `${row[key]} ${key}` })));
  const lastCell = (row) => row.last === null ? make("span", {}) : make("span", {}, make("span", { className: "value", textContent: row.last.toFixed(2) }), row.ci === null ? null : make("span", { className: "ci", textContent: ` ± ${row.ci.toFixed(2)}` }));
  const seenCell = (row) => row.seen === null ? make("span", {}) : make("div", {}, short.format(row.seen), make("span", { className: "second", textContent: `${short.format(row.steps)} steps` }));
  const usesCell = (row) => make("span", { className: "marks" }, ...row.uses.marks.map(([mark, name, meaning]) => make("abbr", { textContent: mark, title: `${name}: ${meaning}` })));

  const time = (key) => number(key, key, (value) => value.toFixed(value < 100 ? 1 : 0), null, { orderSequence: ["asc", "desc"] });
  const amount = (key, node) => number(key, key, (value) => short.format(value), node);
  const columns = (timed) => [
    number("rank", "#", String, (row) => make("span", { textContent: row.bound ? "–" : row.rank ?? "" }), { className: "rank", orderSequence: ["asc", "desc"] }),
    cell("method", words, methodCell, { className: "method left", cellType: "th", createdCell: (th) => { th.scope = "row"; } }),
    number("last", "last ± 95 %", String, lastCell, { className: "last" }),
    number("n", "n", String, countCell),
    ...(timed ? [time("spent"), number("off", "off", signed), amount("made"), amount("seen", seenCell)] : []),
    number("oracle", "oracle", digits(2)),
    ...(timed ? [] : [number("mean", "mean", digits(2)), number("selected", "selected", digits(2))]),
    number("agreement", "agree", digits(2)),
    number("coverage", "cover", (value) => `${value} %`),
    number("labels", "labels", digits(1)),
    ...(timed ? [] : [time("seconds")]),
    number("passes", "passes", (value) => short.format(value), null, { orderSequence: ["asc", "desc"] }),
    cell("uses", uses, usesCell, { className: "left" }),
  ];

  const facts = (pairs) => make("dl", { className: "facts" }, ...pairs.filter(([, value]) => value).flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", {}, value)]));
  const code = (text, length) => (text ? make("code", { textContent: length ? text.slice(0, length) : text }) : null);
  const provenance = (group, row, length) => {
    const seeds = (status) => row.runs.filter((run) => run.status === status).map((run) => run.seed).join(", ");
    const message = [...new Set(row.runs.filter((run) => run.message && run.status !== "failed").map((run) => run.message))].join("; ");
    return facts([
      ["Seeds", seeds("complete")], ["Diverged", seeds("diverged")], ["Failed", seeds("failed")], ["Alarms", message],
      ["Teacher", make("span", {}, group.teacher[0] ? `${group.teacher[0]} ` : "", code(group.teacher[1], length))],
      ["Data", code(group.data, length)], ["Code", code(row.code, length)], ["Settings", code(row.settings, length)],
      ["Method of", [row.owner, row.version].filter(Boolean).join(" ")],
      ["Device", [row.device, `${plural(row.threads, "CPU thread")}`].filter(Boolean).join(", ")],
      ["Made with", [row.harness && `dfkd-bench ${row.harness}`, row.commit && `commit ${row.commit.split(", ").map((c) => (length ? c.slice(0, length) + (c.endsWith("+") ? "+" : "") : c)).join(", ")}`, row.torch && `torch ${row.torch}`].filter(Boolean).join(", ")],
      ["Uses", row.uses.marks.map(([, name]) => name).join(", ")],
      ["Records", length ? code(row.folder) : null],
    ]);
  };
  const allRuns = (group, row) => {
    const head = make("tr", {}, ...["seed", "status", "last", "record"].map((text) => Object.assign(make("th", { textContent: text }), { scope: "col" })));
    const lines = row.runs.map((run) => make("tr", {},
      make("td", { textContent: run.seed }), make("td", { textContent: run.message ? `${run.status}: ${run.message}` : run.status }),
      make("td", { textContent: run.last === null ? "" : run.last.toFixed(2) }),
      make("td", {}, code(run.place ?? `${row.folder}/${group.track}-${group.budget}-s${run.seed}-${run.hash}/record.json`))));
    return make("div", { className: "more" }, provenance(group, row), make("table", {}, make("thead", {}, head), make("tbody", {}, ...lines)));
  };

  const build = (section) => {
    if (section.dataset.built) return;
    section.dataset.built = "yes";
    const group = JSON.parse(one("[data-rows]", section).textContent);
    const rows = group.rows.map(decode), paged = rows.length > 100;
    const element = one("table", section);
    const table = new DataTable(element, {
      data: rows, columns: columns(group.timed), autoWidth: false, deferRender: true, orderClasses: false,
      order: [[0, "asc"]], orderMulti: false, orderDescReverse: false,
      paging: paged, pageLength: 50, lengthMenu: [50, 100, 500, { label: "all", value: -1 }],
      layout: { topStart: "search", topEnd: paged ? "pageLength" : null, bottomStart: "info", bottomEnd: paged ? "paging" : null },
      language: {
        search: "Filter", searchPlaceholder: "method, preset, privilege", info: "Rows _START_ to _END_ of _TOTAL_", infoFiltered: "(_MAX_ in all)", infoEmpty: "No row",
        zeroRecords: "No row has all these words.", lengthMenu: "_MENU_ rows per page",
        aria: { orderable: ": sort", orderableReverse: ": sort the other way", paginate: { first: "First page", last: "Last page", next: "Next page", previous: "Previous page", number: "Page " } },
      },
      createdRow: (tr, row) => { tr.classList.toggle("bound", Boolean(row.bound)); tr.classList.toggle("best", row.rank === 1); },
      drawCallback() {
        const shown = all("tbody > tr", element);
        shown.forEach((tr, k) => tr.classList.toggle("first-bound", tr.classList.contains("bound") && k > 0 && !shown[k - 1].classList.contains("bound")));
      },
    });
    Object.assign(element.closest(".dt-layout-cell"), { role: "region", ariaLabel: `${group.title}: table, scrolls sideways`, tabIndex: 0 });
    element.addEventListener("click", (event) => {
      const info = event.target.closest(".info");
      if (!info) return;
      const line = table.row(info.closest("tr")), open = line.child.isShown();
      open ? line.child.hide() : line.child(allRuns(group, line.data())).show();
      info.setAttribute("aria-expanded", String(!open));
      hide();
    });
    const hint = (event) => {
      clearTimeout(waiting);
      const info = event.target.closest?.(".info") ?? (event.type === "pointerover" && one(".info", event.target.closest?.("th.method") ?? document.createElement("i")));
      if (info && info.getAttribute("aria-expanded") === "false" && event.pointerType !== "touch") waiting = setTimeout(() => show(info, group, table.row(info.closest("tr")).data()), event.type === "focusin" ? 0 : 150);
    };
    element.addEventListener("pointerover", hint);
    element.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && hint(event));
    element.addEventListener("focusout", hide);
    element.addEventListener("pointerout", (event) => event.target.closest("th.method")?.contains(event.relatedTarget) || tip.contains(event.relatedTarget) || hide());
  };

  /* -- the tooltip of a row: shown on hover and focus, hidden by Escape -- */
  const tip = one("#tip");
  let owner = null, waiting = 0;
  const hide = () => { clearTimeout(waiting); owner?.removeAttribute("aria-describedby"); owner = null; if (tip.matches(":popover-open")) tip.hidePopover(); };
  const show = (info, group, row) => {
    if (owner === info) return;
    hide();
    owner = info;
    tip.replaceChildren(make("b", { textContent: `${row.method} (${row.preset})` }), provenance(group, row, 12), make("span", { className: "soft", textContent: "Click i for all runs and full hashes." }));
    info.setAttribute("aria-describedby", "tip");
    tip.showPopover();
    placeTip();
  };
  const placeTip = () => {
    if (!owner) return;
    const at = owner.closest("th").getBoundingClientRect(), own = tip.getBoundingClientRect();
    const below = at.bottom + own.height + 8 < innerHeight || at.top < own.height + 8;
    tip.style.left = `${Math.max(8, Math.min(at.left + 24, innerWidth - own.width - 8))}px`;
    tip.style.top = `${Math.max(8, below ? at.bottom - 2 : at.top - own.height + 2)}px`;
  };
  tip.addEventListener("pointerleave", (event) => owner?.closest("th").contains(event.relatedTarget) || hide());
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  addEventListener("scroll", placeTip, { passive: true, capture: true });

  /* -- choice of panels: tabs (with arrow keys) or a list -- */
  const open = (chosen) => all(".group").filter((section) => !section.closest("[hidden]")).forEach((section) => {
    build(section);
    if (chosen) try { history.replaceState(null, "", `#${section.id}`); } catch { /* no history, as in a sandboxed frame */ }
  });
  const choose = (chooser, id) => {
    hide();
    for (const tab of all("[role=tab]", chooser)) {
      const on = tab.getAttribute("aria-controls") === id;
      tab.setAttribute("aria-selected", String(on));
      tab.tabIndex = on ? 0 : -1;
      one(`#${tab.getAttribute("aria-controls")}`).hidden = !on;
    }
    for (const option of chooser.choices ?? []) one(`#${option.value}`).hidden = option.value !== id;
    const list = one("select", chooser);
    if (list) list.value = id;
  };
  for (const chooser of all("[data-chooser]")) {
    const tabs = all("[role=tab]", chooser), list = one("select", chooser), find = one("[data-find]", chooser);
    chooser.choices = all("option", chooser);
    chooser.addEventListener("click", (event) => { const tab = event.target.closest("[role=tab]"); if (tab) { choose(chooser, tab.getAttribute("aria-controls")); open(true); } });
    chooser.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, Home: -tabs.indexOf(event.target), End: -1 - tabs.indexOf(event.target) }[event.key];
      if (step === undefined || !tabs.includes(event.target)) return;
      event.preventDefault();
      const next = tabs[(tabs.indexOf(event.target) + step + tabs.length) % tabs.length];
      next.focus();
      next.click();
    });
    list?.addEventListener("change", () => { choose(chooser, list.value); open(true); });
    find?.addEventListener("input", () => {
      const wanted = find.value.toLowerCase().split(/\s+/), now = list.value;
      const left = chooser.choices.filter((option) => wanted.every((part) => option.textContent.toLowerCase().includes(part)));
      list.replaceChildren(...left);
      if (left.length && !left.some((option) => option.value === now)) { choose(chooser, left[0].value); open(true); } else list.value = now;
    });
  }
  const openFromHash = () => {
    const wanted = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    for (let panel = wanted; panel; panel = panel.parentElement.closest(".group, .task")) {
      for (const chooser of all("[data-chooser]")) if (chooser.parentElement === panel.parentElement) choose(chooser, panel.id);
    }
    open();
  };
  addEventListener("hashchange", openFromHash);
  openFromHash();

  /* -- curves: highlight the hovered one and the pressed ones -- */
  for (const chart of all("[data-chart]")) {
    const lines = all("[data-line]", chart);
    const highlight = (number) => {
      const pressed = lines.filter((line) => line.getAttribute("aria-pressed") === "true").map((line) => line.dataset.line);
      const on = number ? [...pressed, number] : pressed;
      chart.classList.toggle("picked", on.length > 0);
      for (const line of lines) line.classList.toggle("on", on.includes(line.dataset.line));
    };
    for (const event of ["pointerover", "focusin"]) chart.addEventListener(event, (happened) => highlight(happened.target.closest("[data-line]")?.dataset.line));
    for (const event of ["pointerleave", "focusout"]) chart.addEventListener(event, () => highlight());
    chart.addEventListener("click", (event) => {
      const button = event.target.closest("button[data-line]");
      if (button) { button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true")); highlight(); }
    });
  }
})();
