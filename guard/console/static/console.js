// Keys, counters, choosing. Everything works without it, by links and forms.
"use strict";

const one = (query) => document.querySelector(query);
const all = (query) => [...document.querySelectorAll(query)];
const dialog = one("#keys");

// ── single keys ──────────────────────────────────────────────────────────────────────────────────
// They can be switched off (WCAG 2.1.4), and rest while somebody types.

const STORED = "guard-keys";
const keysOn = () => localStorage.getItem(STORED) !== "off";

for (const box of all("[data-keys-on]")) {
  box.checked = keysOn();
  box.addEventListener("change", () => localStorage.setItem(STORED, box.checked ? "on" : "off"));
}

const typing = (target) =>
  target.closest("select, textarea, dialog, input:not([type=checkbox]), [contenteditable]");

let gone = false; // a label was given: the next page is on its way
addEventListener("pageshow", () => { gone = false; });

function press(element) {
  if (!element || gone) return false;
  gone = element.matches("button:not([type=button]), a[href]");
  element.click();
  return true;
}

function help() {
  if (dialog && !dialog.open) dialog.showModal();
}

function move(step) {
  const rows = all("[data-row]");
  if (!rows.length) return;
  const at = rows.findIndex((row) => row.contains(document.activeElement));
  const to = rows[Math.min(rows.length - 1, Math.max(0, at < 0 && step > 0 ? 0 : at + step))];
  to.querySelector("a").focus();
  to.scrollIntoView({ block: "nearest" });
}

function choose() {
  const row = document.activeElement.closest("[data-row]");
  const box = row && row.querySelector("input[type=checkbox]");
  if (box) box.click();
  else press(one("[data-all]"));
}

function act(key) {
  if (key === "?") return help();
  if (key === "/") return filters();
  if (one("body.queue")) {
    if (key === "j") return move(1);
    if (key === "k") return move(-1);
    if (key === "x") return choose();
    const bulk = { a: "adversarial", b: "benign", u: "unsure" }[key];
    if (bulk) return label(bulk);
  }
  press(one(`[data-key="${CSS.escape(key)}"]`));
}

function label(value) {
  if (!chosen().length) {
    const row = document.activeElement.closest("[data-row]");
    if (!row) return say("Choose suspects first, with x.");
    row.querySelector("input[type=checkbox]").checked = true;
  }
  press(one(`.bulkbar button[value="${value}"]`));
}

function filters() {
  const box = one("#filters");
  if (!box) return press(one("[data-key=q]"));
  box.open = true;
  box.querySelector("select, input:not([type=hidden])").focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.repeat) return;
  if (!keysOn() || typing(event.target) || event.key.length !== 1) return;
  if (!"abuzjkxrq/?".includes(event.key)) return;
  event.preventDefault();
  act(event.key);
});

for (const link of all("[data-help]"))
  link.addEventListener("click", (event) => { event.preventDefault(); help(); });

// ── choosing ─────────────────────────────────────────────────────────────────────────────────────

const chosen = () => all("#bulk input[type=checkbox]:checked");

function count() {
  const text = one("[data-chosen]");
  if (!text) return;
  const found = chosen().length;
  const own = one("#bulk input[type=hidden][name=id]") ? "This one and " : "";
  text.textContent = found ? `${own}${found} chosen ${own || found > 1 ? "are" : "is"}` : `${own || "Chosen ones "}${own ? "the chosen are" : "are"}`;
}

for (const box of all("#bulk input[type=checkbox]")) box.addEventListener("change", count);
for (const button of all("[data-all]"))
  button.addEventListener("click", () => {
    const boxes = all("#bulk input[type=checkbox]");
    const on = boxes.some((box) => !box.checked);
    for (const box of boxes) box.checked = on;
    count();
  });
count();

// ── counters ─────────────────────────────────────────────────────────────────────────────────────

const EVERY = 5000; // milliseconds
const thin = (value) => String(value).replace(/\B(?=(\d{3})+$)/g, "\u202f");
let known = null;

function say(text) {
  const place = one("#said");
  const line = document.createElement("p");
  line.textContent = text;
  place.replaceChildren(line);
}

function show(counts) {
  for (const element of all("[data-count]")) element.textContent = thin(counts[element.dataset.count]);
  const gauge = one("[data-gauge]");
  if (gauge) {
    gauge.setAttribute("width", String(counts.total ? (100 * counts.agreed) / counts.total : 0));
    const bar = gauge.closest("[role=progressbar]");
    bar.setAttribute("aria-valuenow", String(counts.agreed));
    bar.setAttribute("aria-valuemax", String(counts.total));
  }
  if (one("body.queue") && known !== null && counts.total > known)
    say(`${thin(counts.total - known)} new since this page was loaded.`);
  known = known ?? counts.total;
}

async function ask() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/counts.json", { headers: { accept: "application/json" } });
    if (answer.status === 401) location.assign("/login");
    else if (answer.ok) show(await answer.json());
  } catch {
    // The next one may succeed.
  }
}

if (one("[data-counts]")) setInterval(ask, EVERY);

// ── for ears ─────────────────────────────────────────────────────────────────────────────────────
// What was said before the page came is said again, so that a screen reader hears it.

const said = one("#said p");
if (said) {
  const text = said.textContent;
  setTimeout(() => say(text), 150);
}
