"use strict";
(() => {
  const { store, items, made } = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const KINDS = ["accept", "edit", "reject"];
  const OTHERS = ["previous", "accept", "reject", "next"];
  const WORDS = { accept: "Accepted", edit: "Edited", reject: "Rejected" };
  const decisions = new Map();
  const counts = new Map();
  let shown = [];
  let place = 0;
  let editing = false;

  // What was decided before: in the file beside the annotations, then, newer, in this browser.
  const known = new Set(items.map((item) => item.id));
  for (const decision of [...Object.values(made), ...remembered()]) {
    if (known.has(decision.id)) {
      if (decision.decision) decisions.set(decision.id, decision);
      else decisions.delete(decision.id);
    }
  }

  function remembered() {
    try {
      return JSON.parse(localStorage.getItem(store) || "[]");
    } catch (error) {
      warn(`Earlier decisions in this browser cannot be read (${error.message}).`);
      return [];
    }
  }

  function remember() {
    const cleared = Object.keys(made).filter((id) => !decisions.has(id)).map((id) => ({ id, decision: null }));
    try {
      localStorage.setItem(store, JSON.stringify([...decisions.values(), ...cleared]));
    } catch (error) {
      warn(`This browser cannot keep decisions (${error.message}): export them before you leave.`);
    }
  }

  function warn(text) {
    $("warning").textContent = text;
    $("warning").hidden = false;
  }

  function element(name, text, className) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function current() {
    return items[shown[place]];
  }

  function filter() {
    const category = $("category").value;
    const undecided = $("undecided").checked;
    const before = current();
    shown = [];
    items.forEach((item, index) => {
      if (category && item.category !== category) return;
      if (undecided && decisions.has(item.id)) return;
      shown.push(index);
    });
    place = Math.max(0, shown.findIndex((index) => items[index] === before));
    show();
  }

  function picture(source, alt) {
    const image = element("img");
    image.src = source;
    image.alt = alt;
    return image;
  }

  function show() {
    stopEditing();
    const item = current();
    $("nothing").hidden = Boolean(item);
    for (const id of ["accept", "edit", "reject", "clear"]) $(id).disabled = !item;
    progress();
    $("images").replaceChildren();
    $("facts").replaceChildren();
    $("priors").replaceChildren();
    $("changed").hidden = true;
    if (!item) {
      for (const id of ["place", "question", "answer"]) $(id).textContent = "";
      $("told").hidden = true;
      return;
    }
    const decision = decisions.get(item.id);
    item.images.forEach((source, index) => {
      const figure = element("figure");
      figure.append(picture(source, `Image ${index + 1} of ${item.category}`));
      if (item.mask && index === item.images.length - 1) {
        const mask = picture(item.mask, "Mask of the defect");
        mask.className = "layer";
        mask.hidden = !$("mask").checked;
        figure.append(mask);
      }
      $("images").append(figure);
    });
    $("mask").parentElement.hidden = !item.mask;
    $("place").textContent = `${place + 1} of ${shown.length}: ${item.id}`;
    for (const fact of [item.category, item.defect, `by ${item.writer || "unknown"}`]) {
      if (fact) $("facts").append(element("span", fact));
    }
    if (decision) $("facts").append(element("span", WORDS[decision.decision], `state ${decision.decision}`));
    const edited = decision && decision.decision === "edit";
    $("question").textContent = edited ? decision.question.slice(item.markers.length) : item.question;
    $("answer").textContent = edited ? decision.answer : item.answer;
    $("changed").hidden = !edited;
    $("original").textContent = edited ? `${item.question} ${item.answer}` : "";
    $("told").hidden = !item.priors.length;
    $("told-count").textContent = `(${item.priors.length})`;
    $("priors").replaceChildren(...item.priors.map((text) => element("li", text)));
    for (const near of [place + 1, place - 1]) {
      const neighbour = items[shown[near]];
      if (neighbour) for (const source of [...neighbour.images, neighbour.mask]) if (source) new Image().src = source;
    }
  }

  function progress() {
    $("progress").textContent = `${decisions.size} of ${items.length} decided`;
    $("bar").max = Math.max(1, items.length);
    $("bar").value = decisions.size;
  }

  function decide(kind, texts = {}) {
    const item = current();
    if (!item) return;
    count(item, -1);
    if (kind) decisions.set(item.id, { id: item.id, decision: kind, ...texts });
    else decisions.delete(item.id);
    count(item, 1);
    remember();
    rates();
    if (kind && $("undecided").checked) {
      // What is decided leaves the list, so that the next one comes to this place.
      shown.splice(place, 1);
      place = Math.min(place, Math.max(0, shown.length - 1));
      show();
    } else if (kind && place + 1 < shown.length) {
      go(1);
    } else {
      show();
    }
  }

  function go(step) {
    place = Math.min(Math.max(0, place + step), Math.max(0, shown.length - 1));
    show();
  }

  function startEditing() {
    if (!current()) return;
    editing = true;
    for (const part of ["question", "answer"]) {
      $(`${part}-edit`).value = $(part).textContent;
      $(`${part}-edit`).hidden = false;
      $(part).hidden = true;
    }
    // While editing, only Save and Cancel work: no other button may drop what was typed.
    for (const id of OTHERS) $(id).disabled = true;
    $("edit-word").textContent = "Save";
    $("edit-key").textContent = "Ctrl Enter";
    $("clear-word").textContent = "Cancel";
    $("clear-key").textContent = "Esc";
    $("answer-edit").focus();
    $("answer-edit").scrollIntoView({ block: "nearest" });
  }

  function stopEditing() {
    editing = false;
    for (const part of ["question", "answer"]) {
      $(`${part}-edit`).hidden = true;
      $(part).hidden = false;
    }
    for (const id of OTHERS) $(id).disabled = false;
    $("edit-word").textContent = "Edit";
    $("edit-key").textContent = "E";
    $("clear-word").textContent = "Clear";
    $("clear-key").textContent = "U";
  }

  function save() {
    const item = current();
    const question = $("question-edit").value.trim();
    const answer = $("answer-edit").value.trim();
    if (!question || !answer) {
      warn("An edited pair needs a question and an answer. To drop it, reject it.");
      return;
    }
    $("warning").hidden = true;
    if (question === item.question && answer === item.answer) decide("accept");
    else decide("edit", { question: item.markers + question, answer });
  }

  function download() {
    const lines = items.filter((item) => decisions.has(item.id)).map((item) => JSON.stringify(decisions.get(item.id)));
    const link = element("a");
    link.href = URL.createObjectURL(new Blob(lines.map((line) => `${line}\n`), { type: "application/x-ndjson" }));
    link.download = "decisions.jsonl";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  function count(item, step) {
    const row = counts.get(item.category);
    const decision = decisions.get(item.id);
    row[decision ? decision.decision : "undecided"] += step;
  }

  function rates() {
    const rows = [...counts].map(([category, row]) => {
      const decided = row.accept + row.edit + row.reject;
      const line = element("tr");
      const share = decided ? `${((100 * row.reject) / decided).toFixed(1)}%` : "n/a";
      for (const text of [category, ...KINDS.map((kind) => row[kind]), row.undecided, share]) {
        line.append(element("td", String(text)));
      }
      return line;
    });
    $("rates").replaceChildren(...rows);
  }

  function toggleTheme() {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const now = document.documentElement.dataset.theme || (dark ? "dark" : "light");
    document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
  }

  function toggleMask() {
    for (const layer of document.querySelectorAll(".layer")) layer.hidden = !$("mask").checked;
  }

  const KEYS = {
    a: () => decide("accept"),
    r: () => decide("reject"),
    e: startEditing,
    u: () => decide(null),
    m: () => { $("mask").checked = !$("mask").checked; toggleMask(); },
    arrowright: () => go(1),
    arrowleft: () => go(-1),
    j: () => go(1),
    k: () => go(-1),
  };

  document.addEventListener("keydown", (event) => {
    if (editing) {
      if (event.key === "Escape") show();
      else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) save();
      else return;
      event.preventDefault();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, textarea")) return;
    const act = KEYS[event.key.toLowerCase()];
    if (!act) return;
    event.preventDefault();
    act();
  });

  for (const [id, act] of Object.entries({
    accept: () => decide("accept"),
    reject: () => decide("reject"),
    edit: () => (editing ? save() : startEditing()),
    clear: () => (editing ? show() : decide(null)),
    next: () => go(1),
    previous: () => go(-1),
    export: download,
    theme: toggleTheme,
  })) $(id).addEventListener("click", act);
  for (const id of ["category", "undecided"]) $(id).addEventListener("change", filter);
  $("mask").addEventListener("change", toggleMask);

  $("category").append(new Option("all", ""));
  for (const item of items) {
    if (!counts.has(item.category)) {
      counts.set(item.category, { accept: 0, edit: 0, reject: 0, undecided: 0 });
      $("category").append(new Option(item.category, item.category));
    }
    count(item, 1);
  }
  rates();
  filter();
})();
