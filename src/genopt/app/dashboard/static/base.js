// What all views share: the data, small helpers, and numbers as people read them.
const $ = (selector, root = document) => root.querySelector(selector);
const read = (id) => JSON.parse($(`#${CSS.escape(id)}`).textContent);

let data = read("data");
const live = Boolean(data.live);
const column = (name) => data.columns.find((c) => c.name === name);
// The page is shown before its end is read: figures, curves and Plotly come after this script.
const whole = new Promise((resolve) => {
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", resolve, { once: true });
  else resolve();
});
const range = (n) => Array.from({ length: n }, (_, i) => i);

const STATES = {
  finished: { sign: "✓", color: "#3a9d5d" },
  running: { sign: "▶", color: "#2f6db3" },
  queued: { sign: "…", color: "#5d6b7a" },
  interrupted: { sign: "‖", color: "#a85f0f" },
  pruned: { sign: "✂", color: "#7d5ba6" },
  failed: { sign: "✕", color: "#c0392b" },
  missing: { sign: "○", color: "#5d6b7a" },
};
const PALETTE = ["#2f6db3", "#d9822b", "#3a9d5d", "#7d5ba6", "#c0392b", "#5d6b7a", "#1b9aaa", "#b0539b"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon"];
const DASHES = ["solid", "dash", "dot", "dashdot"];
const INK = "#2b3440";

// What the user has chosen; filters are kept when new data arrive.
const chosen = {
  tab: null,
  filters: {},
  states: new Set(),
  sort: null,
  page: 0,
  question: null,
  metric: null,
  better: {},
  columns: {},
  study: null,
  plots: {},
};

function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (name in node && !name.startsWith("aria") && name !== "role" && name !== "style") node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((c) => c !== null && c !== undefined));
  return node;
}

// Three significant digits; whole numbers as they are.
function short(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (typeof value !== "number") return String(value);
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e6) return String(value);
  if (size < 1e-3 || size >= 1e5) return value.toExponential(digits - 1).replace(/\.?0*e\+?/, "e");
  return String(Number(value.toPrecision(digits)));
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 100) return `${short(seconds)} s`;
  if (seconds < 6000) return `${short(seconds / 60)} min`;
  return `${short(seconds / 3600)} h`;
}

// Keys are settings that somebody typed: no digit of them is dropped.
function shown(col, i) {
  const value = col.values[i];
  if (value === null || value === undefined) return "–";
  if (col.name === "seconds") return duration(value);
  if (col.kind === "number") return short(value, col.group === "key" ? 6 : 3);
  return String(value);
}

function chip(state) {
  const { sign, color } = STATES[state] || { sign: "?", color: INK };
  return el("span", { class: "state", style: `--c:${color}` }, el("i", { "aria-hidden": "true" }, sign), state);
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  if (!sorted.length) return null;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

const known = (values) => values.filter((v) => typeof v === "number" && Number.isFinite(v));
function isLog(values) {
  const numbers = known(values);
  if (numbers.length < 2) return false;
  let low = Infinity;
  let high = -Infinity;
  for (const v of numbers) {
    if (v < low) low = v;
    if (v > high) high = v;
  }
  return low > 0 && high > 30 * low;
}

const higher = (name) => (chosen.better[name] || column(name)?.better) === "high";
const plural = (n, word) => `${n} ${n === 1 ? word : word === "study" ? "studies" : `${word}s`}`;
