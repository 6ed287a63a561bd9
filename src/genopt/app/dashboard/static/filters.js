// Which studies are looked at: by problem, by state and by what is typed above a column.
const CONDITION = /^(>=|<=|!=|>|<|=)?(-?[\d.]+(?:e[+-]?\d+)?)$/i;
const BETWEEN = /^(-?[\d.]+(?:e[+-]?\d+)?)\.\.(-?[\d.]+(?:e[+-]?\d+)?)$/i;
const TESTS = {
  ">": (v, x) => v > x,
  "<": (v, x) => v < x,
  ">=": (v, x) => v >= x,
  "<=": (v, x) => v <= x,
  "!=": (v, x) => v !== x,
  "=": (v, x) => v === x,
};

// What a filter asks of a value; null where it cannot be read yet, so that typing filters nothing.
function test(col, text) {
  const wanted = text.trim();
  if (!wanted) return () => true;
  if (wanted === "-" || wanted === "–") return (v) => v === null;
  if (col.kind === "number") {
    const parts = wanted.replace(/([<>=!])\s+/g, "$1").split(/[\s,]+/).map((part) => {
      const between = BETWEEN.exec(part);
      if (between) return (v) => v !== null && v >= Number(between[1]) && v <= Number(between[2]);
      const found = CONDITION.exec(part);
      if (!found || Number.isNaN(Number(found[2]))) return null;
      return (v) => v !== null && TESTS[found[1] || "="](v, Number(found[2]));
    });
    return parts.includes(null) ? null : (v) => parts.every((f) => f(v));
  }
  const not = wanted.startsWith("!");
  const exact = wanted.startsWith("=");
  const words = wanted.slice(not || exact ? 1 : 0).toLowerCase().split("|").filter(Boolean);
  if (!words.length) return null;
  return (v) => {
    const own = String(v ?? "").toLowerCase();
    return words.some((word) => (exact ? own === word : own.includes(word))) !== not;
  };
}

// The studies of the chosen problem, whatever their state.
function ofQuestion() {
  const all = range(data.ids.length);
  if (data.questions.length < 2 || chosen.question === null) return all;
  return all.filter((i) => data.asked[i] === chosen.question);
}

function visible() {
  const state = column("state").values;
  const tests = Object.entries(chosen.filters)
    .map(([name, text]) => [column(name), text])
    .filter(([col]) => col)
    .map(([col, text]) => [col.values, test(col, text)])
    .filter(([, f]) => f);
  return ofQuestion().filter(
    (i) => (!chosen.states.size || chosen.states.has(state[i])) && tests.every(([values, f]) => f(values[i])),
  );
}

function setFilter(name, text) {
  if (text) chosen.filters[name] = text;
  else delete chosen.filters[name];
  chosen.page = 0;
}

function clearFilters() {
  chosen.filters = {};
  chosen.states.clear();
  chosen.page = 0;
}

const filtered = () => chosen.states.size > 0 || Object.keys(chosen.filters).length > 0;

// Nothing compares with what is missing, which goes last either way.
function sorted(rows, name, down) {
  const col = column(name);
  if (!col) return rows;
  const sign = down ? -1 : 1;
  const values = col.values;
  const compare =
    col.kind === "number"
      ? (a, b) => a - b
      : (a, b) => String(a).localeCompare(String(b), undefined, { numeric: true });
  return [...rows].sort((i, j) => {
    const [a, b] = [values[i], values[j]];
    if (a === null || a === "") return b === null || b === "" ? i - j : 1;
    if (b === null || b === "") return -1;
    return sign * compare(a, b) || i - j;
  });
}
