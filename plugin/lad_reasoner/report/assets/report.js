// The gallery: filters, pages and draws the pairs of globalThis.ladReport. Whatever a model or a file said reaches the
// page through textContent or a property, never as markup.
"use strict";

(() => {
  const report = globalThis.ladReport;
  const PAGE = 10;
  const LONG = 6000; // characters of one response drawn at once
  const find = (selector) => document.querySelector(selector);
  const state = { found: [], page: 0, current: 0, mask: true, raw: false, shown: report.runs.map(() => true) };
  const fields = Object.fromEntries(
    ["search", "run", "category", "kind", "defect", "label", "answer", "order"].map((id) => [id, find(`#${id}`)]),
  );

  // ---- Small makers of elements ----

  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name === "class") element.className = value;
      else if (name.includes("-") || name === "role") element.setAttribute(name, value);
      else element[name] = value;
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  const address = (name) => (report.images ? report.images[name] : `images/${name}`);
  const words = (name) => name.replaceAll("_", " ");
  const number = (value) => (value === null ? "n/a" : value.toFixed(2));
  const truthWords = (pair) => (pair.label === "no" ? "normal" : `anomalous: ${words(pair.defect.replaceAll("+", ", "))}`);

  // ---- Which pairs ----

  function haystack(pair) {
    pair.text ??= [
      pair.id, pair.category, pair.kind, pair.defect,
      ...pair.said.flatMap((said) => (said ? said.samples.map((sample) => sample.text.join("")) : [])),
    ].join("\n").toLowerCase();
    return pair.text;
  }

  function answerMatches(said, label, wanted) {
    if (!wanted) return true;
    if (!said) return false;
    if (wanted === "right") return said.answer === label;
    if (wanted === "wrong") return said.answer !== label;
    if (wanted === "reason") return said.reason;
    return (said.answer ?? "unparsed") === wanted;
  }

  function matches(pair, chosen) {
    return (
      (!chosen.category || pair.category === chosen.category) &&
      (!chosen.kind || pair.kind === chosen.kind) &&
      (!chosen.defect || pair.defect.split("+").includes(chosen.defect)) &&
      (!chosen.label || pair.label === chosen.label) &&
      answerMatches(pair.said[chosen.run], pair.label, chosen.answer) &&
      (!chosen.search || haystack(pair).includes(chosen.search))
    );
  }

  const error = (pair, run) => pair.said[run]?.error ?? 2;

  // How far a pair is from all models being right, or all wrong.
  function dispute(pair) {
    const asked = pair.said.filter(Boolean);
    const right = asked.filter((said) => said.answer === pair.label).length;
    return asked.length ? Math.min(right, asked.length - right) / asked.length : 0;
  }

  const orders = {
    worst: (run) => (a, b) => error(b, run) - error(a, run),
    best: (run) => (a, b) => error(a, run) - error(b, run),
    split: (run) => (a, b) => dispute(b) - dispute(a) || error(b, run) - error(a, run),
    file: () => () => 0,
  };

  function filter() {
    const chosen = Object.fromEntries(Object.entries(fields).map(([id, field]) => [id, field.value]));
    chosen.search = chosen.search.trim().toLowerCase();
    chosen.run = Number(chosen.run);
    state.found = report.pairs.filter((pair) => matches(pair, chosen)).sort(orders[chosen.order](chosen.run));
    state.page = 0;
    state.current = 0;
    const all = report.pairs.length;
    find("#count").textContent =
      state.found.length === all ? `${all} pairs` : `${state.found.length} of ${all} pairs`;
    draw();
  }

  // ---- Drawing a pair ----

  function picture(pair, name, caption, mask) {
    const image = make("img", { src: address(name), alt: `${caption} image of ${pair.path}`, loading: "lazy", decoding: "async" });
    const frame = make("span", { class: "frame" }, image);
    if (mask) frame.append(make("img", { src: address(mask), class: "mask", alt: "", "aria-hidden": "true" }));
    if (caption === "Query") frame.append(...boxLayer(pair));
    return make("figure", { class: "picture" }, frame, make("figcaption", { textContent: caption }));
  }

  // The dataset's boxes, and those of each model's first reply, as shares of the picture.
  function boxLayer(pair) {
    const groups = [["gold", pair.boxes], ...pair.said.map((said, run) => [`run-${run % 4}`, said && state.shown[run] ? said.samples[0].boxes : []])];
    if (!groups.some(([, boxes]) => boxes.length)) return [];
    const svg = document.createElementNS(SVG, "svg");
    const put = (element, values) => { for (const [name, value] of Object.entries(values)) element.setAttribute(name, value); };
    put(svg, { class: "mask boxes", viewBox: "0 0 1 1", preserveAspectRatio: "none", role: "img", "aria-label": "boxes" });
    for (const [name, boxes] of groups) {
      for (const [left, top, right, bottom] of boxes) {
        if (right <= left || bottom <= top) continue;
        const box = document.createElementNS(SVG, "rect");
        put(box, { class: name, x: left, y: top, width: right - left, height: bottom - top });
        svg.append(box);
      }
    }
    return [svg];
  }

  function pictures(pair) {
    const several = pair.references.length > 1;
    return [
      ...pair.references.map((name, index) => picture(pair, name, several ? `Reference ${index + 1}` : "Reference", null)),
      picture(pair, pair.query, "Query", pair.mask),
    ];
  }

  // A megabyte of text in one paragraph would hold the page up: the rest comes on demand.
  function longText(element, text) {
    element.textContent = text.slice(0, LONG);
    if (text.length > LONG) {
      const more = make("button", { type: "button", class: "link", textContent: `show all ${text.length.toLocaleString("en")} characters` });
      more.addEventListener("click", () => { element.textContent = text; });
      element.append("… ", more);
    }
    return element;
  }

  function reasoning(sample) {
    const [before, inside, after] = sample.text;
    if (state.raw || !inside) {
      const text = before + inside + after;
      const note = inside || state.raw ? "" : " raw";
      if (!text) return make("p", { class: "response empty", textContent: "an empty response" });
      return longText(make("pre", { class: `response${note}`, dir: "auto" }), text);
    }
    return longText(make("p", { class: "response", dir: "auto" }), inside);
  }

  const SVG = "http://www.w3.org/2000/svg";

  function meter(score) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("class", "meter");
    svg.setAttribute("viewBox", "0 0 100 6");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    for (const [name, x, width] of [["track", 0, 100], ["fill", 0, 100 * score], ["half", 49.6, 0.8]]) {
      const bar = document.createElementNS(SVG, "rect");
      bar.setAttribute("class", name);
      bar.setAttribute("x", x);
      bar.setAttribute("width", width);
      bar.setAttribute("height", 6);
      svg.append(bar);
    }
    return svg;
  }

  function verdict(said, label) {
    const right = said.answer === label;
    const words = said.reason ? " ✓ verdict right, reason wrong" : right ? " ✓ right" : said.answer ? " ✗ wrong" : " ✗ counts as wrong";
    return make("span", { class: `verdict ${said.reason ? "reason" : right ? "right" : "wrong"}` },
      make("strong", { textContent: said.answer ?? "no readable answer" }), said.tied ? `${words}, tie of votes` : words);
  }

  function facts(sample, score) {
    const [overall, structure, accuracy] = sample.reward;
    const notes = [`reward ${overall} = structure ${structure}, accuracy ${accuracy}`];
    if (score !== null && sample.source === "forced") notes.push("score read after a forced answer");
    if (sample.tokens !== null) notes.push(`${sample.tokens} tokens`);
    if (sample.cut) notes.push("cut at the longest length");
    return make("p", { class: "facts", textContent: notes.join(" · ") });
  }

  function sampleButtons(said, redraw) {
    const group = make("div", { class: "samples", role: "group", "aria-label": "Samples" });
    said.samples.forEach((sample, index) => {
      const button = make("button", { type: "button", textContent: sample.answer ?? "–", title: `sample ${index + 1}`, "aria-label": `Sample ${index + 1}: ${sample.answer ?? "unparsed"}`, "aria-pressed": String(index === 0) });
      button.addEventListener("click", () => {
        for (const other of group.children) other.setAttribute("aria-pressed", String(other === button));
        redraw(sample);
      });
      group.append(button);
    });
    return group;
  }

  function column(pair, run) {
    const said = pair.said[run];
    const section = make("section", { class: "said", "aria-label": report.runs[run] });
    section.append(make("h4", { textContent: report.runs[run] }));
    if (!said) {
      section.append(make("p", { class: "facts", textContent: "no reply" }));
      return section;
    }
    const vote = said.samples.length > 1;
    const head = make("p", { class: "head" }, verdict(said, pair.label),
      make("span", { class: "score", textContent: said.score === null ? "no score" : `${vote ? (said.source === "vote" ? "share of yes" : "mean P(yes)") : "P(yes)"} ${number(said.score)}` }));
    section.append(head);
    if (said.score !== null) section.append(meter(said.score));
    const body = make("div");
    const redraw = (sample) => body.replaceChildren(facts(sample, said.score), reasoning(sample));
    if (vote) section.append(sampleButtons(said, redraw));
    redraw(said.samples[0]);
    section.append(body);
    return section;
  }

  function card(pair, index) {
    const title = make("header", { class: "about" },
      make("h3", { textContent: words(pair.category) }),
      make("span", { class: `truth ${pair.label}`, textContent: truthWords(pair) }),
      pair.label === "yes" ? make("span", { class: "tag", textContent: pair.kind }) : null,
      make("code", { textContent: pair.id }));
    const images = make("div", { class: "pictures", role: "button", tabIndex: 0, "aria-label": "Enlarge the pair" }, ...pictures(pair));
    images.addEventListener("click", () => zoom(pair));
    images.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); zoom(pair); }
    });
    const columns = make("div", { class: "columns" },
      ...report.runs.flatMap((_, run) => (state.shown[run] ? [column(pair, run)] : [])));
    const article = make("article", { class: "pair", tabIndex: -1, "aria-label": `Pair ${index + 1}: ${pair.id}` },
      title, make("div", { class: "body" }, images, columns));
    article.addEventListener("focusin", () => mark(index));
    return article;
  }

  function zoom(pair) {
    find("#zoom .zoomed").replaceChildren(...pictures(pair));
    find("#zoom").showModal();
  }

  // ---- The page of pairs ----

  const pages = () => Math.max(1, Math.ceil(state.found.length / PAGE));
  const cards = () => [...find("#pairs").children];

  function draw() {
    const start = state.page * PAGE;
    const shown = state.found.slice(start, start + PAGE);
    find("#pairs").replaceChildren(...(shown.length
      ? shown.map((pair, place) => card(pair, start + place))
      : [make("p", { class: "nothing", textContent: "No pair matches. Clear a filter." })]));
    find("#page").textContent = `page ${state.page + 1} of ${pages()}`;
    find("#previous").disabled = state.page === 0;
    find("#next").disabled = state.page + 1 >= pages();
    mark(Math.min(Math.max(state.current, start), start + Math.max(shown.length - 1, 0)));
  }

  function mark(index) {
    state.current = index;
    cards().forEach((element, place) => element.classList.toggle("current", state.page * PAGE + place === index));
  }

  function step(by) {
    const index = Math.min(Math.max(state.current + by, 0), state.found.length - 1);
    if (index < 0) return;
    const page = Math.floor(index / PAGE);
    state.current = index;
    if (page !== state.page) { state.page = page; draw(); } else mark(index);
    const element = cards()[index - page * PAGE];
    element.focus({ preventScroll: true });
    element.scrollIntoView({ block: "start" });
  }

  function turn(by) {
    const page = Math.min(Math.max(state.page + by, 0), pages() - 1);
    if (page === state.page) return;
    state.page = page;
    state.current = page * PAGE;
    draw();
    find("#filters").scrollIntoView({ block: "start" });
  }

  // ---- What people press ----

  function toggleColumn(run) {
    if (run >= state.shown.length) return;
    state.shown[run] = !state.shown[run];
    find(`[data-column="${run}"]`).setAttribute("aria-pressed", String(state.shown[run]));
    draw();
  }

  function toggleMask() {
    state.mask = !state.mask;
    find("#mask")?.setAttribute("aria-pressed", String(state.mask));
    document.body.classList.toggle("without-mask", !state.mask);
  }

  function toggleRaw() {
    state.raw = !state.raw;
    find("#raw").setAttribute("aria-pressed", String(state.raw));
    draw();
  }

  function listDefects() {
    const names = new Set(report.pairs
      .filter((pair) => pair.label === "yes" && (!fields.category.value || pair.category === fields.category.value))
      .flatMap((pair) => pair.defect.split("+")));
    const kept = names.has(fields.defect.value) ? fields.defect.value : "";
    fields.defect.replaceChildren(make("option", { value: "", textContent: "all" }),
      ...[...names].sort().map((name) => make("option", { value: name, textContent: name })));
    fields.defect.value = kept;
  }

  function clear() {
    for (const [id, field] of Object.entries(fields)) field.value = { run: fields.run.value, order: fields.order.value }[id] ?? "";
    listDefects();
  }

  // A cell of a matrix or a row of the defects: the filters say what it holds, so nothing is hidden.
  function choose(chosen) {
    clear();
    if (chosen.run !== undefined) fields.run.value = chosen.run;
    fields.category.value = chosen.category ?? "";
    listDefects();
    for (const id of ["label", "answer", "defect"]) fields[id].value = chosen[id] ?? "";
    filter();
    find("#gallery").scrollIntoView({ block: "start" });
    find("#gallery").focus({ preventScroll: true });
  }

  const root = document.documentElement;
  const remember = (value) => { try { localStorage.setItem("lad-theme", value); } catch { /* private window */ } };

  const darkMedia = { dark: "screen", light: "not all", "": "screen and (prefers-color-scheme: dark)" };

  function setTheme(theme) {
    root.dataset.theme = theme;
    for (const source of document.querySelectorAll(".plot source")) source.media = darkMedia[theme] ?? darkMedia[""];
  }

  function toggleTheme() {
    setTheme(getComputedStyle(root).colorScheme === "dark" ? "light" : "dark");
    remember(root.dataset.theme);
  }

  const keys = {
    j: () => step(1),
    k: () => step(-1),
    ArrowRight: () => turn(1),
    ArrowLeft: () => turn(-1),
    "/": () => fields.search.focus(),
    m: toggleMask,
    r: toggleRaw,
    c: () => { clear(); filter(); },
    z: () => { if (state.found.length) zoom(state.found[state.current]); },
  };

  function press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const inField = event.target.closest?.("input, select, textarea");
    if (inField) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const zoomed = find("#zoom").open;
    if (zoomed && event.key === "z") { find("#zoom").close(); return; }
    if (zoomed && event.key !== "m") return;
    const act = /^[1-9]$/.test(event.key) ? () => toggleColumn(Number(event.key) - 1) : keys[event.key];
    if (!act || (event.key.startsWith("Arrow") && event.target.closest?.(".scroll"))) return;
    event.preventDefault();
    act();
  }

  function listen() {
    let waiting = 0;
    fields.search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 80); });
    for (const [id, field] of Object.entries(fields)) {
      if (id !== "search") field.addEventListener("change", () => { if (id === "category") listDefects(); filter(); });
    }
    const form = find("#filters");
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", (event) => { event.preventDefault(); clear(); filter(); });
    for (const button of document.querySelectorAll(".cell, .link[data-defect]")) {
      button.addEventListener("click", () => choose(button.dataset));
    }
    for (const button of document.querySelectorAll("[data-column]")) {
      button.addEventListener("click", () => toggleColumn(Number(button.dataset.column)));
    }
    find("#mask")?.addEventListener("click", toggleMask);
    find("#raw").addEventListener("click", toggleRaw);
    find("#previous").addEventListener("click", () => turn(-1));
    find("#next").addEventListener("click", () => turn(1));
    find("#theme").addEventListener("click", toggleTheme);
    find("#zoom").addEventListener("click", (event) => { if (event.target === event.currentTarget) event.currentTarget.close(); });
    document.addEventListener("keydown", press);
  }

  try { setTheme(localStorage.getItem("lad-theme") ?? ""); } catch { /* private window */ }
  listDefects();
  listen();
  filter();
})();
